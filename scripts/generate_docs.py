"""Writes what in docs/ is read off the code: job-spec.md, cli.md, the tables of datasets.md and its pictures.

.venv/bin/python scripts/generate_docs.py            write them
.venv/bin/python scripts/generate_docs.py --check    exit 1 where a committed page differs from what would be written
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from PIL import Image, ImageDraw

from eagleray.cli.app import app
from eagleray.datasets import FORMATS, preview
from eagleray.datasets.report import CODES as FINDINGS
from eagleray.jobs.resume import CHANGEABLE_ON_RESUME
from eagleray.jobs.spec import JobSpec, Scaling

DOCS = Path(__file__).parents[1] / "docs"
# Its tables are made, the rest is written by hand.
DATASETS = DOCS / "datasets.md"
NOTE = "<!-- Written by scripts/generate_docs.py; change the code, then run it. -->\n"
Schema = Mapping[str, Any]

# The flag of `eagleray train` that sets a key; every other key goes by `--set`.
FLAGS = {
    "framework": "--framework",
    "model_name": "--model",
    "dataset_path": "--data",
    "task_type": "--task",
    "dataset_format": "--dataset-format",
    "epochs": "--epochs",
    "batch_size": "--batch-size",
    "learning_rate": "--learning-rate",
    "advanced_config": "--set",
    "project_id": "--project",
    "pretrained": "--pretrained, --no-pretrained, --weights",
    "seed": "--seed",
    "scaling": "",
    "checkpoint_every": "--checkpoint-every",
    "resume": "--resume",
    "num_workers": "--workers",
    "gpus_per_worker": "--gpus-per-worker",
    "cpus_per_worker": "--cpus-per-worker",
    "accelerator_type": "--accelerator-type",
}

JOB_SPEC = """# Job spec

{note}
A job is described by these keys, the same in a YAML file, in a JSON file and on the command line.
A key that is not in the table is an error that names the nearest one; a wrong value is an error that names the value.

<!-- job spec -->
```yaml
framework: ultralytics
model_name: yolo11n
dataset_path: data/digits
epochs: 50
batch_size: 16
seed: 1
scaling:
  num_workers: 1
  gpus_per_worker: 1
advanced_config:
  imgsz: 320
  optimizer: AdamW
```

Run it by `eagleray run job.yaml`; `--set key=value` overrides a key of the file,
`--set scaling.gpus_per_worker=0` one inside `scaling`.
Any name that is not a key of the job goes to `advanced_config`: `--set imgsz=320`.

## Keys

`framework`, `model_name` and `dataset_path` must be given. Everything else has a default.

{job}
## `scaling`

{scaling}
## What may change when a job is resumed

Only {changeable}. Everything else is the job's identity: the error says so, and a new job is the way.

## `advanced_config`

The framework's own settings, one model for each task, with types, bounds and defaults.
`eagleray models show MODEL --schema` prints its JSON Schema. Values are checked before anything starts.

## As a JSON Schema

For editors and forms:

```python
import json

from eagleray.jobs.spec import JobSpec

print(json.dumps(JobSpec.model_json_schema(), indent=1)[:80])
```
"""

CLI = """# Command line

{note}
`eagleray --help` and `eagleray COMMAND --help` say the same. Shell completion: `eagleray --install-completion`.

{commands}
## Exit codes

| code | what happened |
|---|---|
{codes}
"""

CODES = {
    0: "done",
    1: "an error of no kind below",
    2: "a flag, a job file or a setting is wrong; a name is unknown",
    3: "the dataset is missing, empty or faulty",
    4: "a plugin broke the contract or could not be loaded",
    5: "the plugin's environment could not be built",
    6: "the store refused, is full or damaged; a checkpoint cannot be read",
    7: "pretrained weights are wanted and cannot be had",
    8: "the Ray cluster cannot be reached, or can never hold the job",
    9: "the training failed",
    130: "the job was stopped or cancelled (Ctrl-C)",
}


def type_of(schema: Schema) -> str:
    """A JSON Schema's type in words: `whole number ≥ 1`, `text or nothing`."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(member) for member in schema["anyOf"]))
    if "$ref" in schema:
        return "keys below"
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    names = {"integer": "whole number", "number": "number", "boolean": "true/false", "null": "nothing"}
    kind = schema.get("type", "")
    if kind == "array":
        return "[min, max]"
    if kind == "object":
        return "keys of the framework"
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    # A seed's upper bound is what its type can hold, which says nothing to a reader.
    bounds = [f"{sign} {schema[word]:g}" for word, sign in words.items() if schema.get(word, 10**6) < 10**6]
    return " ".join([names.get(kind, "text"), ", ".join(bounds)]).strip()


