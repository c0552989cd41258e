"""Where a run starts from: weights, checkpoints, frozen parts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from eagleray.contract import CheckpointError, ConfigError, Dataset, Resume, WeightsError
from eagleray.testing.host import RecordingHost
from eagleray_timm.adapter import TimmAdapter

from conftest import (  # isort: skip
    CLASSES,
    assert_same,
    describe_folder,
    make_context,
    state_of,
    train,
    weights_in,
    write_dataset,
)

STEADY = {"opt": "sgd", "lr_base": 1e-12, "weight_decay": 0.0}


def weights_of(model: str, file: Path, **options: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state: dict[str, torch.Tensor] = timm.create_model(model, **options).state_dict()
    torch.save(state, file)
    return state


def start(tmp_path: Path, weights: Path, **changes: object) -> dict[str, torch.Tensor]:
    """The weights after an epoch in which nothing is learnt."""
    config = STEADY | changes.pop("config", {})  # type: ignore[operator]
    dataset = write_dataset(tmp_path / "data")
    return state_of(train(tmp_path, dataset, epochs=1, pretrained=True, weights=weights, config=config, **changes))


def test_a_head_for_other_classes_is_replaced_and_the_rest_is_kept(tmp_path: Path) -> None:
    given = weights_of("test_resnet", tmp_path / "w.pt")
    found = start(tmp_path, tmp_path / "w.pt")
    assert given["fc.weight"].shape[0] == 1000 and found["fc.weight"].shape[0] == 3
    assert torch.allclose(given["conv1.0.weight"], found["conv1.0.weight"], atol=1e-6)


def test_safetensors_under_the_stores_name_are_read(tmp_path: Path) -> None:
    given = weights_of("test_resnet", tmp_path / "unused.pt")
    save_file({name: value.contiguous() for name, value in given.items()}, tmp_path / "w.pt")
    found = start(tmp_path, tmp_path / "w.pt")
    assert torch.allclose(given["conv1.0.weight"], found["conv1.0.weight"], atol=1e-6)


def test_grey_pictures_take_the_mean_of_the_colours_weights(tmp_path: Path) -> None:
    given = weights_of("test_resnet", tmp_path / "w.pt")
    found = start(tmp_path, tmp_path / "w.pt", config={"in_chans": 1})
    assert torch.allclose(given["conv1.0.weight"].sum(1, keepdim=True), found["conv1.0.weight"], atol=1e-5)


def test_a_models_best_is_a_start_with_its_head(tmp_path: Path) -> None:
    host = train(tmp_path / "first", write_dataset(tmp_path / "one"), epochs=1)
    file = host.resume().path / "model.pt"
    found = start(tmp_path, file)
    assert torch.allclose(state_of(host)["fc.weight"], found["fc.weight"], atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x02c__builtin__\neval\n"])
def test_unreadable_weights_are_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pt cannot be read"):
        start(tmp_path, file)


def test_weights_of_another_model_are_refused_with_what_differs(tmp_path: Path) -> None:
    weights_of("test_vit", tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"do not fit test_resnet.*Missing key"):
        start(tmp_path, tmp_path / "w.pt")


def test_without_weights_and_network_a_sentence_says_where_to_put_them(tmp_path: Path) -> None:
    dataset, location = write_dataset(tmp_path / "data"), "/store/pretrained_weights/timm/test_resnet.r160_in1k.pt"
    begun = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        train(tmp_path, dataset, pretrained=True, weights_location=location)
    assert time.monotonic() - begun < 10
    assert location in str(caught.value) and "--no-pretrained" in str(caught.value)


def test_a_model_without_pretrained_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no pretrained weights for ecaresnext26t_32x4d"):
        train(tmp_path, write_dataset(tmp_path / "data"), model="ecaresnext26t_32x4d", pretrained=True)


def test_real_weights_learn_scans_that_random_ones_do_not(tmp_path: Path, real_data: Path, scans: Dataset) -> None:
    original = next(real_data.glob("**/efficientnet-lite0-57934424.pth"))
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    theirs = torch.load(original, weights_only=True)
    assert len(state) == len(theirs)
    renamed = dict(zip(state, theirs.values(), strict=True))
    torch.save(renamed, tmp_path / "w.pt")
    options = {
        "model": "tf_efficientnet_lite0",
        "epochs": 1,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "config": {"img_size": 64, "hflip": 0.0, "color_jitter": 0.0, "scale": [0.8, 1.0], "crop_pct": 1.0},
    }
    tuned = train(tmp_path / "tuned", scans, pretrained=True, weights=tmp_path / "w.pt", **options)
    random = train(tmp_path / "random", scans, **options)
    accuracy = [host.reports[0].metrics["metrics/accuracy_top1"] for host in (tuned, random)]
    assert accuracy[0] > 0.9 > accuracy[1] + 0.1


def test_a_frozen_backbone_keeps_its_weights_and_statistics(tmp_path: Path) -> None:
    given = weights_of("test_resnet", tmp_path / "w.pt")
    dataset = write_dataset(tmp_path / "data")
    options = {"pretrained": True, "weights": tmp_path / "w.pt", "learning_rate": 0.1}
    found = state_of(train(tmp_path, dataset, epochs=1, config={"freeze": "backbone"}, **options))
    assert [name for name in found if not name.startswith("fc.") and not torch.equal(found[name], given[name])] == []


@pytest.mark.parametrize(("freeze", "kept"), [(1, "conv1.0.weight"), (["layer1", "layer2"], "layer1.0.conv1.weight")])
def test_layer_groups_and_named_parts_can_be_frozen(tmp_path: Path, freeze: object, kept: str) -> None:
    given = weights_of("test_resnet", tmp_path / "w.pt")
    dataset = write_dataset(tmp_path / "data")
    options = {"pretrained": True, "weights": tmp_path / "w.pt", "learning_rate": 0.1}
    found = state_of(train(tmp_path, dataset, epochs=1, config={"freeze": freeze}, **options))
    assert torch.equal(found[kept], given[kept])
    assert not torch.equal(found["layer4.0.conv1.weight"], given["layer4.0.conv1.weight"])


def test_a_part_that_the_model_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'stem'.*layer1"):
        train(tmp_path, write_dataset(tmp_path / "data"), config={"freeze": ["stem"]})


def test_an_option_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not know drop_block_rate"):
        train(tmp_path, write_dataset(tmp_path / "data"), model="test_vit", config={"drop_block": 0.1})


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
@pytest.mark.parametrize("name", ["state.pt", "model.pt"])
def test_an_unreadable_checkpoint_is_named(tmp_path: Path, name: str, damage: bytes | None) -> None:
    dataset = write_dataset(tmp_path / "data")
    folder = train(tmp_path / "first", dataset, epochs=1).resume().path
    (folder / name).unlink()
    if damage is not None:
        (folder / name).write_bytes(damage)
    with pytest.raises(CheckpointError, match=name) as caught:
        train(tmp_path / "second", dataset, resume=Resume(folder, 1, {}))
    assert "Resume from an earlier checkpoint" in caught.value.hint


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("averages", [False, True])
def test_a_resumed_job_may_begin_or_cease_to_average(tmp_path: Path, averaged: bool, averages: bool) -> None:
    dataset = write_dataset(tmp_path / "data")
    first = train(tmp_path / "first", dataset, epochs=1, config={"model_ema": averaged, "model_ema_decay": 0.5})
    resume = first.resume()
    trained, portable = weights_in(resume.path), torch.load(resume.path / "model.pt", weights_only=True)["state_dict"]
    assert averaged is any(not torch.equal(trained[name], portable[name]) for name in trained)
    host = RecordingHost(tmp_path / "second")
    adapter = TimmAdapter(
        make_context(host.folder, dataset, host, resume=resume, config={"model_ema": averages, "model_ema_decay": 0.5})
    )
    adapter.load_data()
    adapter.load_model()
    assert_same(trained, adapter.learner.model.state_dict())
    if averages:
        assert_same(portable, adapter.learner.ema.module.state_dict())


def test_the_best_model_is_kept_also_where_no_checkpoint_was_due(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    hosts = [RecordingHost(tmp_path / f"every-{every}", save_every=every) for every in (1, 2)]
    for host in hosts:
        train(host.folder, dataset, host, epochs=3, config={"eval_metric": "loss"})
    best = max(hosts[1].reports, key=lambda report: report.metrics["fitness"])
    assert best.checkpoint is None
    kept, alike = (torch.load(host.best or "", weights_only=True)["state_dict"] for host in hosts)
    assert_same(kept, alike)


def test_a_checkpoint_of_another_model_epoch_or_dataset_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    first = train(tmp_path / "first", dataset, epochs=1)
    folder = first.resume().path
    with pytest.raises(CheckpointError, match="of test_resnet, not test_vit"):
        train(tmp_path / "a", dataset, model="test_vit", resume=Resume(folder, 1, {}))
    with pytest.raises(CheckpointError, match="epoch 1, not 2"):
        train(tmp_path / "b", dataset, resume=Resume(folder, 2, {}))
    (dataset.path / "train" / "d").mkdir()
    more = describe_folder(dataset.path, (*CLASSES, "d"))
    with pytest.raises(CheckpointError, match="3 classes"):
        train(tmp_path / "c", more, resume=Resume(folder, 1, {}))


def test_a_run_that_only_lacked_its_end_is_evaluated_and_published(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    first = train(tmp_path / "first", dataset)
    host = RecordingHost(tmp_path / "second")
    adapter = TimmAdapter(make_context(host.folder, dataset, host, resume=first.resume()))
    adapter.load_data()
    adapter.load_model()
    adapter.train()
    final = adapter.validate()
    assert host.reports == [] and host.best is not None
    assert final["fitness"] == max(report.metrics["fitness"] for report in first.reports)
