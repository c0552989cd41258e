"""An update is that of all its samples at once, however they are cut into batches and shared by workers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from eagleray.contract import Dataset, Split
from eagleray.testing.host import RecordingHost

import workers  # isort: skip
from conftest import TINY, free_port, make_context, state_of, tiny_context, train, write_dataset  # isort: skip
from language import write_model  # isort: skip

# Plain steps along the gradient, so that what is learnt is as large as the gradient is.
PLAIN_STEPS = {"optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
NOTHING_RANDOM: dict[str, dict[str, Any]] = {
    "detr": {"dropout": 0.0},
    "rt_detr": {"num_denoising": 0},
    "segformer": {"classifier_dropout_prob": 0.0, "drop_path_rate": 0.0},
    "mask2former": {"dropout": 0.0},
}
# 17 pictures in batches of 10 and 7: of two workers 5 + 5 and 4 + 3, of two batches for a step 5 + 5 and 5 + 2.
WHOLE, HALF, PICTURES = 10, 5, 22
EXACT = ("vit", "resnet", "convnext", "segformer", "rt_detr", "llava")
# Their classes are a mean over queries and their shapes one over objects; Mask2Former draws points at random, too.
NEARLY = ("detr", "mask2former")


@dataclass(frozen=True)
class Lesson:
    """A dataset and the settings under which a model of `kind` learns from it; `kind` is empty where they name it."""

    kind: str
    dataset: Dataset
    changes: dict[str, Any]

    def changed(self, **changes: Any) -> dict[str, Any]:
        """The settings with `changes`; those of `config` are added to its own."""
        values = {"epochs": 1, "batch_size": WHOLE, "learning_rate": 0.01, **self.changes}
        config = {**PLAIN_STEPS, "workers": 0, **values.pop("config"), **changes.pop("config", {})}
        return {**values, **changes, "config": config}


def lesson_of(folder: Path, kind: str) -> Lesson:
    if kind == "llava":
        model = {"model": str(write_model(folder / "model")), "pretrained": True, "config": {"lora": None}}
        return Lesson("", write_answers(folder / "data"), model)
    described = {key: value for key, value in TINY[kind].items() if key not in ("task", "model")}
    changes: dict[str, Any] = {"config": {"config_overrides": described | NOTHING_RANDOM.get(kind, {})}}
    if kind in NEARLY:
        # What they differ in at first would grow from step to step.
        changes["learning_rate"] = 1e-6
    dataset = write_dataset(folder / "data", TINY[kind]["task"], images=PICTURES)
    assert dataset.splits["train"].num_images == 17
    return Lesson(kind, dataset, changes)


def write_answers(root: Path) -> Dataset:
    """17 pictures with answers of one to six words."""
    root.mkdir(parents=True)
    rows = []
    for number in range(17):
        Image.new("RGB", (20, 20), (number * 14, 90, 200 - number * 9)).save(root / f"{number}.png")
        answer = " ".join(["red", "green", "blue", "the", "picture", "."][: 1 + number % 6])
        rows.append(json.dumps({"image": f"{number}.png", "prompt": "what colour ?", "answer": answer}))
    (root / "rows.jsonl").write_text("\n".join(rows))
    splits = {name: Split(".", 17, 17, annotations="rows.jsonl") for name in ("train", "val")}
    return Dataset(path=root, format="jsonl", task="image-text-to-text", classes=(), splits=splits)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lesson]:
    return {kind: lesson_of(tmp_path_factory.mktemp(kind), kind) for kind in (*EXACT, *NEARLY)}


TWICE = {"batch_size": HALF, "config": {"gradient_accumulation_steps": 2}}


@pytest.fixture(scope="module")
def shared(lessons: dict[str, Lesson], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """`(kind, way)` → the weights of two workers after an epoch."""
    folder = tmp_path_factory.mktemp("shared")
    jobs = {
        (kind, way): workers.Job(
            folder / kind / way, lesson.kind, lesson.dataset, lesson.changed(**changes), still=True
        )
        for kind, lesson in lessons.items()
        for way, changes in (("whole", {}), ("accumulated", TWICE))
        if way == "whole" or kind in EXACT
    }
    found = workers.run_all(folder, list(jobs.values()), 2, free_port())
    return {key: results[0]["state"] for key, results in zip(jobs, found, strict=True)}


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    workers.keep_normalisation_still(monkeypatch.setattr)


def alone(folder: Path, lesson: Lesson, **changes: Any) -> Any:
    """The weights of one worker after an epoch."""
    host = RecordingHost(folder / "host")
    values = lesson.changed(**changes)
    if lesson.kind:
        train(tiny_context(folder, lesson.kind, lesson.dataset, host, **values))
    else:
        train(make_context(folder, lesson.dataset, host, **values))
    return state_of(host)["state_dict"]


def learnt(before: Any, after: Any) -> torch.Tensor:
    """What training changed, as one vector."""
    names = [name for name, tensor in before.items() if tensor.is_floating_point()]
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in names])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative to `one`."""
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize("kind", EXACT)
def test_accumulated_batches_learn_what_the_whole_batch_teaches(
    tmp_path: Path, kind: str, lessons: dict[str, Lesson]
) -> None:
    start = alone(tmp_path / "start", lessons[kind], learning_rate=1e-30)
    whole = learnt(start, alone(tmp_path / "whole", lessons[kind]))
    assert difference(whole, learnt(start, alone(tmp_path / "twice", lessons[kind], **TWICE))) < 1e-4


@pytest.mark.parametrize("way", ["whole", "accumulated"])
@pytest.mark.parametrize("kind", EXACT)
def test_two_workers_learn_what_the_whole_batch_teaches_one(
    tmp_path: Path, kind: str, way: str, lessons: dict[str, Lesson], shared: dict[tuple[str, str], Any]
) -> None:
    start = alone(tmp_path / "start", lessons[kind], learning_rate=1e-30)
    whole = learnt(start, alone(tmp_path / "whole", lessons[kind]))
    assert difference(whole, learnt(start, shared[kind, way])) < 1e-4


@pytest.mark.parametrize("kind", NEARLY)
def test_two_workers_learn_as_much_where_a_loss_has_two_divisors(
    tmp_path: Path, kind: str, lessons: dict[str, Lesson], shared: dict[tuple[str, str], Any]
) -> None:
    start = alone(tmp_path / "start", lessons[kind], learning_rate=1e-30)
    whole = learnt(start, alone(tmp_path / "whole", lessons[kind]))
    assert difference(whole, learnt(start, shared[kind, "whole"])) < 0.3
