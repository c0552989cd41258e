"""Training with the real Ultralytics on a CPU."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

import eagleray_ultralytics.adapter as adapter_module
from eagleray.contract import CheckpointError, ConfigError, Resume, TrainingError, WeightsError

from conftest import FRAMEWORK, Recorder, make_context, resume_from, train, write_dataset  # isort: skip

DETECTION = "object-detection"
EXACT = {"nbs": 4}  # an optimizer step every batch, so no gradient is left over between two epochs


def files_below(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in folder.rglob("*")}


def tensors(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=False)["model"].float().state_dict()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("task", FRAMEWORK.tasks)
def test_every_task_trains_offline_and_leaves_the_dataset_as_it_was(
    tmp_path: Path, task: str, network: list[object]
) -> None:
    dataset = write_dataset(tmp_path / "data", task)
    before = files_below(dataset.path)
    host = Recorder(tmp_path / "run")
    final: dict[str, float] = {}
    context = make_context(tmp_path / "run", dataset, host, config={"plots": True})
    thread = threading.Thread(target=lambda: final.update(train(context)))  # as on a worker: not the main thread
    thread.start()
    thread.join()
    assert [epoch for epoch, _ in host.reports] == [1, 2]
    best = FRAMEWORK.best_metrics[task].name
    assert best in final and all(best in metrics for _, metrics in host.reports)
    assert host.best is not None and host.checkpoint(2).joinpath("model.pt").stat().st_size < 8e6
    assert {"results.csv", "args.yaml", "results.png", "train_batch0.jpg"} <= set(host.files)
    assert host.steps[-1][0] == 2 and host.steps[-1][1] == host.steps[-1][2]
    assert files_below(dataset.path) == before
    assert network == []


def test_the_same_seed_gives_the_weights_of_ultralytics_own_command(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    host = Recorder(tmp_path / "ours")
    train(make_context(tmp_path / "ours", dataset, host, seed=3))
    command = "from ultralytics.cfg import entrypoint; import sys; sys.argv = ['yolo', *sys.argv[1:]]; entrypoint()"
    arguments = [
        f"data={dataset.path / 'data.yaml'}",
        f"project={tmp_path / 'theirs'}",
        *[
            "detect",
            "train",
            "model=yolo11n.yaml",
            "pretrained=False",
            "epochs=2",
            "batch=4",
            "imgsz=64",
            "seed=3",
            "device=cpu",
        ],
        "plots=False",
    ]
    link = tmp_path / "config" / "Ultralytics"
    link.mkdir(parents=True)
    link.joinpath("Arial.ttf").symlink_to(Path(os.environ["YOLO_CONFIG_DIR"]) / "Ultralytics" / "Arial.ttf")
    env = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path / "config")}
    # Its Ray Tune integration imports Ray after the seed is set, and that import draws random numbers.
    settings = "from ultralytics.utils import SETTINGS; SETTINGS.update(raytune=False, sync=False)"
    subprocess.run([sys.executable, "-c", settings], check=True, env=env, cwd=tmp_path)
    subprocess.run([sys.executable, "-c", command, *arguments], check=True, env=env, cwd=tmp_path)
    theirs = next((tmp_path / "theirs").rglob("last.pt"))
    assert_same(tensors(host.checkpoint(2) / "model.pt"), tensors(theirs))


@pytest.mark.parametrize("close_mosaic", [0, 1, 2, 10])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path: Path, close_mosaic: int) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    config = EXACT | {"close_mosaic": close_mosaic}
    whole, first, second = (Recorder(tmp_path / name) for name in ("whole", "first", "second"))
    train(make_context(whole.folder, dataset, whole, epochs=4, config=config))
    first.stop_after = 2
    train(make_context(first.folder, dataset, first, epochs=4, config=config))
    resume = resume_from(first, 2, tmp_path / "moved")
    train(make_context(second.folder, dataset, second, epochs=4, config=config, resume=resume))
    assert [epoch for epoch, _ in second.reports] == [3, 4]
    assert second.reports == whole.reports[2:]
    assert_same(tensors(second.checkpoint(4) / "model.pt"), tensors(whole.checkpoint(4) / "model.pt"))
    rows = (second.folder / "work" / "run" / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3", "4"]


def test_a_resumed_run_may_be_longer(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    first, second = Recorder(tmp_path / "first"), Recorder(tmp_path / "second")
    train(make_context(first.folder, dataset, first, epochs=2))
    resume = resume_from(first, 2, tmp_path / "moved")
    train(make_context(second.folder, dataset, second, epochs=3, resume=resume))
    assert [epoch for epoch, _ in second.reports] == [3]


def test_a_run_that_only_lacked_its_end_is_evaluated_and_published(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    first, second = Recorder(tmp_path / "first"), Recorder(tmp_path / "second")
    train(make_context(first.folder, dataset, first, epochs=2))
    resume = resume_from(first, 2, tmp_path / "moved")
    final = train(make_context(second.folder, dataset, second, epochs=2, resume=resume))
    assert second.reports == [] and second.best is not None and "metrics/mAP50" in final


def test_a_stop_is_obeyed_within_one_batch_and_half_an_epoch_leaves_nothing(tmp_path: Path) -> None:
    host = Recorder(tmp_path / "run", stop_at_step=(2, 1))
    final = train(make_context(host.folder, write_dataset(tmp_path / "data", DETECTION), host, epochs=5))
    assert host.steps[-1][:2] == (2, 1)
    assert [epoch for epoch, _ in host.reports] == [1] and not host.checkpoint(2).exists()
    assert final == host.reports[-1][1] and host.best is None


def test_a_checkpoint_loads_with_ultralytics_alone_and_without_pickled_code(tmp_path: Path) -> None:
    host = Recorder(tmp_path / "run")
    train(make_context(host.folder, write_dataset(tmp_path / "data", DETECTION), host, epochs=1))
    assert YOLO(host.checkpoint(1) / "model.pt").names == {0: "a", 1: "b"}
    # Without an allow-list: plain values and tensors.
    assert torch.load(host.checkpoint(1) / "state.pt", weights_only=True)["epoch"] == 0


def test_given_weights_are_the_start(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    first, second = Recorder(tmp_path / "first"), Recorder(tmp_path / "second")
    train(make_context(first.folder, dataset, first, epochs=1))
    weights = first.checkpoint(1) / "model.pt"
    frozen = {"freeze": 23, "lr0": 0.0, "optimizer": "SGD", "warmup_epochs": 0.0}
    train(make_context(second.folder, dataset, second, epochs=1, pretrained=True, weights=weights, config=frozen))
    start, end = tensors(weights), tensors(second.checkpoint(1) / "model.pt")
    assert torch.equal(start["model.0.conv.weight"], end["model.0.conv.weight"])


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_unreadable_weights_are_named(tmp_path: Path, content: bytes) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    weights = tmp_path / "yolo11n.pt"
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match=r"yolo11n\.pt"):
        train(make_context(tmp_path / "run", dataset, Recorder(tmp_path / "run"), pretrained=True, weights=weights))


def test_without_weights_and_network_a_sentence_says_where_to_put_them(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    context = make_context(tmp_path / "run", dataset, Recorder(tmp_path / "run"), pretrained=True)
    context.weights_location = "/store/pretrained_weights/ultralytics/yolo11n.pt"
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        train(context)
    assert time.monotonic() - start < 10
    assert context.weights_location in str(caught.value) and "--no-pretrained" in str(caught.value)


def test_an_open_vocabulary_model_trains_with_its_text_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip import clip
    from clip.model import CLIP

    # CLIP's own shapes with random values: the official file cannot be had here, and only it has the known sha256.
    encoder = tmp_path / "ViT-B-32.pt"
    torch.save(CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).state_dict(), encoder)
    monkeypatch.setattr(clip, "_download", lambda url, root: str(Path(root) / Path(url).name))
    dataset = write_dataset(tmp_path / "data", DETECTION)
    host = Recorder(tmp_path / "run")
    context = make_context(
        host.folder, dataset, host, model="yolo_world_v2_s", further_weights={"ViT-B-32": encoder}, epochs=1
    )
    assert "metrics/mAP50-95" in train(context)
    assert [epoch for epoch, _ in host.reports] == [1]


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_an_unreadable_checkpoint_is_named(tmp_path: Path, damage: bytes | None) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    if damage is not None:
        (folder / "state.pt").write_bytes(damage)
    context = make_context(tmp_path / "run", dataset, Recorder(tmp_path / "run"), resume=Resume(folder, 1, {}))
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        train(context)


@pytest.mark.parametrize(
    ("given", "ignored"),
    [
        ({"learning_rate": 0.03}, ["learning_rate=0.03"]),
        ({"config": {"lr0": 0.02, "momentum": 0.8}}, ["lr0=0.02", "momentum=0.8"]),
        ({"learning_rate": 0.03, "config": {"optimizer": "SGD"}}, []),
        ({}, []),
    ],
)
def test_what_the_automatic_optimizer_ignores_is_a_warning_that_names_both(
    tmp_path: Path, given: dict[str, Any], ignored: list[str]
) -> None:
    host = Recorder(tmp_path / "run")
    dataset = write_dataset(tmp_path / "data", DETECTION)
    adapter = adapter_module.UltralyticsAdapter(make_context(host.folder, dataset, host, **given))
    adapter._arguments({})
    said = " ".join(host.warnings)
    assert [name for name in ("learning_rate=0.03", "lr0=0.02", "momentum=0.8") if name in said] == ignored
    assert ("optimizer=auto" in said) is bool(ignored)


def test_a_model_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    dataset = dataclasses.replace(write_dataset(tmp_path / "data", DETECTION), task="image-segmentation")
    with pytest.raises(ConfigError, match="no trainer"):
        train(make_context(tmp_path / "run", dataset, Recorder(tmp_path / "run"), model="sam2_t"))


def test_a_full_gpu_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    dataset = write_dataset(tmp_path / "data", DETECTION)
    monkeypatch.setattr(adapter_module.YOLO, "train", full)
    with pytest.raises(TrainingError, match="Lower batch_size"):
        train(make_context(tmp_path / "run", dataset, Recorder(tmp_path / "run")))


def test_batch_size_auto_on_a_cpu_is_said(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION)
    host = Recorder(tmp_path / "run")
    train(make_context(host.folder, dataset, host, epochs=1, batch_size="auto"))
    assert any("batch_size=auto" in message and "16" in message for message in host.warnings)
    assert "batch: 16" in (host.folder / "work" / "run" / "args.yaml").read_text()


def test_the_data_files_agree_with_ultralytics() -> None:
    script = Path(__file__).parents[2] / "scripts" / "generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
