"""What an error says about who is at fault."""

import importlib
import pickle
import pkgutil

import pytest

from eagleray.contract.errors import CheckpointError, DatasetError, EaglerayError, EnvironmentBuildError
from eagleray.contract.failures import FailureKind, FailureRule
from eagleray.execution.failures import _KINDS, _WRAPPERS, Failure, WorkerRaised, _family, classify
from eagleray.storage.disk import DiskFullError
from eagleray.storage.store import StoreUnreachableError


class _Group(Exception):
    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("group")
        self.worker_failures = failures


class OutOfMemoryError(Exception):
    """Ray's, by its name."""


def _raised(**facts: str) -> Exception:
    raised = WorkerRaised.of(**{"error": "", "message": "", "hint": "", "traceback": "", **facts})
    return _Group({0: pickle.loads(pickle.dumps(raised))})


def test_a_workers_own_words_are_found_inside_ray_trains_error() -> None:
    failure = classify(_raised(error="DatasetError", message="bad label", hint="mend it"))
    assert failure == Failure(FailureKind.DATA, "bad label", "mend it", "DatasetError")


def test_a_dead_process_is_a_lost_worker() -> None:
    died = type("ActorDiedError", (Exception,), {})("x")
    assert classify(_Group({0: died})).kind is FailureKind.WORKER_LOST


def test_a_preempted_node_is_nobodys_fault() -> None:
    died = type("ActorDiedError", (Exception,), {"preempted": True})("x\n\tip: 10.0.0.7\n")
    assert (classify(_Group({0: died})).kind, classify(_Group({0: died})).node) == (FailureKind.PREEMPTION, "10.0.0.7")


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"error": "OutOfMemoryError", "message": "OutOfMemoryError: CUDA out of memory."}, FailureKind.OUT_OF_MEMORY),
        ({"error": "RuntimeError", "message": "DataLoader: Cannot allocate memory"}, FailureKind.OUT_OF_MEMORY),
        ({"error": "RuntimeError", "message": "CUDA error: uncorrectable ECC error"}, FailureKind.BAD_NODE),
        ({"error": "OSError", "message": "[Errno 28] No space left on device"}, FailureKind.BAD_NODE),
        ({"error": "UnidentifiedImageError", "message": "cannot identify 'a.png'"}, FailureKind.DATA),
        ({"error": "CheckpointError", "message": "damaged"}, FailureKind.STORAGE),
        ({"error": StoreUnreachableError.__name__, "message": "away"}, FailureKind.STORAGE),
        ({"error": "TrainingError", "message": "timm failed: CUDA out of memory"}, FailureKind.OUT_OF_MEMORY),
        ({"error": "ConfigError", "message": "imgsz"}, FailureKind.USER),
        ({"error": "ValueError", "message": "shape"}, FailureKind.PLUGIN),
    ],
)
def test_what_a_worker_raised_names_who_is_at_fault(facts: dict[str, str], kind: FailureKind) -> None:
    assert classify(_raised(**facts)).kind is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DatasetError("no such folder"), FailureKind.DATA),
        (EnvironmentBuildError("no network"), FailureKind.ENVIRONMENT),
        (CheckpointError("damaged"), FailureKind.STORAGE),
    ],
)
def test_our_own_errors_keep_their_words(error: Exception, kind: FailureKind) -> None:
    assert (classify(error).kind, classify(error).message) == (kind, error.args[0])


PEER_GONE = {"error": "RuntimeError", "message": "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:4242"}


def test_a_worker_whose_peer_died_is_a_lost_worker_and_tried_again() -> None:
    assert classify(_raised(**PEER_GONE)).kind is FailureKind.WORKER_LOST


def test_what_a_worker_raised_comes_before_what_its_peers_then_miss() -> None:
    peer, cause = _raised(**PEER_GONE), _raised(error="DatasetError", message="bad label")
    failure = classify(_Group({0: peer, 1: cause}))
    assert (failure.kind, failure.message) == (FailureKind.DATA, "bad label")


def test_what_a_worker_died_of_comes_before_what_its_peers_then_miss() -> None:
    assert classify(_Group({0: _raised(**PEER_GONE), 1: OutOfMemoryError()})).kind is FailureKind.OUT_OF_MEMORY


def test_a_plugins_rule_comes_before_ours() -> None:
    rule = FailureRule(FailureKind.USER, error="OSError", pattern="No space", hint="choose another cache folder")
    failure = classify(_raised(error="OSError", message="No space left on device"), [rule])
    assert (failure.kind, failure.hint) == (FailureKind.USER, "choose another cache folder")


def test_a_rule_without_any_condition_fits_nothing() -> None:
    assert not FailureRule(FailureKind.USER).fits("ValueError", "x")


def test_our_own_word_for_a_full_disk_and_its_way_out_survive() -> None:
    message = "no room ([Errno 28] No space left on device)."
    facts = {"error": DiskFullError.__name__, "message": message, "hint": "Free some."}
    failure = classify(_raised(**facts))
    assert (failure.kind, failure.hint) == (FailureKind.STORAGE, "Free some.")


def test_every_error_that_an_attempt_can_raise_has_a_kind_on_purpose() -> None:
    names = ("contract", "datasets", "environments", "jobs", "plugins", "registry", "storage", "tracking")
    rooms = tuple(f"eagleray.{name}." for name in names)
    for room in rooms:
        folder = importlib.import_module(room.rstrip(".")).__path__
        for module in pkgutil.walk_packages(folder, room):
            importlib.import_module(module.name)
    codes = {kind.code for kind in _family(EaglerayError) if kind.__module__.startswith(rooms)}
    assert not codes - set(_KINDS) - _WRAPPERS
