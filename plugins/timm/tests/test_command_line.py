"""A whole job by `eagleray train` on a local Ray, with real scans, until they are learnt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eagleray.settings import load_settings

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
EAGLERAY = str(Path(sys.executable).with_name("eagleray"))
SCANS = Path(__file__).parent / "in_environment" / "scans.py"
SETTINGS = (
    "in_chans=1",
    "img_size=32",
    "warmup_epochs=0",
    "hflip=0.0",
    "color_jitter=0.0",
    "scale=[0.7,1.0]",
    "crop_pct=1.0",
)


def test_a_small_model_learns_real_scans_of_digits(real_data: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCANS), str(real_data), str(tmp_path / "scans")], check=True)
    home = tmp_path / "home"
    home.mkdir()
    (home / "envs").symlink_to(load_settings().environments)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EAGLERAY_"))}
    command = [EAGLERAY, "train", "--framework", "timm", "--model", "test_resnet", "--no-pretrained", "--json"]
    command += ["--data", str(tmp_path / "scans"), "--epochs", "6", "--batch-size", "64", "--learning-rate", "0.003"]
    command += [part for setting in SETTINGS for part in ("--set", setting)]
    done = subprocess.run(
        command, env={**environ, "EAGLERAY_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record = json.loads((home / "storage" / "jobs" / "1.json").read_text())
    print(record["metrics"])
    assert record["status"] == "completed"
    assert record["metrics"]["metrics/accuracy_top1"] > 0.95
