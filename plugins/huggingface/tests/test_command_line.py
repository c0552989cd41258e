"""Whole jobs by `eagleray train` on a local Ray, with real data, until it is learnt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eagleray.testing.environment import python_of, train
from eagleray_huggingface.framework import describe

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]
REAL = Path(__file__).parent / "in_environment" / "real.py"
PLAIN = {"augment": {"horizontal_flip": 0.0, "crop": 1.0}, "workers": 0, "lr_scheduler_type": "cosine"}
# An RT-DETR of 1.1 million parameters.
SMALL = {
    "d_model": 64,
    "encoder_hidden_dim": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_layers": 1,
    "num_queries": 16,
    "num_denoising": 20,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_in_channels": [64, 64, 64],
    "encoder_in_channels": [32, 48, 64],
    "anchor_image_size": None,
    "freeze_backbone_batch_norms": False,
    "backbone_config": {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "embedding_size": 16},
}


def test_real_weights_learn_to_read_real_scans(real_data: Path, tmp_path: Path) -> None:
    python = python_of(describe("0"))
    for what, by in (("scans", sys.executable), ("weights", python)):
        subprocess.run([by, str(REAL), what, str(real_data), str(tmp_path / what)], check=True)
    job = ["--model", str(tmp_path / "weights"), "--task", "image-classification", "--data", str(tmp_path / "scans")]
    job += ["--epochs", "3", "--batch-size", "32", "--learning-rate", "0.002"]
    final = train(describe("0"), tmp_path / "home", *job, config=PLAIN)["metrics"]
    print(f"scans: {final}")
    assert final["metrics/accuracy_top1"] > 0.95


def test_digits_are_found_where_they_lie(real_data: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(REAL), "pasted", str(real_data), str(tmp_path / "pasted")], check=True)
    job = ["--model", "PekingU/rtdetr_r18vd", "--no-pretrained", "--data", str(tmp_path / "pasted")]
    config = {**PLAIN, "config_overrides": SMALL, "image_size": 64, "max_grad_norm": 0.1, "warmup_steps": 30}
    job += ["--epochs", "12", "--batch-size", "16", "--learning-rate", "0.001"]
    final = train(describe("0"), tmp_path / "home", *job, config=config)["metrics"]
    print(f"boxes: {final}")
    assert final["metrics/mAP50-95"] > 0.3
