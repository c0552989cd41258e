"""`eagleray storage`: whether the store works, what waits for it, what may go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eagleray.cli.app import main
from eagleray.storage.local import LocalStore
from eagleray.storage.pending import Outbox

PREFIX = "checkpoints/test-jobs/job_7"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EAGLERAY_STORAGE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> LocalStore:
    return LocalStore(home / "storage")


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main(arguments) == code
    return json.loads(capsys.readouterr().out.splitlines()[0])


def leave_a_checkpoint(store: LocalStore, home: Path) -> None:
    outbox = Outbox(home / "pending", store.location, 7, 1, PREFIX)
    facts: dict[str, Any] = {
        "metrics": {},
        "portable_file": "model.pt",
        "best_value": None,
        "best_epoch": None,
        "recent": {},
    }
    outbox.add("checkpoint", lambda folder: (folder / "model.pt").write_bytes(b"m"), facts, epoch=3)
    outbox.close()


def test_check_tries_the_store_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], store: LocalStore, home: Path
) -> None:
    found = output_of(capsys, "storage", "check", "--json")
    assert found["storage"] == store.location
    assert [step["step"] for step in found["steps"]][:2] == ["reach", "write, only if absent"]
    assert list(store.list("")) == []
    leave_a_checkpoint(store, home)
    assert main(["storage", "check"]) == 0
    said = capsys.readouterr().out
    assert f"{store.location} works" in said
    assert "1 uploads of this node wait. Try: eagleray storage retry" in said


def test_check_of_a_bucket_that_nobody_serves_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "EAGLERAY_STORAGE": "s3://bucket/x",
        "AWS_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "verysecret",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert main(["storage", "check"]) == 6
    said = capsys.readouterr()
    assert "Nothing answers at http://127.0.0.1:9" in said.err
    assert "AWS_S3_ENDPOINT_URL" in said.err
    assert "verysecret" not in said.out + said.err


def test_retry_sends_what_waits_and_names_what_waits_elsewhere(
    capsys: pytest.CaptureFixture[str], store: LocalStore, home: Path, tmp_path: Path
) -> None:
    leave_a_checkpoint(store, home)
    leave_a_checkpoint(LocalStore(tmp_path / "other"), home)
    done = output_of(capsys, "storage", "retry", "--json")
    assert done["sent"] == ["job 7: the checkpoint of epoch 3"]
    assert done["other_stores"] == [str(tmp_path / "other")]
    assert store.get_bytes(f"{PREFIX}/last.pt") == b"m"
    assert output_of(capsys, "storage", "retry", "--json")["sent"] == []


def test_retry_with_a_store_that_is_away_fails_and_keeps_all(
    capsys: pytest.CaptureFixture[str], store: LocalStore, home: Path
) -> None:
    leave_a_checkpoint(store, home)
    store.root.parent.mkdir(parents=True, exist_ok=True)
    store.root.write_text("a file where the store was")
    assert main(["storage", "retry"]) == 6
    store.root.unlink()
    assert len(output_of(capsys, "storage", "retry", "--json")["sent"]) == 1


def test_sweep_removes_old_orphans_only(capsys: pytest.CaptureFixture[str], store: LocalStore) -> None:
    for key in ("attempts/1/epoch-00001/model.pt", "attempts/1/epoch-00002/model.pt"):
        store.put_bytes(f"{PREFIX}/{key}", b"m")
    old = store.root / PREFIX / "attempts/1/epoch-00001/model.pt"
    os.utime(old, (0, 0))
    folder = f"{PREFIX}/attempts/1/epoch-00001"
    assert output_of(capsys, "storage", "sweep", "--dry-run", "--json")["folders"] == [folder]
    assert old.exists()
    assert output_of(capsys, "storage", "sweep", "--json")["folders"] == [folder]
    assert [info.key for info in store.list("")] == [f"{PREFIX}/attempts/1/epoch-00002/model.pt"]
    assert main(["storage", "sweep", "--older-than-days", "0"]) == 2


def test_other_commands_import_no_client_of_a_bucket() -> None:
    script = "import sys; from eagleray.cli.app import main; main(['plugins', 'list']); print('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(done.stdout.rpartition("MODULES")[2].split())
    assert not {"boto3", "botocore", "obstore", "httpx", "sqlalchemy", "ray"} & modules
