"""A new plugin's package, written from the template; it passes the conformance suite as it stands."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from eagleray.contract.errors import ConfigError
from eagleray.contract.tasks import IMAGE_CLASSIFICATION, OBJECT_DETECTION, normalise_task

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Answers of the template's predictor, for each task that has a template.
_ANSWERS = {
    IMAGE_CLASSIFICATION: """\
        order = np.argsort(-scores, kind="stable")
        return [{"label": self.classes[i], "class_id": int(i), "score": float(scores[i])} for i in order]""",
    OBJECT_DETECTION: """\
        best = int(scores.argmax())
        if scores[best] < threshold:
            return []
        box = [0.0, 0.0, float(picture.width), float(picture.height)]
        return [{"label": self.classes[best], "class_id": best, "score": float(scores[best]), "box": box}]""",
}
_FORMATS = {IMAGE_CLASSIFICATION: "imagefolder", OBJECT_DETECTION: "dice"}


def write_plugin(name: str, task: str, parent: Path) -> Path:
    """Write the package `eagleray-{name}` below `parent`; returns its folder.

    Raises:
        ConfigError: the name is not one, there is no template for the task, or the folder exists.
    """
    task = normalise_task(task)
    plain = name.removeprefix("eagleray-")
    if not _NAME.fullmatch(plain):
        raise ConfigError(
            f"'{name}' is no name for a plugin.", "Lower-case letters, digits and '-', such as 'my-shapes'."
        )
    if task not in _ANSWERS:
        raise ConfigError(
            f"There is no template for {task}.",
            f"Start from one of: {', '.join(_ANSWERS)}; a plugin may offer any task (docs/plugin-contract.md).",
        )
    target = parent / f"eagleray-{plain}"
    if target.exists():
        raise ConfigError(f"'{target}' exists.", "Choose another name, or another folder with --path.")
    words = {
        "name": plain,
        "package": f"eagleray_{plain.replace('-', '_')}",
        "task": task,
        "dataset_format": _FORMATS[task],
        "answer": _ANSWERS[task],
    }
    template = files("eagleray.plugins").joinpath("template")
    for part in ("common", task):
        _render(template.joinpath(part), target, words)
    # The template needs what the echo framework needs, so its lock is there without asking a package index.
    lock = target / "src" / words["package"] / "locks" / "runtime.txt"
    lock.parent.mkdir()
    lock.write_text(files("eagleray.testing").joinpath("locks/echo.txt").read_text(encoding="utf-8"), encoding="utf-8")
    return target


def _render(source: Traversable, target: Path, words: dict[str, str]) -> None:
    for entry in source.iterdir():
        name = entry.name.replace("PACKAGE", words["package"])
        if entry.is_dir():
            _render(entry, target / name, words)
            continue
        text = entry.read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace("{{" + word + "}}", value)
        target.mkdir(parents=True, exist_ok=True)
        (target / name.removesuffix(".tmpl")).write_text(text, encoding="utf-8")
