"""A whole job by `eagleray train` on a local Ray, with real scans, until they are learnt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eagleray.testing.environment import train
from eagleray_timm.framework import describe

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
SCANS = Path(__file__).parent / "in_environment" / "scans.py"


def test_a_small_model_learns_real_scans_of_digits(real_data: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCANS), str(real_data), str(tmp_path / "scans")], check=True)
    job = ["--model", "test_resnet", "--no-pretrained", "--data", str(tmp_path / "scans"), "--epochs", "6"]
    job += ["--batch-size", "64", "--learning-rate", "0.003"]
    grey = {"in_chans": 1, "img_size": 32, "warmup_epochs": 0}
    config = {**grey, "hflip": 0.0, "color_jitter": 0.0, "scale": [0.7, 1.0], "crop_pct": 1.0}
    final = train(describe("0"), tmp_path / "home", *job, config=config)["metrics"]
    print(final)
    assert final["metrics/accuracy_top1"] > 0.95
