"""What a person is told at the end of a job."""

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
