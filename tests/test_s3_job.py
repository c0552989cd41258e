"""Whole jobs whose store is a bucket: the real server, behind a proxy that holds R2's rules."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eagleray.storage.checkpoints import Checkpoints, Manifest
from eagleray.storage.s3.store import S3Store
from eagleray.testing.s3_proxy import Request, StrictProxy, strict_proxy
from eagleray.testing.s3_server import SECRET_KEY, SeaweedServer, seaweed

from .conftest import Home

pytestmark = pytest.mark.cluster
ECHO = ("train", "--framework", "echo", "--model", "echo-linear", "--batch-size", "4", "--no-pretrained")
LOCATION = "s3://jobs/team"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SeaweedServer]:
    folder = tmp_path / "s3"
    folder.mkdir()
    with seaweed(folder) as running:
        running.make_bucket("jobs")
        yield running


@pytest.fixture
def proxy(server: SeaweedServer) -> Iterator[StrictProxy]:
    with strict_proxy(server) as running:
        yield running


@pytest.fixture
def store(server: SeaweedServer) -> Iterator[S3Store]:
    opened = S3Store.open(LOCATION, server.access)
    yield opened
    opened.close()


@pytest.fixture
def s3_home(home: Home, proxy: StrictProxy) -> Home:
    home.environ.update(proxy.environ, EAGLERAY_STORAGE=LOCATION)
    return home


def keys(store: S3Store, prefix: str) -> set[str]:
    return {info.key.removeprefix(f"{prefix}/") for info in store.list(prefix)}


@pytest.mark.parametrize(
    ("arguments", "prefix"),
    [((), "checkpoints/test-jobs/job_1"), (("--project", "birds"), "checkpoints/projects/birds/jobs/1")],
    ids=["test-job", "project"],
)
def test_a_job_keeps_everything_in_the_bucket_within_r2s_rules(
    s3_home: Home, store: S3Store, proxy: StrictProxy, pictures: Path, arguments: tuple[str, ...], prefix: str
) -> None:
    code, training = s3_home.run(*ECHO, *arguments, "--data", str(pictures), "--epochs", "3", "--set", "delay_s=0.1")
    assert code == 0, training.errors
    record = json.loads(store.get_bytes("jobs/1.json"))
    assert (record["status"], record["epochs_done"], record["warnings"]) == ("completed", 3, [])
    assert record["artifacts"] == {name: f"{LOCATION}/{prefix}/{name}.pt" for name in ("best", "last")}
    found = keys(store, prefix)
    assert {"best.pt", "last.pt", "metrics.jsonl", "logs/attempt-1-worker-0.log"} <= found
    rows = store.get_bytes(f"{prefix}/metrics.jsonl").splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2, 3]
    checkpoints = Checkpoints(store, prefix)
    newest = checkpoints.newest_valid(pytest.fail)
    assert newest is not None
    assert newest.epoch == 3
    assert store.digest(f"{prefix}/last.pt") == newest.files["model.npz"], "a copy made by the server"
    assert refused(proxy) == [], "no request broke R2's rules"
    assert not (s3_home.path / "storage").exists()
    assert not list((s3_home.path / "pending").iterdir())


def refused(proxy: StrictProxy) -> list[Request]:
    return [request for request in proxy.requests if request.status in (400, 403, 429, 501)]


def test_no_secret_is_written_anywhere(s3_home: Home, store: S3Store, pictures: Path) -> None:
    training = s3_home.start(*ECHO, "--data", str(pictures), "--epochs", "2", "--set", "delay_s=0.1", "--verbose")
    worker = training.until(lambda event: event.get("event") == "worker")
    command = Path(f"/proc/{worker['pid']}/cmdline").read_bytes()
    assert training.wait() == 0, training.errors
    assert SECRET_KEY.encode() not in command
    assert SECRET_KEY not in json.dumps(training.events) + training.errors
    for path in s3_home.path.rglob("*"):
        if path.is_file() and "envs" not in path.parts:
            assert SECRET_KEY.encode() not in path.read_bytes(), path
    for info in store.list(""):
        assert SECRET_KEY.encode() not in store.get_bytes(info.key), info.key


def test_an_outage_delays_uploads_and_fails_nothing(
    s3_home: Home, server: SeaweedServer, store: S3Store, pictures: Path
) -> None:
    training = s3_home.start(*ECHO, "--data", str(pictures), "--epochs", "60", "--set", "delay_s=0.2")
    training.until(lambda event: event.get("event") == "checkpoint" and event["epoch"] >= 2)
    server.kill()
    training.until(lambda event: event.get("event") == "warning" and "cannot be stored yet" in event["message"])
    reached = training.until(lambda event: event.get("event") == "epoch")["epoch"]
    fallen = time.monotonic()
    training.until(lambda event: event.get("event") == "epoch" and event["epoch"] >= reached + 5)
    assert time.monotonic() - fallen < 30, "training waits for nobody"
    waiting = {path.name for path in (s3_home.path / "pending").rglob("worker-*-checkpoint")}
    assert len(waiting) <= 4, "the disk stays bounded"
    server.start()
    assert training.wait() == 0, training.errors
    record = json.loads(store.get_bytes("jobs/1.json"))
    assert (record["status"], record["epochs_done"], len(record["attempts"])) == ("completed", 60, 1)
    assert any("cannot be stored yet" in warning for warning in record["warnings"])
    assert any("takes uploads again" in warning for warning in record["warnings"])
    assert newest(store).epoch == 60
    assert not list((s3_home.path / "pending").iterdir())


def newest(store: S3Store) -> Manifest:
    found = Checkpoints(store, "checkpoints/test-jobs/job_1").newest_valid(pytest.fail)
    assert found is not None
    return found


def test_a_job_that_ends_in_an_outage_says_so_and_a_retry_finishes_it(
    s3_home: Home, server: SeaweedServer, store: S3Store, pictures: Path
) -> None:
    s3_home.environ["EAGLERAY_UPLOAD_GRACE_S"] = "2"
    training = s3_home.start(*ECHO, "--data", str(pictures), "--epochs", "6", "--set", "delay_s=0.2")
    training.until(lambda event: event.get("event") == "checkpoint" and event["epoch"] >= 2)
    server.kill()
    code = training.wait()
    warnings = [event["message"] for event in training.of("warning")]
    assert any("eagleray storage retry" in warning for warning in warnings), warnings
    assert training.of("phase")[-1]["phase"] == "completed", (code, training.errors)
    server.start()
    code, retried = s3_home.run("storage", "retry")
    assert code == 0, retried.errors
    record = json.loads(store.get_bytes("jobs/1.json"))
    assert (record["status"], record["epochs_done"]) == ("completed", 6)
    assert newest(store).epoch == 6
    assert not list((s3_home.path / "pending").iterdir())


def test_a_resume_uses_the_newer_checkpoint_that_was_kept_on_the_node(
    s3_home: Home, server: SeaweedServer, store: S3Store, pictures: Path
) -> None:
    training = s3_home.start(*ECHO, "--data", str(pictures), "--epochs", "30", "--set", "delay_s=0.2")
    training.until(lambda event: event.get("event") == "checkpoint" and event["epoch"] >= 2)
    server.kill()
    last = training.until(lambda event: event.get("event") == "epoch" and event["epoch"] >= 6)["epoch"]
    training.send(signal.SIGKILL)
    training.process.wait()
    time.sleep(2)
    server.start()
    code, resumed = s3_home.run("train", "--resume", "1", "--epochs", "9")
    assert code == 0, resumed.errors
    assert resumed.of("attempt")[0]["resumed_from_epoch"] >= last - 1
    assert any("was still on this node" in event["message"] for event in resumed.of("warning"))


def test_wrong_credentials_are_named_before_a_job_is_made(s3_home: Home, pictures: Path) -> None:
    s3_home.environ["AWS_SECRET_ACCESS_KEY"] = "wrong-and-secret"
    started = time.monotonic()
    code, training = s3_home.run(*ECHO, "--data", str(pictures))
    said = training.errors + json.dumps(training.events)
    assert code == 6
    assert "does not accept the credentials" in said
    assert "wrong-and-secret" not in said
    assert time.monotonic() - started < 20


def test_a_worker_needs_nothing_in_its_nodes_environment(s3_home: Home, store: S3Store, pictures: Path) -> None:
    """The driver alone knows the keys, from a profile of its own; they reach the worker by the remote call."""
    folder = s3_home.path / "aws"
    folder.mkdir()
    secret = s3_home.environ.pop("AWS_SECRET_ACCESS_KEY")
    key = s3_home.environ.pop("AWS_ACCESS_KEY_ID")
    (folder / "credentials").write_text(f"[mine]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    s3_home.environ |= {"AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"), "EAGLERAY_S3_PROFILE": "mine"}
    code, training = s3_home.run(*ECHO, "--data", str(pictures), "--epochs", "1")
    assert code == 0, training.errors
    assert store.exists("checkpoints/test-jobs/job_1/last.pt")