def default_of(name: str, schema: Schema, required: set[str]) -> str:
    if name in required:
        return "must be given"
    if "$ref" in schema or schema.get("default") is None or schema.get("default") == {}:
        return ""
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""


def table_of(schema: Schema) -> str:
    """The Markdown table of a model's keys."""
    required = set(schema.get("required", ()))
    lines = ["| key | value | default | flag | what it says |", "|---|---|---|---|---|"]
    for key, field in schema["properties"].items():
        flag = FLAGS.get(key, f"--set {key}=…")
        cells = [
            f"`{key}`",
            type_of(field),
            default_of(key, field, required),
            ", ".join(f"`{name}`" for name in filter(None, flag.split(", "))),
            field.get("description", ""),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def job_spec_page() -> str:
    return JOB_SPEC.format(
        note=NOTE,
        job=table_of(JobSpec.model_json_schema()),
        scaling=table_of(Scaling.model_json_schema()),
        changeable=", ".join(f"`{key}`" for key in CHANGEABLE_ON_RESUME),
    )


def commands_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it, groups left out."""
    members = getattr(command, "commands", None)
    if members is None:
        yield path, command
        return
    for name, member in members.items():
        yield from commands_of(member, (*path, name))


def command_section(path: tuple[str, ...], command: Any) -> str:
    parameters = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    usage = " ".join(
        ["eagleray", *path]
        + [_argument(parameter) for parameter in arguments]
        + (["[options]"] if len(parameters) > len(arguments) else [])
    )
    lines = [f"## `eagleray {' '.join(path)}`", "", (command.help or "").strip(), "", "```text", usage, "```", ""]
    if parameters:
        lines += ["| argument or option | what it says |", "|---|---|"]
        lines += [f"| {_names(parameter)} | {_said(parameter)} |" for parameter in parameters]
        lines.append("")
    return "\n".join(lines)


def _argument(parameter: Any) -> str:
    name = parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])


def _said(parameter: Any) -> str:
    text = (getattr(parameter, "help", None) or "").replace("|", "\\|")
    default = parameter.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    return f"{text} Default: `{default}`." if plain else text


def cli_page() -> str:
    sections = [command_section(path, command) for path, command in commands_of(typer.main.get_command(app))]
    codes = "\n".join(f"| {code} | {text} |" for code, text in CODES.items())
    return CLI.format(note=NOTE, commands="\n".join(sections), codes=codes)


def formats_table() -> str:
    """Formats × tasks: r where a format is read for a task, w where it is written."""
    tasks = list(dict.fromkeys(task for form in FORMATS.values() for task in form.reads))
    lines = [f"| format | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for form in FORMATS.values():
        cells = [
            " ".join(mark for mark, known in (("r", form.reads), ("w", form.writes)) if task in known) for task in tasks
        ]
        lines.append(
            f"| {form.title.replace(form.title.partition(':')[0], f'`{form.name}`', 1)} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def findings_table() -> str:
    lines = ["| kind | severity | what it is |", "|---|---|---|"]
    lines += [
        f"| `{code}` | {'error or warning' if severity == 'both' else severity} | {meaning} |"
        for code, (severity, meaning) in FINDINGS.items()
    ]
    return "\n".join(lines)


def datasets_page() -> str:
    """The page as it is, its tables made anew; what stands around them is written by hand."""
    text = DATASETS.read_text(encoding="utf-8")
    for mark, table in (("formats", formats_table()), ("findings", findings_table())):
        before, _, rest = text.partition(f"<!-- {mark} -->\n")
        _, _, after = rest.partition(f"<!-- /{mark} -->\n")
        text = f"{before}<!-- {mark} -->\n{table}\n<!-- /{mark} -->\n{after}"
    return text


Points = list[tuple[float, float]]
# Of a figure: hand, head, hand and foot about its middle, in parts of its size.
JOINTS = ((-1.0, -0.4), (0.0, -1.0), (1.0, -0.4), (0.1, 1.0))
SIDE = 160


def box_columns(points: Points) -> str:
    (left, right), (top, bottom) = ((min(values), max(values)) for values in zip(*points, strict=True))
    numbers = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return " ".join(f"{number / SIDE:.6f}" for number in numbers)


def draw_boxes(draw: ImageDraw.ImageDraw, class_id: int, x: float, y: float, size: float) -> str:
    points = [(x - size, y - size * 0.7), (x + size, y + size * 0.7)]
    (draw.rectangle if class_id else draw.ellipse)(points, fill=(220, 190, 60 + 120 * class_id))
    return f"{class_id} {box_columns(points)}"


def draw_masks(draw: ImageDraw.ImageDraw, class_id: int, x: float, y: float, size: float) -> str:
    """A leaf or a star, by their outlines."""
    outline = []
    for step in range(40):
        angle = step * math.tau / 40
        reach = size * (0.7 + 0.3 * math.cos(5 * angle) if class_id else 0.55 + 0.45 * abs(math.cos(angle)))
        outline.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    draw.polygon(outline, fill=(70, 150 + 60 * class_id, 90))
    return f"{class_id} " + " ".join(f"{value / SIDE:.6f}" for point in outline for value in point)


def draw_keypoints(draw: ImageDraw.ImageDraw, class_id: int, x: float, y: float, size: float) -> str:
    points = [(x + dx * size, y + dy * size) for dx, dy in JOINTS]
    for end in points:
        draw.line([(x, y), end], fill=(60, 60, 70), width=5)
    around = [(x - size * 1.1, y - size * 1.1), (x + size * 1.1, y + size * 1.1)]
    seen = " ".join(f"{a / SIDE:.6f} {b / SIDE:.6f} {1 if place == 3 else 2}" for place, (a, b) in enumerate(points))
    return f"0 {box_columns(around)} {seen}"


# Name → how an object is drawn and its row, its class names, and what data.yaml says besides.
SHEETS: dict[str, tuple[Callable[..., str], tuple[str, ...], str]] = {
    "boxes": (draw_boxes, ("coin", "stamp"), ""),
    "masks": (draw_masks, ("leaf", "star"), ""),
    "keypoints": (draw_keypoints, ("figure",), "kpt_shape: [4, 3]\nflip_idx: [2, 1, 0, 3]\n"),
}


def write_made(root: Path, draw_one: Callable[..., str], classes: tuple[str, ...], also: str) -> Path:
    """A DICE set of eight made pictures with two objects each, the same every time."""
    rng = random.Random(4)
    for number in range(8):
        split = "train" if number < 6 else "valid"
        picture = Image.new("RGB", (SIDE, SIDE), (rng.randint(170, 215), rng.randint(170, 215), rng.randint(180, 225)))
        draw = ImageDraw.Draw(picture)
        rows = [
            draw_one(draw, (number + place) % len(classes), 45 + 70 * place, rng.uniform(45, 115), rng.uniform(18, 36))
            for place in range(2)
        ]
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        picture.save(root / split / "images" / f"{number}.png")
        (root / split / "labels" / f"{number}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(classes))
    (root / "data.yaml").write_text(f"{also}names:\n{names}", encoding="utf-8")
    return root


def write_sheets(folder: Path) -> list[Path]:
    """The contact sheets of docs/datasets.md, as the product makes them, in few colours so that they stay small."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, made in SHEETS.items():
            path = preview(write_made(Path(scratch, name), *made), Path(scratch, f"{name}.png"), images=4)
            target = folder / f"preview-{name}.png"
            with Image.open(path) as sheet:
                sheet.quantize(64).save(target, optimize=True)
            written.append(target)
    return written


def stale_sheets() -> list[str]:
    """Sheets that are missing or show something else; their bytes may differ by the library that packs them."""
    stale = []
    with tempfile.TemporaryDirectory() as scratch:
        for made in write_sheets(Path(scratch)):
            kept = DOCS / "pictures" / made.name
            if not kept.is_file() or pixels(made) != pixels(kept):
                stale.append(f"pictures/{made.name}")
    return stale


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


PAGES = {"datasets.md": datasets_page, "job-spec.md": job_spec_page, "cli.md": cli_page}


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(f"generate_docs: unknown arguments {arguments}; valid: --check", file=sys.stderr)
        return 2
    stale = 0
    for name, page in PAGES.items():
        path = DOCS / name
        text = page().rstrip("\n") + "\n"
        if not arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{name} is stale; run scripts/generate_docs.py", file=sys.stderr)
            stale = 1
    if not arguments:
        write_sheets(DOCS / "pictures")
    else:
        for name in stale_sheets():
            print(f"docs/{name} is stale; run scripts/generate_docs.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
