"""What could not be uploaded waits on its node, whole, and is sent by whoever comes next."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from eagleray.contract.errors import StorageError
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.local import LocalStore
from eagleray.storage.pending import Outbox, PendingItem, finish_pending, list_items, list_pending, superseded
from eagleray.storage.weights import find_weights
from eagleray.testing.disk import small_disk

PREFIX = "checkpoints/test-jobs/job_7"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pending"


def outbox_of(store: LocalStore, root: Path, attempt: int = 1, job_id: int = 7) -> Outbox:
    return Outbox(root, store.location, job_id, attempt, PREFIX)


def add(outbox: Outbox, epoch: int, *, best: bool = False, loss: float = 0.5) -> PendingItem:
    def fill(folder: Path) -> None:
        (folder / "state").mkdir()
        (folder / "model.pt").write_text(f"model {epoch}")
        (folder / "state" / "optimizer.bin").write_text(f"optimizer {epoch}")

    facts = {
        "metrics": {"loss": loss},
        "portable_file": "model.pt",
        "best_value": loss,
        "best_epoch": epoch,
        "recent": {epoch: {"loss": loss}},
    }
    return outbox.add("checkpoint", fill, facts, epoch=epoch, best=best)


def write(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


def newest(store: LocalStore) -> int | None:
    manifest = Checkpoints(store, PREFIX).newest_valid(pytest.fail)
    return manifest.epoch if manifest else None


def test_what_an_ended_job_left_is_sent_whole(store: LocalStore, root: Path, tmp_path: Path) -> None:
    outbox = outbox_of(store, root)
    add(outbox, 3, best=True)
    outbox.add("file", lambda folder: (folder / "plot.png").write_bytes(b"png"), {"key": f"{PREFIX}/files/plot.png"})
    outbox.close()
    done = finish_pending(store, root)
    assert [str(item) for item in done.sent] == ["the checkpoint of epoch 3", "the file files/plot.png"]
    manifest = Checkpoints(store, PREFIX).newest_valid(pytest.fail)
    assert manifest is not None
    assert (manifest.epoch, manifest.best, manifest.recent) == (3, True, {3: {"loss": 0.5}})
    assert store.get_bytes(f"{PREFIX}/last.pt") == store.get_bytes(f"{PREFIX}/best.pt") == b"model 3"
    assert store.get_bytes(f"{PREFIX}/files/plot.png") == b"png"
    assert list(root.iterdir()) == []


def test_a_second_pass_finds_nothing(store: LocalStore, root: Path) -> None:
    add(outbox := outbox_of(store, root), 1)
    outbox.close()
    finish_pending(store, root)
    again = finish_pending(store, root)
    assert (again.sent, again.obsolete, again.left) == ([], [], [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metrics_that_are_no_numbers_survive(store: LocalStore, root: Path, value: float) -> None:
    add(outbox := outbox_of(store, root), 1, loss=value)
    outbox.close()
    finish_pending(store, root)
    (manifest,) = Checkpoints(store, PREFIX).all()
    assert repr(manifest.metrics["loss"]) == repr(value)


def test_what_a_live_process_holds_is_left_to_it(store: LocalStore, root: Path) -> None:
    outbox = outbox_of(store, root)
    add(outbox, 1)
    assert finish_pending(store, root).sent == []
    outbox.close()
    assert len(finish_pending(store, root).sent) == 1


def test_a_store_that_is_away_leaves_all_and_says_why(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outbox_of(store, root)
    add(outbox, 1, best=True)
    add(outbox, 2)
    outbox.close()

    def away(*arguments: object, **options: object) -> None:
        raise StorageError("Nothing answers.")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put_file", away)
        done = finish_pending(store, root)
    assert [item.epoch for item in done.left] == [1, 2]
    assert "Nothing answers" in done.reason
    assert [item.epoch for item in finish_pending(store, root).sent] == [1, 2]


def test_only_the_newest_and_the_best_are_sent(store: LocalStore, root: Path) -> None:
    outbox = outbox_of(store, root)
    for epoch in range(1, 7):
        add(outbox, epoch, best=epoch in (1, 2))
    outbox.close()
    assert [item.epoch for item in finish_pending(store, root).sent] == [2, 6]
    assert newest(store) == 6


def test_what_a_later_one_replaces_is_known(store: LocalStore, root: Path) -> None:
    outbox = outbox_of(store, root)
    for epoch, best in ((1, True), (2, False), (3, True), (4, False)):
        add(outbox, epoch, best=best)
    for content in ("old", "new"):
        outbox.add("file", partial(write, name="f", data=content.encode()), {"key": f"{PREFIX}/f"})
    gone = [str(one.item) for one in superseded(list_items(outbox.folder))]
    assert sorted(gone) == ["the checkpoint of epoch 1", "the checkpoint of epoch 2", "the file f"]
    outbox.close()


def test_a_job_that_went_on_elsewhere_is_not_set_back(store: LocalStore, root: Path, tmp_path: Path) -> None:
    add(left := outbox_of(store, root, attempt=1), 8, best=True)
    left.add("file", lambda folder: (folder / "best.pt").write_text("old"), {"key": f"{PREFIX}/best.pt"})
    left.close()
    add(later := outbox_of(store, tmp_path / "elsewhere", attempt=2), 6, best=True)
    later.close()
    finish_pending(store, tmp_path / "elsewhere")
    done = finish_pending(store, root)
    assert (done.sent, [str(item) for item in done.obsolete]) == ([], ["the checkpoint of epoch 8", "the file best.pt"])
    assert newest(store) == 6
    assert store.get_bytes(f"{PREFIX}/best.pt") == b"model 6"
    assert list(root.iterdir()) == []


def test_a_record_is_only_replaced_by_a_newer_one(store: LocalStore, root: Path) -> None:
    def record(at: str) -> bytes:
        return json.dumps({"id": 7, "updated_at": at}).encode()

    for kept, sent, expected in (
        ("2026-01-02", "2026-01-03", "2026-01-03"),
        ("2026-01-05", "2026-01-03", "2026-01-05"),
    ):
        store.put_bytes("jobs/7.json", record(kept))
        outbox = Outbox(root, store.location, 7, 1, PREFIX, "driver")
        outbox.add(
            "record",
            partial(write, name="r", data=record(sent)),
            {"key": "jobs/7.json"},
        )
        outbox.close()
        finish_pending(store, root)
        assert json.loads(store.get_bytes("jobs/7.json"))["updated_at"] == expected


def test_stores_do_not_get_each_others_jobs(store: LocalStore, root: Path, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "other")
    add(outbox := outbox_of(other, root), 1)
    outbox.close()
    assert finish_pending(store, root).sent == []
    assert [one.item.store for one in list_pending(root)] == [other.location]
    assert len(finish_pending(other, root, job_id=7).sent) == 1


def test_one_jobs_pass_leaves_the_others(store: LocalStore, root: Path) -> None:
    for job_id in (7, 70):
        add(outbox := outbox_of(store, root, job_id=job_id), 1)
        outbox.close()
    assert [item.job_id for item in finish_pending(store, root, job_id=7).sent] == [7]
    assert [one.item.job_id for one in list_pending(root)] == [70]


def test_a_damaged_note_hides_no_other(store: LocalStore, root: Path) -> None:
    outbox = outbox_of(store, root)
    (add(outbox, 1).path / "item.json").write_text("{")
    add(outbox, 2)
    outbox.close()
    assert [item.epoch for item in finish_pending(store, root).sent] == [2]


def test_weights_wait_too(store: LocalStore, root: Path) -> None:
    outbox = outbox_of(store, root)

    def fill(folder: Path) -> None:
        (folder / "vit").mkdir()
        (folder / "vit" / "model.safetensors").write_bytes(b"w")

    outbox.add("weights", fill, {"framework": "huggingface", "name": "google/vit"})
    outbox.close()
    finish_pending(store, root)
    assert find_weights(store, "huggingface", "google/vit") == "pretrained_weights/huggingface/google%2Fvit"


def test_a_save_that_fails_leaves_nothing(store: LocalStore, root: Path) -> None:
    outbox = outbox_of(store, root)

    def broken(folder: Path) -> None:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError("the framework failed")

    with pytest.raises(RuntimeError):
        outbox.add("checkpoint", broken, {})
    assert [path.name for path in outbox.folder.iterdir()] == ["worker-1.lock"]
    outbox.close()
    assert list(root.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from eagleray.storage.pending import Outbox
root, store, point = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
outbox = Outbox(root, store, 7, 1, "checkpoints/test-jobs/job_7")
def fill(folder):
    (folder / "model.pt").write_bytes(b"model" * 1000)
    if point == "saving":
        print("now", flush=True); time.sleep(60)
facts = {"metrics": {}, "portable_file": "model.pt", "best_value": None, "best_epoch": None, "recent": {}}
outbox.add("checkpoint", fill, facts, epoch=4)
print("now", flush=True)
time.sleep(60)
"""


@pytest.mark.fault
@pytest.mark.parametrize(("point", "epoch"), [("saving", None), ("saved", 4)])
def test_f2_a_worker_killed_while_it_saves_leaves_all_or_nothing(
    store: LocalStore, root: Path, point: str, epoch: int | None
) -> None:
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(root), store.location, point], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finish_pending(store, root)
    assert newest(store) == epoch
    assert list(root.iterdir()) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "1m") as folder:
        yield folder


@pytest.mark.fault
def test_f20_a_full_disk_at_a_save_leaves_what_was_saved_before(store: LocalStore, disk: Path) -> None:
    outbox = outbox_of(store, disk)
    add(outbox, 1)

    def large(folder: Path) -> None:
        (folder / "model.pt").write_bytes(os.urandom(2 << 20))

    with pytest.raises(OSError, match="No space left"):
        outbox.add("checkpoint", large, {}, epoch=2)
    outbox.close()
    assert [item.epoch for item in finish_pending(store, disk).sent] == [1]
