"""Building for real, with uv, from wheels made on the spot."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.contract.errors import EnvironmentBuildError
from eagleray.environments import builder
from eagleray.environments.builder import build
from eagleray.environments.lock import Lock, environment_name, parse_lock
from eagleray.environments.process import stream
from eagleray.environments.ready import MARKER, is_ready

MakeLock = Callable[..., Lock]
STUCK = "import os, time, pathlib\npathlib.Path(os.environ['STARTED']).write_text(str(os.getpid()))\ntime.sleep(600)"


def test_an_environment_imports_what_is_locked_and_nothing_of_ours(root: Path, make_lock: MakeLock) -> None:
    lines: list[str] = []
    built = build(make_lock(tiny="answer = 42"), root=root, imports=("tiny",), say=lines.append)
    out = subprocess.run([built.python, "-I", "-c", "import tiny; print(tiny.answer)"], capture_output=True, text=True)
    ours = subprocess.run([built.python, "-I", "-c", "import eagleray"], capture_output=True)
    assert (out.stdout, ours.returncode, built.reused) == ("42\n", 1, False)
    assert any("tiny==1.0" in line for line in lines), lines


def test_the_second_build_is_free(root: Path, make_lock: MakeLock) -> None:
    lock = make_lock(tiny="")
    build(lock, root=root, say=lambda line: None)
    lines: list[str] = []
    again = build(lock, root=root, say=lines.append)
    assert again.reused and not lines and again.seconds < 0.2


def test_a_look_is_quick_and_makes_it_the_last_used(root: Path, make_lock: MakeLock) -> None:
    lock = make_lock(tiny="")
    built = build(lock, root=root, say=lambda line: None)
    os.utime(built.path / MARKER, (0, 0))
    found = is_ready(lock, root)
    assert found is not None and found.reused and found.python == built.python and found.seconds < 0.05
    assert time.time() - (built.path / MARKER).stat().st_mtime < 60


def test_the_marker_tells_what_was_built(root: Path, make_lock: MakeLock) -> None:
    built = build(make_lock(tiny=""), root=root, say=lambda line: None)
    marker = json.loads((built.path / MARKER).read_text())
    assert marker["name"] == built.path.name and marker["lock"] == "tests:locks/tiny.txt"
    assert marker["versions"] == {"tiny": "1.0"} and abs(marker["built_at"] - time.time()) < 60


@pytest.mark.parametrize("harm", ["no marker", "torn marker", "another's marker", "no interpreter"])
def test_an_incomplete_environment_is_never_used_but_built_again(root: Path, make_lock: MakeLock, harm: str) -> None:
    lock = make_lock(tiny="")
    built = build(lock, root=root, say=lambda line: None)
    (built.path / "leftover").touch()
    match harm:
        case "no marker":
            (built.path / MARKER).unlink()
        case "torn marker":
            (built.path / MARKER).write_text('{"name": "')
        case "another's marker":
            (built.path / MARKER).write_text('{"name": "other"}')
        case "no interpreter":
            built.python.unlink()
    assert is_ready(lock, root) is None
    assert not build(lock, root=root, say=lambda line: None).reused
    assert not (built.path / "leftover").exists()


def test_bytes_that_were_not_locked_are_refused(
    root: Path, make_lock: MakeLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neither may the user's environment switch the check off.
    monkeypatch.setenv("UV_NO_VERIFY_HASHES", "1")
    right = make_lock(tiny="")
    wrong = parse_lock(re.sub("[0-9a-f]{64}", "0" * 64, right.text), right.reference)
    with pytest.raises(EnvironmentBuildError, match="could not be installed") as failed:
        build(wrong, root=root, say=lambda line: None)
    assert "other bytes" in failed.value.hint
    assert not (root / environment_name(wrong)).exists()


def test_a_missing_package_is_named(root: Path, wheels: Path) -> None:
    lock = parse_lock(f"nowhere==1.0 --hash=sha256:{'0' * 64}", "tests:locks/tiny.txt")
    with pytest.raises(EnvironmentBuildError, match="nowhere") as failed:
        build(lock, root=root, say=lambda line: None)
    assert "UV_DEFAULT_INDEX" in failed.value.hint
    assert not (root / environment_name(lock)).exists()


def test_offline_says_that_the_cache_lacks_it(root: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.delenv("UV_FIND_LINKS")
    lock = parse_lock(f"iniconfig==2.1.0 --hash=sha256:{'0' * 64}", "tests:locks/tiny.txt")
    with pytest.raises(EnvironmentBuildError) as failed:
        build(lock, root=root, say=lambda line: None, offline=True)
    assert "not in uv's cache" in failed.value.hint


def test_a_source_distribution_is_never_run(root: Path, wheels: Path, tmp_path: Path) -> None:
    source = tmp_path / "evil-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')")
    archive = shutil.make_archive(str(wheels / "evil-1.0"), "gztar", tmp_path, "evil-1.0")
    digest = subprocess.run(["sha256sum", archive], capture_output=True, text=True).stdout.split()[0]
    lock = parse_lock(f"evil==1.0 --hash=sha256:{digest}", "tests:locks/tiny.txt")
    with pytest.raises(EnvironmentBuildError):
        build(lock, root=root, say=lambda line: None)
    assert not (tmp_path / "pwned").exists()


def test_a_module_that_fails_to_import_is_told_by_its_last_lines(root: Path, make_lock: MakeLock) -> None:
    lock = make_lock(tiny="raise ImportError('libGL.so.1: cannot open shared object file')")
    with pytest.raises(EnvironmentBuildError, match=r"tiny cannot be imported: .*libGL"):
        build(lock, root=root, imports=("tiny",), say=lambda line: None)
    assert not (root / environment_name(lock)).exists()


def test_an_environment_that_was_only_looked_at_is_imported_from_when_that_is_asked_for(
    root: Path, make_lock: MakeLock
) -> None:
    lock = make_lock(broken="raise OSError('libGL.so.1: cannot open shared object file')")
    assert not build(lock, root=root, imports=("broken",), say=lambda line: None, check="find").reused
    with pytest.raises(EnvironmentBuildError, match=r"libGL\.so\.1"):
        build(lock, root=root, imports=("broken",), say=lambda line: None)
    # Installing the library mends it; nothing is to be built again.
    assert is_ready(lock, root)


def test_a_second_import_check_is_not_paid(root: Path, make_lock: MakeLock) -> None:
    lock = make_lock(fine="")
    build(lock, root=root, imports=("fine",), say=lambda line: None, check="find")
    said: list[str] = []
    for _ in range(2):
        build(lock, root=root, imports=("fine",), say=said.append)
    assert [line for line in said if line.startswith("checking")] == ["checking: import fine"]


@pytest.mark.parametrize("check", ["import", "find"])
def test_a_module_that_the_lock_lacks_is_told(root: Path, make_lock: MakeLock, check: builder.Check) -> None:
    with pytest.raises(EnvironmentBuildError, match="absent"):
        build(make_lock(tiny=""), root=root, imports=("absent",), say=lambda line: None, check=check)


def test_a_dot_on_pythonpath_does_not_stand_in_for_a_package(
    root: Path, make_lock: MakeLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EnvironmentBuildError, match="absent"):
        build(make_lock(tiny=""), root=root, imports=("absent",), say=lambda line: None)


def test_the_time_limit_kills_the_child_and_says_how_to_raise_it(
    root: Path, make_lock: MakeLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARTED", str(tmp_path / "pid"))
    lock = make_lock(stuck=STUCK)
    began = time.monotonic()
    with pytest.raises(EnvironmentBuildError, match="within 4 s") as failed:
        build(lock, root=root, imports=("stuck",), say=lambda line: None, timeout_s=4)
    assert time.monotonic() - began < 8
    assert "EAGLERAY_ENVIRONMENT_TIMEOUT_S=8" in failed.value.hint
    assert not (root / environment_name(lock)).exists()
    assert _gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    root: Path, make_lock: MakeLock, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(builder, "write_marker", full)
    lock = make_lock(tiny="")
    with pytest.raises(EnvironmentBuildError, match="is full") as failed:
        build(lock, root=root, say=lambda line: None)
    assert "envs prune" in failed.value.hint
    assert not (root / environment_name(lock)).exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, make_lock: MakeLock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentBuildError, match="cannot be built in") as failed:
        build(make_lock(tiny=""), root=tmp_path / "file" / "envs", say=lambda line: None)
    assert "EAGLERAY_HOME" in failed.value.hint


def test_only_where_packages_come_from_reaches_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_MINE_PASSWORD", "UV_CONSTRAINT", "UV_TARGET", "PYTHONPATH", "PATH"):
        monkeypatch.setenv(name, "x")
    passed = builder._environ()
    assert {"UV_DEFAULT_INDEX", "UV_INDEX_MINE_PASSWORD", "PATH"} <= passed.keys()
    assert not {"UV_CONSTRAINT", "UV_TARGET", "PYTHONPATH"} & passed.keys()


def test_a_mirrors_password_is_never_written_down(
    root: Path, make_lock: MakeLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX_MINE_PASSWORD", "hunter2-hunter2")
    lines: list[str] = []
    built = build(make_lock(tiny=""), root=root, say=lines.append)
    texts = [path.read_bytes() for path in built.path.rglob("*") if path.is_file()]
    assert not any(b"hunter2" in text for text in [*texts, "\n".join(lines).encode()])


def test_ctrl_c_leaves_nothing(root: Path, make_lock: MakeLock) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("checking"):
            raise KeyboardInterrupt

    lock = make_lock(tiny="")
    with pytest.raises(KeyboardInterrupt):
        build(lock, root=root, imports=("tiny",), say=interrupt)
    assert not (root / environment_name(lock)).exists()


# Built in another process: lock text, reference, root, a gate to wait for, imports.
BUILD = """
import sys, time
from pathlib import Path
from eagleray.environments.builder import build
from eagleray.environments.lock import parse_lock
from eagleray.environments.ready import read_marker
text, reference, root, gate, *imports = sys.argv[1:]
print("here", flush=True)
while not Path(gate).exists():
    time.sleep(0.005)
