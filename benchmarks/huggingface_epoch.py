"""P1: an epoch of the Hugging Face adapter ÷ one of Transformers' Trainer run directly, and whether weights are equal.

    .venv/bin/python benchmarks/huggingface_epoch.py --python PYTHON [--images 480] [--epochs 4] [--batch 16]
                                                     [--workers 0] [--rounds 3] [--json FILE]

PYTHON is that of the plugin's environment (`eagleray envs build huggingface`); both ways run in it, on the same made
pictures, a ViT of 1.3 million parameters from scratch with the same seed, one checkpoint and one validation an epoch,
nothing changed at random. The peer is what a user writes: `Trainer` with an image folder, the model's processor and
`compute_metrics`. An epoch is the mean of epochs 2 to N, from one validation's end to the next. Ours is the adapter
itself with a host that keeps every checkpoint: what Ray adds to a job is not in it (`epoch_time.py` has it). Target:
1.00 within the interval. `again` is the peer once more: the control.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ratio import compare, interleave, medians, publish, verdict

from eagleray.testing.data import write_classification_dataset

TARGET = 1.0
ROOT = Path(__file__).parents[1]
MODEL = {"hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 6, "intermediate_size": 512}
CLASSES = ("a", "b", "c", "d")


def work(folder: Path, options: argparse.Namespace, way: str, name: str) -> float:
    """Seconds of an epoch, by a process of its own."""
    out = folder / name
    if out.exists():
        subprocess.run(["rm", "-r", str(out)], check=True)
    out.mkdir()
    sources = [str(ROOT / "core" / "src"), str(ROOT / "plugins" / "huggingface" / "src")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sources), "HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hf")}
    values = {"data": str(folder / "data"), "out": str(out), "epochs": options.epochs, "batch": options.batch}
    command = [options.python, __file__, "--run", way, json.dumps(values | {"workers": options.workers})]
    done = subprocess.run(command, env=environ, cwd=out, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} ended with {done.returncode}: {done.stderr[-3000:]}")
    moments: list[float] = json.loads(done.stdout.splitlines()[-1])
    return (moments[-1] - moments[0]) / (len(moments) - 1)


def ours(values: dict[str, Any]) -> list[float]:
    """The adapter; the moments at which its epochs ended."""
    import time

    from eagleray.contract import Dataset, ModelCard, Split, TrainingContext
    from eagleray.testing.host import RecordingHost, run_adapter
    from eagleray_huggingface.adapter import HuggingFaceAdapter
    from eagleray_huggingface.config import ClassificationConfig

    moments: list[float] = []

    class Clock(RecordingHost):
        def report(self, *args: Any) -> None:
            super().report(*args)
            moments.append(time.perf_counter())

    data, out = Path(values["data"]), Path(values["out"])
    splits = {"train": Split("train", 0, 0), "val": Split("valid", 0, 0)}
    config = {"config_overrides": MODEL, "image_size": 64, "workers": values["workers"]}
    config |= {"augment": {"horizontal_flip": 0.0, "crop": 1.0}}
    (out / "work").mkdir()
    context = TrainingContext(
        job_id=1,
        attempt=1,
        task="image-classification",
        model=ModelCard("google/vit-base-patch16-224", "image-classification"),
        epochs=values["epochs"],
        batch_size=values["batch"],
        config=ClassificationConfig.model_validate(config),
        dataset=Dataset(data, "imagefolder", "image-classification", CLASSES, splits),
        work_dir=out / "work",
        host=Clock(out / "host"),
        learning_rate=1e-3,
        seed=3,
        pretrained=False,
    )
    run_adapter(HuggingFaceAdapter, context)
    return moments


def their_arguments(values: dict[str, Any]) -> Any:
    import torch
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=values["out"],
        num_train_epochs=values["epochs"],
        per_device_train_batch_size=values["batch"],
        per_device_eval_batch_size=values["batch"],
        learning_rate=1e-3,
        seed=3,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=values["workers"],
    )


def theirs(values: dict[str, Any]) -> list[float]:
    """`Trainer` as it is documented; the moments at which its validations ended."""
    import time

    import torch
    from torchvision.datasets import ImageFolder
    from transformers import (
        Trainer,
        TrainerCallback,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
        set_seed,
    )

    moments: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_save(self, *args: Any, **kwargs: Any) -> None:
            moments.append(time.perf_counter())

    processor = ViTImageProcessor(size={"height": 64, "width": 64})
    data = Path(values["data"])

    def load(image: Any) -> Any:
        return processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]

    def collate(rows: list[Any]) -> dict[str, Any]:
        pixels, labels = zip(*rows, strict=True)
        return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}

    def figures(prediction: Any) -> dict[str, float]:
        return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}

    set_seed(3)
    model = ViTForImageClassification(ViTConfig(**MODEL, image_size=64, num_labels=len(CLASSES)))
    trainer = Trainer(
        model=model,
        args=their_arguments(values),
        data_collator=collate,
        train_dataset=ImageFolder(data / "train", transform=load),
        eval_dataset=ImageFolder(data / "valid", transform=load),
        compute_metrics=figures,
        callbacks=[Clock()],
    )
    trainer.train()
    return moments


COMPARE = """
import sys, json, torch
from pathlib import Path
from transformers import ViTForImageClassification
ours = torch.load(max(Path(sys.argv[1]).rglob("epoch-*/model.pt")), weights_only=True)["state_dict"]
newest = max(Path(sys.argv[2]).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
theirs = ViTForImageClassification.from_pretrained(newest).state_dict()
same = sorted(ours) == sorted(theirs)
worst = max((float((ours[name] - theirs[name]).abs().max()) for name in ours), default=0.0) if same else None
print(json.dumps({"same_names": same, "tensors": len(ours), "largest_difference": worst}))
"""


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps({"ours": ours, "theirs": theirs}[sys.argv[2]](json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="Python of the plugin's environment")
    parser.add_argument("--images", type=int, default=480)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="er-bench-") as scratch:
        folder = Path(scratch)
        write_classification_dataset(folder / "data", images=options.images, size=64, classes=CLASSES)
        ways = {
            "theirs": partial(work, folder, options, "theirs", "theirs"),
            "ours": partial(work, folder, options, "ours", "ours"),
            "again": partial(work, folder, options, "theirs", "again"),
        }
        samples = interleave(ways, options.rounds)
        command = [options.python, "-c", COMPARE, str(folder / "ours"), str(folder / "theirs")]
        weights = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    control, ratio = compare(samples, "again", "theirs"), compare(samples, "ours", "theirs")
    result = {
        "control": control,
        "ours/theirs": [*ratio, verdict(ratio, control, TARGET)],
        "weights": weights,
        "seconds": medians(samples),
        "samples": samples,
    }
    publish(result, options.json)


if __name__ == "__main__":
    main()
