"""A checkpoint exists when its manifest does, is used when all its bytes are right, and is never a mix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eagleray.contract.errors import CheckpointError, ConfigError, StorageError
from eagleray.storage import layout
from eagleray.storage.checkpoints import Checkpoints, Manifest
from eagleray.storage.failpoints import ENVIRONMENT_VARIABLE, FailpointReached, failpoint
from eagleray.storage.local import LocalStore
from eagleray.storage.store import StoreUnreachableError

PREFIX = "checkpoints/test-jobs/job_7"
COMMITTING = Path(__file__).with_name("committing.py")


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(LocalStore(tmp_path / "store"), PREFIX)


def commit(
    checkpoints: Checkpoints, epoch: int, *, attempt: int = 1, best: bool = False, content: str = "", value: float = 0.5
) -> Manifest:
    folder = Path(checkpoints.store.location).parent / "save"
    (folder / "state").mkdir(parents=True, exist_ok=True)
    (folder / "model.pt").write_text(content or f"model {attempt}.{epoch}")
    (folder / "state" / "optimizer.bin").write_text(f"optimizer {attempt}.{epoch}")
    return checkpoints.commit(
        folder,
        job_id=7,
        attempt=attempt,
        epoch=epoch,
        metrics={"loss": 1 / epoch},
        portable_file="model.pt",
        is_best=best,
        best_value=value,
        best_epoch=epoch if best else None,
    )


def kept(checkpoints: Checkpoints) -> list[tuple[int, int]]:
    return [(manifest.epoch, manifest.attempt) for manifest in checkpoints.all()]


def newest(checkpoints: Checkpoints) -> tuple[int | None, list[str]]:
    said: list[str] = []
    manifest = checkpoints.newest_valid(said.append)
    return (manifest.epoch if manifest else None), said


def stored(checkpoints: Checkpoints, epoch: int, name: str, attempt: int = 1) -> Path:
    return Path(checkpoints.store.location) / PREFIX / "attempts" / str(attempt) / f"epoch-{epoch:05d}" / name


def test_a_commit_comes_back_whole(checkpoints: Checkpoints, tmp_path: Path) -> None:
    written = commit(checkpoints, 1)
    manifest = checkpoints.newest_valid(pytest.fail)
    assert manifest == written
    checkpoints.fetch(manifest, tmp_path / "resume")
    assert (tmp_path / "resume" / "model.pt").read_text() == "model 1.1"
    assert (tmp_path / "resume" / "state" / "optimizer.bin").read_text() == "optimizer 1.1"


def test_without_any_there_is_none(checkpoints: Checkpoints) -> None:
    assert newest(checkpoints) == (None, [])


def test_a_manifest_that_cannot_be_read_is_there_all_the_same(checkpoints: Checkpoints) -> None:
    assert not checkpoints.any_committed()
    key = layout.manifest_key(PREFIX, 1, 1)
    checkpoints.store.put_bytes(f"{key.rpartition('/')[0]}/model.pt", b"m")
    assert not checkpoints.any_committed()
    checkpoints.store.put_bytes(key, b"{")
    assert checkpoints.any_committed()
    assert checkpoints.all() == []


def test_last_follows_every_commit_and_best_only_the_best(checkpoints: Checkpoints) -> None:
    commit(checkpoints, 1, best=True)
    commit(checkpoints, 2)
    assert checkpoints.store.get_bytes(f"{PREFIX}/last.pt") == b"model 1.2"
    assert checkpoints.store.get_bytes(f"{PREFIX}/best.pt") == b"model 1.1"


def test_a_late_commit_of_an_older_epoch_publishes_nothing(checkpoints: Checkpoints) -> None:
    commit(checkpoints, 3, best=True)
    commit(checkpoints, 2, best=True)
    assert checkpoints.store.get_bytes(f"{PREFIX}/last.pt") == b"model 1.3"
    assert checkpoints.store.get_bytes(f"{PREFIX}/best.pt") == b"model 1.3"


def test_a_later_attempt_publishes_over_epochs_it_takes_back(checkpoints: Checkpoints) -> None:
    commit(checkpoints, 5)
    commit(checkpoints, 4, attempt=2)
    assert checkpoints.store.get_bytes(f"{PREFIX}/last.pt") == b"model 2.4"


def test_the_newest_two_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    for epoch in range(1, 7):
        commit(checkpoints, epoch, best=epoch in (1, 2))
    assert kept(checkpoints) == [(6, 1), (5, 1), (2, 1)]
    assert list(checkpoints.store.list_folders(f"{PREFIX}/attempts/1")) == ["epoch-00002", "epoch-00005", "epoch-00006"]


def test_pruning_after_a_fall_back_spares_the_later_attempt(checkpoints: Checkpoints) -> None:
    for epoch in (8, 9):
        commit(checkpoints, epoch)
        stored(checkpoints, epoch, "model.pt").write_text("damaged")
    for epoch in (4, 5):
        commit(checkpoints, epoch, attempt=2)
    assert newest(checkpoints)[0] == 5
    assert {(4, 2), (5, 2)} <= set(kept(checkpoints))


def test_a_checkpoint_that_is_half_pruned_is_none(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in (1, 2):
        commit(checkpoints, epoch)

    def killed(prefix: str) -> None:
        raise FailpointReached(prefix)

    monkeypatch.setattr(checkpoints.store, "delete_prefix", killed)
    with pytest.raises(FailpointReached):
        checkpoints.prune(keep=1)
    assert kept(checkpoints) == [(2, 1)]
    assert stored(checkpoints, 1, "model.pt").exists()


def test_newest_is_by_epoch_then_by_attempt(checkpoints: Checkpoints) -> None:
    commit(checkpoints, 10)
    commit(checkpoints, 9, attempt=2)
    assert kept(checkpoints) == [(10, 1), (9, 2)]
    assert newest(checkpoints) == (10, [])
    commit(checkpoints, 10, attempt=2)
    assert kept(checkpoints)[0] == (10, 2)


def test_the_same_commit_again_is_success(checkpoints: Checkpoints) -> None:
    first = commit(checkpoints, 1, value=float("nan"))
    assert commit(checkpoints, 1, value=float("nan")).created_at == first.created_at


def test_another_commit_of_the_same_epoch_is_refused_and_harms_nothing(checkpoints: Checkpoints) -> None:
    commit(checkpoints, 1)
    with pytest.raises(CheckpointError, match="Another checkpoint of epoch 1"):
        commit(checkpoints, 1, content="something else")
    assert newest(checkpoints) == (1, [])


def test_a_commit_interrupted_among_its_files_can_be_made_again(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "ckpt.after_file:raise")
    with pytest.raises(FailpointReached):
        commit(checkpoints, 1)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    commit(checkpoints, 1)
    assert newest(checkpoints) == (1, [])


def test_a_commit_interrupted_before_publishing_publishes_the_next_time(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "ckpt.after_manifest:raise")
    with pytest.raises(FailpointReached):
        commit(checkpoints, 1, best=True)
    assert not checkpoints.store.exists(f"{PREFIX}/last.pt")
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    commit(checkpoints, 1, best=True)
    assert checkpoints.store.get_bytes(f"{PREFIX}/last.pt") == b"model 1.1"


def test_a_kill_before_publishing_is_made_up_for_at_the_resume(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(checkpoints, 1, best=True)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "ckpt.after_manifest:raise")
    with pytest.raises(FailpointReached):
        commit(checkpoints, 2, best=True)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    assert checkpoints.store.get_bytes(f"{PREFIX}/last.pt") == b"model 1.1"
    checkpoints.republish()
    assert checkpoints.store.get_bytes(f"{PREFIX}/last.pt") == b"model 1.2"
    assert checkpoints.store.get_bytes(f"{PREFIX}/best.pt") == b"model 1.2"


def test_a_best_that_the_framework_has_put_there_itself_stays(checkpoints: Checkpoints) -> None:
    """C13"""
    commit(checkpoints, 1, best=True)
    checkpoints.store.put_bytes(f"{PREFIX}/best.pt", b"stripped")
    checkpoints.republish()
    assert checkpoints.store.get_bytes(f"{PREFIX}/best.pt") == b"stripped"


def test_where_nothing_is_committed_nothing_is_republished(checkpoints: Checkpoints) -> None:
    checkpoints.republish()
    assert list(checkpoints.store.list("")) == []


def test_a_full_disk_at_a_commit_is_a_storage_error(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "ckpt.before_manifest:enospc")
    with pytest.raises(StorageError, match="no space left"):
        commit(checkpoints, 1)


def test_a_folder_without_the_portable_file_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no 'best\.pt'"):
        checkpoints.commit(
            tmp_path / "empty",
            job_id=7,
            attempt=1,
            epoch=1,
            metrics={},
            portable_file="best.pt",
            is_best=False,
            best_value=None,
            best_epoch=None,
        )


def test_a_framework_may_not_write_the_manifest(checkpoints: Checkpoints) -> None:
    commit(checkpoints, 1)
    (Path(checkpoints.store.location).parent / "save" / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds a 'manifest\.json'"):
        commit(checkpoints, 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    os.truncate(path, 3)


@pytest.mark.parametrize(
    ("damage", "name", "word"),
    [
        (_flip, "model.pt", "model.pt is damaged"),
        (_flip, "state/optimizer.bin", "optimizer.bin is damaged"),
        (_truncate, "model.pt", "has 3 of 9 bytes"),
        (Path.unlink, "state/optimizer.bin", "optimizer.bin is missing"),
        (_truncate, "manifest.json", "cannot be read"),
        (lambda path: path.write_bytes(b""), "manifest.json", "cannot be read"),
        (lambda path: path.write_bytes(b"\xff" * 9), "manifest.json", "cannot be read"),
        (Path.unlink, "manifest.json", "never completed"),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    checkpoints: Checkpoints, damage: object, name: str, word: str
) -> None:
    commit(checkpoints, 1)
    commit(checkpoints, 2)
    assert callable(damage)
    damage(stored(checkpoints, 2, name))
    epoch, said = newest(checkpoints)
    assert epoch == 1
    assert len(said) == 1
    assert "epoch 2" in said[0]
    assert word in said[0]


@pytest.mark.parametrize("method", ["get_bytes", "digest"])
def test_what_cannot_be_reached_now_is_not_taken_for_damaged(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    commit(checkpoints, 1)

    def away(key: str) -> None:
        raise StoreUnreachableError("Nothing answers.")

    monkeypatch.setattr(checkpoints.store, method, away)
    with pytest.raises(StoreUnreachableError):
        checkpoints.newest_valid(pytest.fail)


def test_an_outage_in_a_commit_is_no_conflict(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(key: str) -> None:
        raise StoreUnreachableError("Nothing answers.")

    monkeypatch.setattr(checkpoints.store, "get_bytes", away)
    with pytest.raises(StoreUnreachableError):
        commit(checkpoints, 1)


def test_a_checkpoint_under_another_name_is_not_used(checkpoints: Checkpoints) -> None:
    commit(checkpoints, 1)
    stored(checkpoints, 1, "").rename(stored(checkpoints, 3, ""))
    epoch, said = newest(checkpoints)
    assert epoch is None
    assert "is that of epoch 1" in said[0]


@pytest.mark.parametrize("name", ["../../../../evil", "/tmp/evil", "a\\b", ".."])
def test_a_manifest_cannot_name_files_elsewhere(checkpoints: Checkpoints, name: str) -> None:
    commit(checkpoints, 1)
    path = stored(checkpoints, 1, "manifest.json")
    manifest = json.loads(path.read_text())
    manifest["files"][name] = manifest["files"]["model.pt"]
    path.write_text(json.dumps(manifest))
    epoch, said = newest(checkpoints)
    assert epoch is None
    assert "is not a storage key" in said[0]


def test_a_fetch_of_damaged_files_leaves_no_folder(checkpoints: Checkpoints, tmp_path: Path) -> None:
    manifest = commit(checkpoints, 1)
    _flip(stored(checkpoints, 1, "state/optimizer.bin"))
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.fetch(manifest, tmp_path / "out" / "resume")
    assert list((tmp_path / "out").iterdir()) == []


def test_sweeping_removes_only_what_earlier_attempts_left_unfinished(checkpoints: Checkpoints) -> None:
    commit(checkpoints, 1)
    checkpoints.store.put_bytes(f"{PREFIX}/attempts/1/epoch-00002/model.pt", b"half")
    checkpoints.store.put_bytes(f"{PREFIX}/attempts/2/epoch-00002/model.pt", b"being written")
    checkpoints.sweep(2)
    assert [info.key.removeprefix(f"{PREFIX}/attempts/") for info in checkpoints.store.list(f"{PREFIX}/attempts")] == [
        "1/epoch-00001/manifest.json",
        "1/epoch-00001/model.pt",
        "1/epoch-00001/state/optimizer.bin",
        "2/epoch-00002/model.pt",
    ]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("point", "epoch"), [("ckpt.after_file", 2), ("ckpt.before_manifest", 2), ("ckpt.after_manifest", 3)]
)
def test_a_kill_during_a_commit_leaves_the_earlier_or_the_new_checkpoint_whole(
    checkpoints: Checkpoints, tmp_path: Path, point: str, epoch: int
) -> None:
    command = [sys.executable, str(COMMITTING), str(tmp_path / "store"), PREFIX, str(tmp_path), "3", point]
    done = subprocess.run(command, check=False)
    assert done.returncode == -signal.SIGKILL
    said: list[str] = []
    manifest = checkpoints.newest_valid(said.append)
    assert manifest is not None
    assert manifest.epoch == epoch
    assert len(said) == (0 if epoch == 3 else 1)
    checkpoints.fetch(manifest, tmp_path / "resume")
    for name in ("model.pt", "optimizer.bin"):
        assert (tmp_path / "resume" / name).read_text() == f"{name} {epoch}" * 1000
    checkpoints.sweep(2)
    assert newest(checkpoints) == (epoch, [])


def test_an_unset_failpoint_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    failpoint("ckpt.after_file")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "ckpt.before_manifest:raise")
    failpoint("ckpt.after_file")


@pytest.mark.parametrize("setting", ["ckpt.after_fil:kill", "ckpt.after_file:explode", "ckpt.after_file", ","])
def test_a_misspelt_failpoint_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, setting)
    with pytest.raises(ConfigError, match="NAME:ACTION"):
        failpoint("ckpt.after_file")
