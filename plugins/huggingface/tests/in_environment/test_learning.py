"""Real data is really learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.contract import Dataset
from eagleray.testing.host import RecordingHost

from conftest import PLAIN, RT_DETR, make_context, train  # isort: skip
from real import write_weights  # isort: skip


def test_scans_of_digits_are_told_apart(tmp_path: Path, scans: Dataset) -> None:
    host = RecordingHost(tmp_path / "host", save_every=99)
    small = {"depths": [2, 2], "hidden_sizes": [32, 64], "embedding_size": 16, "layer_type": "basic"}
    final = train(
        make_context(
            tmp_path,
            scans,
            host,
            model="microsoft/resnet-18",
            epochs=6,
            batch_size=32,
            learning_rate=3e-3,
            config={**PLAIN, "config_overrides": small, "image_size": 32, "lr_scheduler_type": "cosine"},
        )
    )
    print(f"scans: {final}")
    assert final["metrics/accuracy_top1"] > 0.95


def test_digits_are_found_where_they_lie(tmp_path: Path, pasted: Dataset) -> None:
    host = RecordingHost(tmp_path / "host", save_every=99)
    overrides = {key: value for key, value in RT_DETR.items() if key != "model"}
    overrides |= {"d_model": 64, "encoder_hidden_dim": 64, "decoder_in_channels": [64] * 3, "num_denoising": 20}
    overrides |= {"backbone_config": {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "embedding_size": 16}}
    overrides |= {"encoder_in_channels": [32, 48, 64], "freeze_backbone_batch_norms": False}
    final = train(
        make_context(
            tmp_path,
            pasted,
            host,
            model="PekingU/rtdetr_r18vd",
            epochs=12,
            batch_size=16,
            learning_rate=1e-3,
            config={
                **PLAIN,
                "config_overrides": overrides,
                "image_size": 64,
                "max_grad_norm": 0.1,
                "warmup_steps": 30,
                "lr_scheduler_type": "cosine",
            },
        )
    )
    print(f"boxes: {final}")
    assert final["metrics/mAP50-95"] > 0.3


def test_real_weights_learn_scans_that_random_ones_do_not(tmp_path: Path, real_data: Path, scans: Dataset) -> None:
    write_weights(real_data, tmp_path / "weights")
    accuracy = []
    for pretrained in (True, False):
        final = train(
            make_context(
                tmp_path / str(pretrained),
                scans,
                RecordingHost(tmp_path / f"host-{pretrained}", save_every=99),
                model=str(tmp_path / "weights"),
                pretrained=pretrained,
                epochs=1,
                batch_size=32,
                learning_rate=2e-3,
                config={**PLAIN, "workers": 2},
            )
        )
        accuracy.append(final["metrics/accuracy_top1"])
    print(f"real weights and random ones: {accuracy}")
    assert accuracy[0] > 0.9 and accuracy[0] > accuracy[1] + 0.1


@pytest.mark.parametrize("kind", ["segformer"])
def test_painted_classes_are_learnt(tmp_path: Path, kind: str) -> None:
    from conftest import SEGMENTATION, tiny_context, write_dataset

    dataset = write_dataset(tmp_path / "data", SEGMENTATION, images=64)
    host = RecordingHost(tmp_path / "host", save_every=99)
    final = train(tiny_context(tmp_path, kind, dataset, host, epochs=10, batch_size=8, learning_rate=3e-3))
    print(f"painting: {final}")
    assert final["metrics/mIoU"] > 0.6
