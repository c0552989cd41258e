"""What a person is told at the end of a job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from eagleray.cli.train import show_summary
from eagleray.contract.errors import StorageError
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
