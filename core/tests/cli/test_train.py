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
from eagleray.contract.errors import ConfigError, StorageError, TrainingError
from eagleray.jobs.phases import Phase
from eagleray.jobs.records import Artifacts, JobRecord
from eagleray.testing.data import write_classification_dataset


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


def test_a_cancelled_job_without_a_checkpoint_is_not_told_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    cancelled = record(Phase.CANCELLED, Artifacts()).model_copy(update={"epochs_done": 0})
    with pytest.raises(typer.Exit):
        show_summary(cancelled, as_json=False)
    assert "--resume" not in capsys.readouterr().out


SHOWING = """
import sys
from eagleray.cli.display import make_display
from eagleray.cli.edge import run_command
from eagleray.cli.train import _shown, show_summary
from eagleray.contract.errors import TrainingError
from eagleray.jobs.records import JobRecord

record, as_json, fails = JobRecord.model_validate_json(sys.argv[1]), sys.argv[2] == "json", sys.argv[3] == "fails"
sys.stdin.read()

def train(display):
    for _ in range(2000):
        try:
            display({"event": "warning", "message": "shown"})
        except Exception:
            pass  # as a driver does
    if fails:
        raise TrainingError("It failed.", "Try again.")
    return record

sys.exit(run_command(lambda: show_summary(_shown(train, as_json, False), as_json=as_json), as_json=as_json))
"""


@pytest.mark.parametrize("form", ["json", "lines"])
@pytest.mark.parametrize(("end", "code"), [("completes", 0), ("fails", TrainingError.exit_code)])
def test_a_reader_that_goes_changes_nothing_about_a_jobs_end(form: str, end: str, code: int) -> None:
    job = record(Phase.COMPLETED, Artifacts(last="/store/last.pt")).model_dump_json()
    command = [sys.executable, "-c", SHOWING, job, form, end]
    # What is buffered would be written when the interpreter ends.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=buffered) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.close()
        said = process.stderr.read().decode()
    assert process.returncode == code, said
    assert said == ("error: It failed.\n  Try again.\n" if (form, end) == ("lines", "fails") else "")


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


@pytest.fixture
def dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`eagleray train --dry-run` of echo on this machine; the data's place comes last."""
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    for name in ("EAGLERAY_STORAGE", "EAGLERAY_SERVER", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    command = ["train", "--framework", "echo", "--model", "echo-linear", "--epochs", "1", "--batch-size", "4"]
    return [*command, "--no-pretrained", "--dry-run", "--json", "--data"]


def test_a_dry_run_refuses_workers_that_this_machine_can_never_hold(
    dry_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    command = [*dry_run, str(write_classification_dataset(tmp_path / "pictures")), "--workers"]
    assert main([*command, "4"]) != 0
    said = json.loads(capsys.readouterr().out)["error"]["message"]
    assert said == "4 worker(s) with 1 CPU each are more than this cluster can ever have: 3 would fit."
    assert main([*command, "2-4"]) == 0
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    assert main([*command, "4"]) == 0, "what another cluster has is not known before it is asked"


def test_a_dry_run_imports_nothing(dry_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*dry_run, "https://192.0.2.1/pictures.zip"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["dataset"]["source"] == "https://192.0.2.1/pictures.zip"
    assert not (tmp_path / "home" / "storage").exists()