built = build(parse_lock(text, reference), root=Path(root), imports=imports, say=lambda line: print(line, flush=True))
print(f"reused={built.reused} ready={read_marker(built.path) is not None}")
"""


def _start_build(lock: Lock, root: Path, gate: Path, module: str) -> subprocess.Popen[str]:
    argv = (sys.executable, "-c", BUILD, lock.text, lock.reference, str(root), str(gate), module)
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_four_processes_at_once_build_it_once(root: Path, make_lock: MakeLock, tmp_path: Path) -> None:
    lock = make_lock(slow="import time; time.sleep(1)")
    racers = [_start_build(lock, root, tmp_path / "go", "slow") for _ in range(4)]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "here\n"
    (tmp_path / "go").touch()
    said = "".join(racer.communicate(timeout=60)[0] for racer in racers).splitlines()
    assert sum(line.startswith("building environment") for line in said) == 1
    assert sum(line == "reused=True ready=True" for line in said) == 3
    assert sum("waiting for another process" in line for line in said) == 3


def test_after_kill_9_nothing_is_used_and_the_next_one_builds(
    root: Path, make_lock: MakeLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setenv("STARTED", str(pid))
    stuck_once = f"import os\nif not os.path.exists({str(tmp_path / 'fine')!r}):\n" + "\n".join(
        f"    {line}" for line in STUCK.splitlines()
    )
    lock = make_lock(stuck=stuck_once)
    with _start_build(lock, root, tmp_path, "stuck") as victim:
        _wait_for(lambda: pid.exists() and pid.read_text() != "")
        victim.kill()
    assert (root / environment_name(lock)).exists() and is_ready(lock, root) is None
    # The victim's own child still works in the folder, so nobody else may.
    with pytest.raises(EnvironmentBuildError, match="Another process"):
        build(lock, root=root, imports=("stuck",), say=lambda line: None, timeout_s=0.5)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    (tmp_path / "fine").touch()
    assert not build(lock, root=root, imports=("stuck",), say=lambda line: None).reused


def test_a_grandchild_does_not_outlive_the_limit(tmp_path: Path) -> None:
    code = "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"
    lines: list[str] = []
    with pytest.raises(TimeoutError):
        stream(
            (sys.executable, "-c", code),
            say=lines.append,
            deadline=time.monotonic() + 2,
            environ=os.environ,
            directory=tmp_path,
        )
    assert _gone(int(lines[0]))


def _gone(pid: int) -> bool:
    """Dead within a moment, or a zombie that only waits for its parent."""

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    _wait_for(ended)
    return True


def _wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
