"""Runs of the real timm on a CPU."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import random_seed
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.datasets import ImageFolder

from eagleray.contract import ConfigError, Dataset, DatasetError, Split, TrainingError
from eagleray.testing.host import RecordingHost
from eagleray_timm.loader import Pictures
from eagleray_timm.predictor import TimmPredictor
from eagleray_timm.samples import Samples

from conftest import CLASSES, assert_same, state_of, train, write_dataset  # isort: skip

EVERYTHING = {
    "aa": "rand-m9-mstd0.5-inc1",
    "reprob": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "drop": 0.2,
    "drop_path": 0.1,
    "model_ema": True,
    "model_ema_decay": 0.9,
    "grad_accum_steps": 2,
    "clip_grad": 1.0,
    "lr_noise": [0.3, 0.9],
}


def test_a_small_model_learns_real_scans_of_digits(tmp_path: Path, scans: Dataset) -> None:
    config = {"in_chans": 1, "hflip": 0.0, "color_jitter": 0.0, "scale": [0.7, 1.0], "crop_pct": 1.0}
    host = train(tmp_path, scans, epochs=6, batch_size=64, learning_rate=3e-3, config=config)
    assert max(report.metrics["metrics/accuracy_top1"] for report in host.reports) > 0.95
    assert {"results.csv", "classes.csv", "confusion_matrix.csv", "confusion_matrix.png"} == set(host.files)
    assert host.best is not None
    predictor = TimmPredictor(host.best)
    pictures = sorted((scans.path / "valid").rglob("*.png"))
    answers = predictor.predict_many(pictures)
    right = sum(best["label"] == path.parent.name for path, (best, *_) in zip(pictures, answers, strict=True))
    assert right / len(pictures) == pytest.approx(max(r.metrics["metrics/accuracy_top1"] for r in host.reports))
    assert sum(answer["score"] for answer in answers[0]) == pytest.approx(1.0, abs=1e-5)


def test_a_run_reports_stable_names_and_every_step(tmp_path: Path) -> None:
    host = train(tmp_path, write_dataset(tmp_path / "data"))
    names = {"accuracy_top1", "accuracy_top5", "f1", "precision", "recall"}
    expected = {f"metrics/{name}" for name in names} | {"train/loss", "val/loss", "lr", "fitness"}
    assert [set(report.metrics) for report in host.reports] == [expected] * 2
    assert host.steps == [(epoch, step, 4) for epoch in (1, 2) for step in (1, 2, 3, 4)]


def test_the_same_seed_gives_the_weights_of_a_plain_loop_of_timms_factories(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", images=44)  # 33 for training
    config = {"no_aug": True, "train_interpolation": "bilinear", "smoothing": 0.0}
    host = train(tmp_path, dataset, batch_size=11, learning_rate=0.01, seed=5, config=config)
    random_seed(5, 0)
    model = timm.create_model("test_resnet", num_classes=3, in_chans=3)
    data = timm.data.resolve_model_data_config(model, {"img_size": 32})
    transform = create_transform(
        (3, 32, 32), is_training=True, no_aug=True, interpolation="bilinear", mean=data["mean"], std=data["std"]
    )
    pictures = ImageFolder(str(dataset.path / "train"), transform)
    sampler = DistributedSampler(pictures, 1, 0, seed=5)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=0.01, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=2, step_on_epochs=False, updates_per_epoch=3, warmup_lr=1e-5
    )
    updates = 0
    for epoch in range(2):
        model.train()
        sampler.set_epoch(epoch)
        for inputs, targets in DataLoader(pictures, 11, sampler=sampler, drop_last=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            updates += 1
            schedule.step_update(updates)
    ours = state_of(host)
    for name, value in model.state_dict().items():
        # Normalised on the batch here, on each picture there: the last bit of a pixel may differ.
        assert torch.allclose(ours[name].float(), value.float(), atol=2e-4), name


def test_neither_loader_processes_nor_another_run_change_the_weights(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    runs = [
        train(tmp_path / name, dataset, config=EVERYTHING | {"workers": workers})
        for name, workers in (("alone", 0), ("again", 0), ("two", 2))
    ]
    assert_same(state_of(runs[0]), state_of(runs[1]))
    assert_same(state_of(runs[0]), state_of(runs[2]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("opt", ["sgd", "adamw", "lion"])
def test_a_resumed_run_ends_with_the_bits_of_the_uninterrupted_one(tmp_path: Path, workers: int, opt: str) -> None:
    dataset = write_dataset(tmp_path / "data")
    config = EVERYTHING | {"workers": workers, "opt": opt}
    whole = train(tmp_path / "whole", dataset, epochs=4, config=config)
    first = RecordingHost(tmp_path / "first", stop_after_steps=9)  # within the third epoch
    train(first.folder, dataset, first, epochs=4, config=config)
    assert [report.epoch for report in first.reports] == [1, 2]
    second = train(tmp_path / "second", dataset, epochs=4, config=config, resume=first.resume())
    assert [report.metrics for report in second.reports] == [report.metrics for report in whole.reports[2:]]
    assert_same(state_of(second), state_of(whole))
    assert len((second.files["results.csv"]).read_text().splitlines()) == 5


def test_a_resumed_run_may_be_longer(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    first = train(tmp_path / "first", dataset, epochs=1)
    second = train(tmp_path / "second", dataset, epochs=3, resume=first.resume())
    assert [report.epoch for report in second.reports] == [2, 3]
    assert second.reports[-1].metrics["lr"] < second.reports[0].metrics["lr"]


def test_a_stop_during_validation_leaves_no_report(tmp_path: Path) -> None:
    host = RecordingHost(tmp_path / "run", stop_after_steps=4)  # the epoch's last batch
    train(host.folder, write_dataset(tmp_path / "data"), host)
    assert host.reports == [] and len(host.steps) == 4


def test_a_run_that_no_longer_improves_ends_early_and_is_evaluated(tmp_path: Path) -> None:
    config = {"patience": 2, "opt": "sgd", "lr_base": 1e-12}
    host = train(tmp_path, write_dataset(tmp_path / "data"), epochs=9, config=config | {"eval_metric": "f1"})
    assert len(host.reports) < 9 and host.best is not None


def test_pictures_with_several_labels_are_learnt(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    rows = ["image,label,split"]
    for number in range(128):
        if not number & 3:
            continue
        red, blue = bool(number & 1), bool(number & 2)
        picture = Image.new("RGB", (32, 32), (60 + number, 60 + number, 60))
        if red:
            picture.paste((230, 20, 20), (0, 0, 16, 16 + number % 16))
        if blue:
            picture.paste((20, 20, 230), (16, 0, 32, 16 + number % 16))
        picture.save(root / f"{number}.png")
        labels = ";".join(name for name, there in (("red", red), ("blue", blue)) if there)
        rows.append(f"{number}.png,{labels},{'val' if number % 16 < 4 else 'train'}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    splits = {"train": Split(".", 72, 72), "val": Split(".", 24, 24)}
    dataset = Dataset(root, "csv", "image-classification", ("blue", "red", "red;blue"), splits)
    config = {"multi_label": True, "no_aug": True, "smoothing": 0.0, "class_weights": "neg_pos"}
    host = train(tmp_path, dataset, epochs=8, batch_size=16, learning_rate=3e-3, config=config)
    last = host.reports[-1].metrics
    assert last["metrics/mAP"] > 0.95 and last["fitness"] == last["metrics/mAP"] and "metrics/f1_micro" in last
    assert "confusion_matrix.png" not in host.files and host.best is not None
    predictor = TimmPredictor(host.best)
    assert predictor.classes == ("blue", "red")
    assert [predictor.predict(root / f"{number}.png")[0]["label"] for number in (1, 2)] == ["red", "blue"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, workers: int) -> None:
    dataset = write_dataset(tmp_path / "data")
    broken = min((dataset.path / "train" / "b").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DatasetError) as caught:
        train(tmp_path, dataset, config={"workers": workers})
    assert caught.value.message.startswith(str(broken)) and "Traceback" not in str(caught.value)


def test_a_large_photograph_is_decoded_no_larger_than_needed_and_upright(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    picture = Image.new("RGB", (800, 400), (200, 30, 30))
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(file, exif=turned)
    sizes: list[tuple[int, int]] = []

    def transform(seen: Image.Image) -> None:
        sizes.append(seen.size)

    for enough in (0, 401, 200, 100):
        samples = Samples((str(file),), ((0,),))
        Pictures(samples, transform, mode="RGB", num_labels=0, seed=None, enough=enough)[(1, 0)]
    assert sizes == [(400, 800), (400, 800), (200, 400), (100, 200)]


def test_a_loss_that_is_no_number_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss of epoch 1 is nan.*clip_grad"):
        train(tmp_path, write_dataset(tmp_path / "data"), learning_rate=1e30, config={"opt": "sgd"})


def test_fewer_pictures_in_a_batch_than_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 1 is not enough for 2 workers"):
        train(tmp_path, write_dataset(tmp_path / "data"), batch_size=1, world_size=2)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_on_a_cpu_too(tmp_path: Path, amp: str) -> None:
    host = train(tmp_path, write_dataset(tmp_path / "data"), config={"amp": amp, "channels_last": True})
    assert len(host.reports) == 2
    scaler = torch.load(host.resume().path / "state.pt", weights_only=True)["scaler"]
    assert (scaler is not None) == (amp == "fp16")


def test_no_thread_and_no_process_is_left(tmp_path: Path) -> None:
    import multiprocessing

    before = set(threading.enumerate())
    train(tmp_path, write_dataset(tmp_path / "data"), config={"workers": 2})
    assert set(threading.enumerate()) <= before and multiprocessing.active_children() == []


def test_the_portable_file_loads_with_timm_alone_and_without_code(tmp_path: Path) -> None:
    host = train(tmp_path, write_dataset(tmp_path / "data"), epochs=1)
    file = host.resume().path / "model.pt"
    content = torch.load(file, weights_only=True)
    assert content["classes"] == list(CLASSES) and content["data_config"]["input_size"] == [3, 32, 32]
    model = timm.create_model(content["architecture"], checkpoint_path=str(file), **content["model_args"])
    assert model.num_classes == 3


def test_the_catalogue_agrees_with_timm() -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
