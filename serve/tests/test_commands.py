"""The commands against a server, as a person types them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagleray.cli.app import main
from eagleray.control.commands import SYSTEM
from eagleray.jobs.phases import Phase

from .conftest import SPEC, Serve
from .fake import FakePlane

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    serve: Serve,
    keys: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Run:
    """A command line; its exit code, and what it said on both channels."""
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("EAGLERAY_SERVER", f"http://{serve()}")
    monkeypatch.setenv("EAGLERAY_API_KEY", keys["admin"])
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)

    def command(*arguments: str) -> tuple[int, str]:
        code = main(list(arguments))
        return code, "".join(capfd.readouterr())

    return command


def said(answer: tuple[int, str]) -> Any:
    code, text = answer
    assert code == 0, text
    return json.loads(text)


@pytest.fixture
def job(plane: FakePlane) -> int:
    return int(plane.create_job(SYSTEM, SPEC, start=True)["id"])


def test_jobs_are_listed_and_shown(run: Run, plane: FakePlane, job: int) -> None:
    plane.fill(job)
    code, text = run("jobs", "list")
    assert (code, "queued" in text, "1. in the queue" in text) == (0, True, True)
    assert [each["id"] for each in said(run("jobs", "list", "--status", "pending", "--json"))] == [job]
    code, text = run("jobs", "show", str(job))
    assert (code, "echo-linear" in text, "1-1" in text or "running" in text) == (0, True, True)
    assert said(run("jobs", "show", str(job), "--json"))["attempts"][0]["number"] == 1


def test_a_job_is_told_what_to_do(run: Run, plane: FakePlane, job: int) -> None:
    assert said(run("jobs", "priority", str(job), "7", "--json"))["priority"] == 7
    assert run("jobs", "cancel", str(job))[0] == 0
    assert said(run("jobs", "resume", str(job), "--json"))["phase"] == "queued"
    assert said(run("jobs", "clone", str(job), "--set", "epochs=9", "--json"))["epochs"] == 9
    run("jobs", "cancel", str(job))
    assert said(run("jobs", "delete", str(job), "--json"))["deleted"]
    code, text = run("jobs", "show", str(job))
    assert (code, "Unknown job '1'" in text) == (2, True)


def test_figures_and_lines(run: Run, plane: FakePlane, job: int) -> None:
    plane.fill(job, epochs=2)
    code, text = run("jobs", "metrics", str(job), "--key", "loss")
    assert (code, text.split()) == (0, ["EPOCH", "loss", "1", "0.1", "2", "0.2"])
    assert run("jobs", "logs", str(job), "--tail", "1") == (0, "[1.0] line 4\n")


def test_following_ends_with_the_job_and_its_exit_code(run: Run, plane: FakePlane, job: int) -> None:
    best = {"epoch": 1, "value": 0.5, "metric": "loss"}
    plane.happen(job, "epoch", {"epoch": 1, "epochs": 3, "seconds": 2.0, "metrics": {"loss": 0.5}, "best": best})
    plane.happen(job, "phase", {"phase": "completed", "message": ""}, phase=Phase.COMPLETED)
    code, text = run("jobs", "follow", str(job))
    assert (code, "epoch 1/3  2s  loss 0.5 *best" in text, "job 1 completed" in text) == (0, True, True)
    plane.happen(job, "phase", {"phase": "failed", "message": ""}, phase=Phase.FAILED)
    assert run("jobs", "follow", str(job))[0] == 9
    plane.happen(job, "phase", {"phase": "cancelled", "message": ""}, phase=Phase.CANCELLED)
    code, text = run("jobs", "follow", str(job), "--json")
    assert code == 130
    assert json.loads(text.splitlines()[-1])["event"] == "summary"


def test_training_on_a_server(run: Run, plane: FakePlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    train = ("train", "-f", "echo", "-m", "echo-linear", "-d", "pictures", "--epochs", "2", "--set", "delay_s=0.5")
    made = said(run(*train, "--detach", "--json"))
    assert (made["phase"], made["epochs"], made["dataset_path"]) == ("queued", 2, str(tmp_path / "pictures"))
    assert made["advanced_config"] == {"delay_s": 0.5}
    plane.happen(made["id"], "phase", phase=Phase.FAILED)
    assert said(run("train", "--resume", str(made["id"]), "--detach", "--json"))["phase"] == "queued"
    code, text = run("train", "-f", "ekko", "-m", "echo-linear", "-d", "pictures", "--detach")
    assert (code, "Did you mean 'echo'?" in text) == (2, True)
    (tmp_path / "job.yaml").write_text(json.dumps(SPEC))
    assert said(run("run", "job.yaml", "--detach", "--json"))["project_id"] == "orchard"


def test_what_can_be_trained_is_what_the_server_has(run: Run) -> None:
    assert "echo" in {each["name"] for each in said(run("plugins", "list", "--json"))["frameworks"]}
    assert "echo-linear" in run("plugins", "show", "echo")[1]
    assert said(run("models", "list", "--name", "yolo11n", "--json"))[0]["name"] == "yolo11n"
    assert "properties" in said(run("models", "show", "echo-linear", "--schema"))
    code, text = run("models", "show", "echo-lineal")
    assert (code, "echo-linear" in text) == (2, True)


def test_keys_and_projects(run: Run) -> None:
    assert run("projects", "create", "wheat", "--jobs", "3")[0] == 0
    assert run("projects", "list")[1].splitlines()[-1].split() == ["wheat", "3", "any"]
    key = said(run("keys", "create", "anna", "--scope", "read", "--project", "wheat", "--json"))
    assert key["key"] not in run("keys", "list")[1]
    assert run("keys", "revoke", str(key["id"]))[0] == 0
    assert "revoked" in run("keys", "list")[1]


def test_users_and_their_keys(run: Run) -> None:
    anna = said(run("users", "create", "anna", "--project", "orchard", "--json"))
    assert run("users", "list")[1].splitlines()[-1].split() == [str(anna["id"]), "anna", "orchard"]
    key = said(run("keys", "create", "laptop", "--user", str(anna["id"]), "--json"))
    assert key["user_id"] == anna["id"]
    assert run("users", "create", "anna")[0] == 11, "a name is taken once"
    assert run("users", "delete", str(anna["id"]))[0] == 0
    assert said(run("users", "list", "--json")) == []


def test_a_login_is_kept_and_checked(
    run: Run, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    server = os.environ.pop("EAGLERAY_SERVER")
    monkeypatch.delenv("EAGLERAY_API_KEY")
    assert run("jobs", "list", "--server", server)[0] == 11
    monkeypatch.setattr("sys.stdin", io.StringIO("nonsense\n"))
    assert run("login", server, "--key-stdin")[0] == 11
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{keys['reader']}\n"))
    code, text = run("login", server, "--key-stdin")
    assert (code, "robin" in text, keys["reader"] in text) == (0, True, False)
    assert run("jobs", "list")[0] == 0, "the server last logged in to is the one that is meant"
    assert run("logout", server)[0] == 0
    assert run("jobs", "list", "--server", server)[0] == 11
    os.environ["EAGLERAY_SERVER"] = server


def test_status_tells_each_part_and_ends_with_it(run: Run, plane: FakePlane) -> None:
    code, text = run("status")
    assert (code, "control.queue" in text) == (0, True)
    plane.healthy = False
    code, text = run("status")
    assert (code, "NOT OK" in text, "database" in text) == (8, True, True)


def test_a_server_that_is_away_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eagleray.client.transport.time.sleep", lambda _: None)
    code, text = run("jobs", "list", "--server", "http://127.0.0.1:32999")
    assert (code, "http://127.0.0.1:32999" in text, "eagleray up" in text) == (10, True, True)
