"""Which environments may go, and which never."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eagleray.cli.envs import app
from eagleray.contract.errors import ConfigError, EnvironmentBuildError
from eagleray.environments import cache
from eagleray.environments.cache import in_use, list_environments, prune
from eagleray.environments.lock import Lock
from eagleray.environments.locking import exclusive
from eagleray.environments.ready import MARKER, build_lock_path

DAY_S = 86_400


@pytest.fixture
def environments(root: Path) -> Path:
    """`a-…` used now, `b-…` a day ago, `c-…` two days ago, and the unfinished `dead-…`."""
    for days, name in enumerate(("a-1", "b-2", "c-3")):
        fake(root, name, days)
    (root / "dead-4").mkdir()
    return root


def fake(root: Path, name: str, days: float = 0) -> Path:
    path = root / name
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to("/bin/sh")
    (path / MARKER).write_text(json.dumps({"name": name, "lock": "p:l.txt"}))
    os.utime(path / MARKER, (time.time() - days * DAY_S,) * 2)
    return path


def names(root: Path) -> list[str]:
    return [found.name for found in list_environments(root)]


def test_the_list_is_by_last_use_and_knows_the_unfinished(environments: Path) -> None:
    states = {found.name: found.state for found in list_environments(environments)}
    assert states == {"a-1": "ready", "b-2": "ready", "c-3": "ready", "dead-4": "unfinished"}
    assert [name for name in names(environments) if name != "dead-4"] == ["a-1", "b-2", "c-3"]


def test_no_folder_is_an_empty_list(tmp_path: Path) -> None:
    assert list_environments(tmp_path / "none") == [] and prune(tmp_path / "none") == []


def test_what_is_linked_elsewhere_is_not_its_own(root: Path, tmp_path: Path) -> None:
    path = fake(root, "a-1")
    (tmp_path / "cached").write_bytes(b"x" * 5000)
    (path / "linked").hardlink_to(tmp_path / "cached")
    (path / "own").write_bytes(b"y" * 300)
    (found,) = list_environments(root)
    assert found.apparent_bytes - found.unique_bytes == 5000 and 300 <= found.unique_bytes < 1000


def test_the_least_recently_used_go_first_and_the_unfinished_always(environments: Path) -> None:
    assert {found.name for found in prune(environments, max_count=1)} == {"c-3", "b-2", "dead-4"}
    assert names(environments) == ["a-1"]


def test_old_ones_go_by_age(environments: Path) -> None:
    prune(environments, older_than_days=1.5)
    assert names(environments) == ["a-1", "b-2"]


def test_a_dry_run_only_tells(environments: Path) -> None:
    before = names(environments)
    assert len(prune(environments, dry_run=True)) == 4
    assert names(environments) == before


def test_what_is_to_be_kept_stays_and_counts(environments: Path) -> None:
    prune(environments, keep={"c-3"}, max_count=1)
    assert names(environments) == ["c-3"]


def test_one_that_is_being_built_stays(environments: Path) -> None:
    with exclusive(build_lock_path(environments, "dead-4"), timeout_s=0):
        assert "building" in {found.state for found in list_environments(environments)}
        prune(environments)
    assert names(environments) == ["dead-4"]


USE = """
import sys, time
from pathlib import Path
from eagleray.environments.cache import in_use
with in_use(Path(sys.argv[1])):
    print("using", flush=True)
    time.sleep(600)
"""


def test_one_in_use_by_another_process_stays_until_that_dies(environments: Path) -> None:
    argv = (sys.executable, "-c", USE, str(environments / "c-3"))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None and user.stdout.readline() == "using\n"
        # Two may use it at once, and using it makes it the last used.
        with in_use(environments / "c-3"):
            assert next(name for name in names(environments) if name != "dead-4") == "c-3"
        prune(environments)
        assert names(environments) == ["c-3"] and list_environments(environments)[0].in_use
        user.kill()
    prune(environments)
    assert names(environments) == []


def test_one_taken_into_use_after_the_look_stays(environments: Path) -> None:
    (found,) = [one for one in list_environments(environments) if one.name == "c-3"]
    with in_use(found.path):
        # As on a disk that keeps no times: the lock alone must protect it.
        os.utime(found.path / MARKER, (found.last_used,) * 2)
        assert not cache._remove(found)
    assert "c-3" in names(environments)


def test_a_removed_one_cannot_be_used(environments: Path) -> None:
    prune(environments)
    with pytest.raises(EnvironmentBuildError, match="c-3 is not there"), in_use(environments / "c-3"):
        pass


def test_the_command_lists_and_prunes(environments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_HOME", str(environments.parent))
    run = CliRunner().invoke
    listed = json.loads(run(app, ["list", "--json"]).stdout)
    assert {one["name"] for one in listed} == {"a-1", "b-2", "c-3", "dead-4"}
    assert "c-3" in run(app, ["list"]).stdout
    assert "would remove c-3" in run(app, ["prune", "--all", "--dry-run"]).stdout
    gone = json.loads(run(app, ["prune", "--max-count", "2", "--json"]).stdout)["removed"]
    assert {one["name"] for one in gone} == {"c-3", "dead-4"}


@pytest.mark.parametrize("flags", [[], ["--all", "--max-count", "1"], ["--max-count", "-1"]])
def test_prune_must_be_told_what(environments: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    monkeypatch.setenv("EAGLERAY_HOME", str(environments.parent))
    result = CliRunner().invoke(app, ["prune", *flags])
    assert isinstance(result.exception, ConfigError) and names(environments)[-1]
    assert len(names(environments)) == 4


def test_a_real_environment_shares_the_caches_bytes(root: Path, make_lock: Callable[..., Lock]) -> None:
    from eagleray.environments.builder import build

    build(make_lock(big=f"x = '{'y' * 100_000}'"), root=root, say=lambda line: None)
    (found,) = list_environments(root)
    assert found.apparent_bytes - found.unique_bytes > 100_000
