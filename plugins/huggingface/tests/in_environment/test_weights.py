"""Where weights come from, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from eagleray.contract import CheckpointError, ConfigError, Resume, TrainingContext, WeightsError
from eagleray.testing.host import RecordingHost
from eagleray_huggingface.models import build
from eagleray_huggingface.source import find_source

from conftest import (  # isort: skip
    CLASSIFICATION,
    DETECTION,
    PLAIN,
    SEGMENTATION,
    VIT,
    again,
    make_context,
    state_of,
    tiny_context,
    train,
    write_dataset,
    write_json,
)

SMALL = {key: value for key, value in VIT.items() if key != "model"}


def write_vit(folder: Path, *, safe: bool = True, **changes: Any) -> Path:
    """A folder as `save_pretrained` writes it."""
    torch.manual_seed(5)
    model = ViTForImageClassification(ViTConfig(**{**SMALL, "image_size": 32, "num_labels": 7, **changes}))
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    if not safe:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


def context_of(tmp_path: Path, **changes: Any) -> TrainingContext:
    host = changes.pop("host", None) or RecordingHost(tmp_path / "host")
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    values = {"model": "org/vit", "pretrained": True, "config": PLAIN, "epochs": 1, **changes}
    return make_context(tmp_path / "run", dataset, host, **values)


def first_matrix(model: Any) -> torch.Tensor:
    return next(tensor for name, tensor in model.state_dict().items() if ".layer" in name and tensor.dim() == 2)


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_from_the_store_gives_its_weights_and_gets_a_new_head(tmp_path: Path, safe: bool) -> None:
    folder = write_vit(tmp_path / "weights", safe=safe)
    context = context_of(tmp_path, weights=folder)
    model = build(context, find_source(context)).model
    theirs = ViTForImageClassification.from_pretrained(folder)
    assert torch.equal(first_matrix(model), first_matrix(theirs))
    assert model.config.num_labels == 2 and model.config.id2label == {0: "a", 1: "b"}
    assert model.classifier.weight.shape[0] == 2


def test_a_folder_may_be_the_model(tmp_path: Path) -> None:
    folder = write_vit(tmp_path / "weights")
    host = RecordingHost(tmp_path / "host")
    final = train(context_of(tmp_path, model=str(folder), host=host))
    assert "metrics/accuracy_top1" in final and state_of(host)["task"] == CLASSIFICATION


def test_a_model_of_the_hub_is_asked_for_once_and_a_sentence_says_what_to_do(
    tmp_path: Path, network: list[object]
) -> None:
    context = context_of(tmp_path, weights_location="/store/pretrained_weights/huggingface/org%2Fvit.pt")
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        train(context)
    assert time.monotonic() - start < 60
    assert "org/vit" in str(caught.value) and "--model" in str(caught.value) and network


def test_what_the_hub_gives_is_kept_for_later_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eagleray_huggingface import hub

    def give(name: str, *, local_dir: Path, **options: Any) -> None:
        assert name == "org/vit" and "*.safetensors" in options["allow_patterns"]
        write_vit(Path(local_dir))
        (Path(local_dir) / ".cache" / "huggingface").mkdir(parents=True)

    monkeypatch.setattr(hub, "snapshot_download", give)
    monkeypatch.setattr(hub, "_weights_pattern", lambda name: hub.SAFE)
    kept: list[Path] = []
    host = RecordingHost(tmp_path / "host")
    monkeypatch.setattr(host, "keep_weights", kept.append)
    train(context_of(tmp_path, host=host))
    assert [path.name for path in kept] == ["download"] and not (kept[0] / ".cache").exists()


def test_a_model_that_brings_code_is_refused_before_anything_of_it_is_read(tmp_path: Path) -> None:
    folder = write_vit(tmp_path / "weights")
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')")
    config = {"model_type": "evil", "text_config": {"auto_map": {"AutoConfig": "modeling.Config"}}}
    write_json(folder / "config.json", config)
    with pytest.raises(WeightsError, match="code of its own"):
        train(context_of(tmp_path, weights=folder))
    assert not (tmp_path / "pwned").exists()


def test_weights_that_are_a_pickled_program_are_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "pwned"), "w")

    folder = write_vit(tmp_path / "weights", safe=False)
    torch.save({"vit.embeddings.cls_token": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        train(context_of(tmp_path, weights=folder))
    torch.save({"format": "eagleray-huggingface/1", "state_dict": Evil()}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="cannot be read"):
        train(again(context_of(tmp_path / "b"), tmp_path / "c", RecordingHost(tmp_path), weights=tmp_path / "model.pt"))
    assert not (tmp_path / "pwned").exists()


def test_the_portable_file_of_a_job_starts_another_with_other_classes(tmp_path: Path) -> None:
    first = RecordingHost(tmp_path / "first")
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION, size=32)
    context = tiny_context(tmp_path / "a", "vit", dataset, first, epochs=1)
    train(context)
    checkpoint = first.reports[-1].checkpoint
    assert checkpoint is not None
    changed = make_context(
        tmp_path / "b",
        dataset,
        RecordingHost(tmp_path / "second"),
        model=context.model.name,
        weights=checkpoint / "model.pt",
        pretrained=True,
        config=PLAIN,
    )
    object.__setattr__(changed.dataset, "classes", ("a", "b", "c"))
    model = build(changed, find_source(changed)).model
    kept = state_of(first)["state_dict"]
    name = next(name for name in kept if ".layer" in name and kept[name].dim() == 2)
    assert torch.equal(model.state_dict()[name], kept[name]) and model.config.num_labels == 3


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = write_vit(tmp_path / "weights")
    save_file({"encoder.weight": torch.zeros(2, 2)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="another model's"):
        train(context_of(tmp_path, weights=folder))


@pytest.mark.parametrize("content", [b"", b"not tensors"])
def test_unreadable_weights_are_named(tmp_path: Path, content: bytes) -> None:
    folder = write_vit(tmp_path / "weights")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="org/vit"):
        train(context_of(tmp_path, weights=folder))


def test_a_model_for_another_task_is_refused(tmp_path: Path) -> None:
    folder = write_vit(tmp_path / "weights")
    dataset = write_dataset(tmp_path / "boxes", DETECTION)
    context = make_context(
        tmp_path / "run", dataset, RecordingHost(tmp_path), model=str(folder), pretrained=True, config=PLAIN
    )
    with pytest.raises(ConfigError, match=r"vit.* is not made for object-detection"):
        train(context)


def test_a_painter_cannot_tell_objects_apart(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", SEGMENTATION)
    config = {"kind": "instance"}
    with pytest.raises(ConfigError, match="kind=instance"):
        train(tiny_context(tmp_path, "segformer", dataset, RecordingHost(tmp_path / "host"), config=config))


SAVED = ["model.pt", "trainer_state.json", "optimizer.pt", "scheduler.pt", "progress.json", "rng_state.pth"]


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name in SAVED for content in (b"garbage", None)] + [("scaler.pt", b"PK")]
)
def test_an_unreadable_checkpoint_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    host = RecordingHost(tmp_path / "host")
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    context = tiny_context(tmp_path / "a", "vit", dataset, host, epochs=1)
    train(context)
    resume = host.resume()
    (resume.path / name).unlink(missing_ok=True)
    if content is not None:
        (resume.path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        train(again(context, tmp_path / "b", RecordingHost(tmp_path / "other"), resume=resume, epochs=2))


def test_an_old_checkpoint_in_the_runs_folder_is_never_taken_for_this_runs(tmp_path: Path) -> None:
    # Ray's callback takes the newest `checkpoint-N` of the output folder, whoever wrote it.
    host = RecordingHost(tmp_path / "host")
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    context = tiny_context(tmp_path, "vit", dataset, host, epochs=1)
    stale = context.work_dir / "run" / "checkpoint-999"
    stale.mkdir(parents=True)
    (stale / "model.pt").write_bytes(b"stale")
    train(context)
    checkpoint = host.reports[-1].checkpoint
    assert checkpoint is not None and (checkpoint / "model.pt").stat().st_size > 5
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == 3
    assert not [path for path in (context.work_dir / "run").iterdir() if path.name != "checkpoint-999"]


def test_a_resumed_run_may_be_longer_and_a_finished_one_has_nothing_to_do(tmp_path: Path) -> None:
    first, second, third = (RecordingHost(tmp_path / name) for name in ("first", "second", "third"))
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    context = tiny_context(tmp_path / "a", "vit", dataset, first, epochs=2)
    final = train(context)
    resume = first.resume()
    assert train(again(context, tmp_path / "b", second, resume=resume)) == final and second.reports == []
    train(again(context, tmp_path / "c", third, resume=first.resume(), epochs=3))
    assert [report.epoch for report in third.reports] == [3]


def test_patience_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    host = RecordingHost(tmp_path / "host")
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    train(
        tiny_context(
            tmp_path, "vit", dataset, host, epochs=9, learning_rate=1e-12, config={"patience": 2, "optim": "sgd"}
        )
    )
    assert [report.epoch for report in host.reports] == [1, 2, 3]


def test_a_stop_is_obeyed_within_one_batch_and_half_an_epoch_leaves_nothing(tmp_path: Path) -> None:
    host = RecordingHost(tmp_path / "host", stop_after_steps=4)
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    train(tiny_context(tmp_path, "vit", dataset, host, epochs=5))
    assert host.steps[-1] == (2, 1, 3) and [report.epoch for report in host.reports] == [1]


def test_a_frozen_backbone_keeps_its_weights(tmp_path: Path) -> None:
    folder = write_vit(tmp_path / "weights")
    host = RecordingHost(tmp_path / "host")
    train(context_of(tmp_path, weights=folder, host=host, learning_rate=0.1, config={**PLAIN, "freeze_backbone": True}))
    theirs = ViTForImageClassification.from_pretrained(folder).state_dict()
    changed = {
        name
        for name, tensor in state_of(host)["state_dict"].items()
        if tensor.shape != theirs[name].shape or not torch.equal(tensor, theirs[name])
    }
    assert changed == {"classifier.weight", "classifier.bias"}


def test_a_resume_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    resume = Resume(tmp_path / "empty", 1, {})
    with pytest.raises(CheckpointError):
        train(tiny_context(tmp_path, "vit", dataset, RecordingHost(tmp_path / "host"), resume=resume))


def test_the_data_file_agrees_with_transformers() -> None:
    script = Path(__file__).parents[2] / "scripts" / "generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
