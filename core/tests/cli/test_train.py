"""What a person is told at the end of a job."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from eagleray.cli.app import main
from eagleray.cli.display import JsonDisplay
from eagleray.cli.train import show_summary
from eagleray.contract.errors import ConfigError, StorageError
from eagleray.jobs.phases import Phase
from eagleray.jobs.records import Artifacts, JobRecord


def record(phase: Phase, artifacts: Artifacts) -> JobRecord:
    return JobRecord(
        id=7,
        framework="echo",
        model_name="echo-linear",
        task_type="image-classification",
        dataset_path="/data",
        dataset_format="imagefolder",
        epochs=3,
        batch_size=4,
        phase=phase,
        epochs_done=3,
        artifacts=artifacts,
    )


def test_a_job_whose_checkpoints_never_reached_the_store_does_not_end_as_a_success() -> None:
    with pytest.raises(StorageError, match="no checkpoint of it is in the store"):
        show_summary(record(Phase.COMPLETED, Artifacts()), as_json=False)


def test_a_completed_job_names_its_files_and_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(record(Phase.COMPLETED, Artifacts(last="/store/last.pt")), as_json=False)
    shown = capsys.readouterr().out
    assert "/store/last.pt" in shown
    assert "eagleray train --resume 7 --epochs 6" in shown


@pytest.mark.parametrize(
    ("job", "setting"),
    [
        ("advanced_config:\n", "imgsz=64"),
        ("advanced_config: [1]\n", "advanced_config.imgsz=64"),
        ("scaling: 3\n", "scaling.num_workers=1"),
    ],
)
def test_a_setting_below_a_key_that_holds_no_keys_is_refused_with_its_value(
    job: str, setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(job)
    assert main(["run", str(tmp_path / "job.yaml"), "--set", setting]) == ConfigError.exit_code
    assert f"--set {setting} goes into {job.partition(':')[0]}, which is" in capsys.readouterr().err


def refuse(constant: str) -> None:
    raise ValueError(constant)


def test_figures_that_are_no_numbers_leave_lines_for_machines_valid_json(capfd: pytest.CaptureFixture[str]) -> None:
    bad = {"loss": math.nan, "gap": -math.inf}
    display = JsonDisplay()
    display({"event": "epoch", "metrics": bad, "best": {"value": math.inf}})
    display.close()
    job = record(Phase.COMPLETED, Artifacts(last="/store/last.pt")).model_copy(update={"metrics": bad})
    show_summary(job, as_json=True)
    epoch, summary = (json.loads(line, parse_constant=refuse) for line in capfd.readouterr().out.splitlines())
    assert epoch["metrics"] == summary["metrics"] == {"loss": "NaN", "gap": "-Infinity"}
    assert epoch["best"] == {"value": "Infinity"}


def test_a_stopped_job_ends_with_130() -> None:
    with pytest.raises(typer.Exit) as caught:
        show_summary(record(Phase.CANCELLED, Artifacts(last="/store/last.pt")), as_json=False)
    assert caught.value.exit_code == 130


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("eagleray train --framework ec", ["echo"]),
        ("eagleray train --framework echo --model echo-l", ["echo-linear"]),
        ("eagleray train --framework nothing --model echo-l", []),
        ("eagleray train --framework echo --task image-cl", ["image-classification"]),
    ],
)
def test_the_shell_completes_names_of_what_is_installed(line: str, offered: list[str], tmp_path: Path) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_EAGLERAY_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("eagleray"))],
        env={**os.environ, **words, "EAGLERAY_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == offered
