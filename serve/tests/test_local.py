"""What `up` and `down` do without a cluster: their processes, their files, and what they import."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eagleray.contract.errors import ClusterError, ConfigError
from eagleray_serve.first_key import ensure_admin_key
from eagleray_serve.local.processes import MARK, alive, end, marked
from eagleray_serve.local.state import ServerFolder, ServerState
from eagleray_serve.local.up import SWITCH, _check_free, _free_ports, ray_environ
from eagleray_serve.settings import load_http_settings

from .fake import FakePlane


def sleeper(mark: str) -> subprocess.Popen[bytes]:
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    code += "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    found = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, start_new_session=True
    )
    assert found.stdout is not None
    found.stdout.readline()
    return found


def test_only_marked_processes_are_ended_whatever_they_ignore() -> None:
    ours, other = sleeper("ours"), sleeper("other")
    try:
        assert len(marked("ours")) == 2
        started = time.monotonic()
        end(ours.pid, "ours", patience_s=1)
        assert time.monotonic() - started < 10
        assert ours.wait(5) == -9
        assert not [pid for pid in marked("ours") if alive(pid)]
        assert other.poll() is None
        end(other.pid, "a mark that it does not carry", patience_s=0.1)
        assert other.poll() is None, "a number that was used again proves nothing"
    finally:
        end(other.pid, "other", patience_s=0.2)
        other.wait(5)
        for each in (ours, other):
            assert each.stdout is not None
            each.stdout.close()


def test_the_token_is_made_once_for_its_owner(tmp_path: Path) -> None:
    folder = ServerFolder(tmp_path)
    token = folder.token_file.read_text()
    assert len(token) == 64
    assert stat.S_IMODE(folder.token_file.stat().st_mode) == 0o600
    assert ServerFolder(tmp_path).token_file.read_text() == token
    environ = ray_environ(folder)
    assert environ["RAY_AUTH_MODE"] == "token"
    assert token not in environ.values()


def test_a_broken_state_counts_as_none(tmp_path: Path) -> None:
    folder = ServerFolder(tmp_path)
    assert folder.load() is None
    state = ServerState(
        mark="m", pid=1, server="http://x", address="a", dashboard="d", temp_dir="/tmp/t", started_at="now"
    )
    folder.save(state)
    assert folder.load() == state
    (folder.path / "state.json").write_text("{")
    assert folder.load() is None


def test_a_taken_port_is_named() -> None:
    (port,) = _free_ports(1)
    _check_free("127.0.0.1", port)
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(ClusterError, match=str(port)):
            _check_free("127.0.0.1", port)


def test_ray_is_not_imported_before_its_environment_is_set() -> None:
    code = "import sys, eagleray_serve.__main__; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_switch_is_the_plugins_own() -> None:
    from eagleray.execution import runtime_env

    assert runtime_env.SWITCH == SWITCH


def test_the_first_key_is_made_once(plane: FakePlane, tmp_path: Path) -> None:
    path = ensure_admin_key(plane, plane.queries, tmp_path)
    key = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    ensure_admin_key(plane, plane.queries, tmp_path)
    assert not path.exists(), "whoever took the file away has the key"
    assert [each.prefix for each in plane.queries.keys()] == [key[:7]]  # noqa: SIM118 - no mapping


def test_settings_come_from_arguments_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_HTTP_ALLOWED_HOSTS", "a.example, b.example")
    monkeypatch.setenv("EAGLERAY_HTTP_KEY_RATE_PER_S", "7")
    found = load_http_settings({"key_rate_per_s": 9})
    assert (found.allowed_hosts, found.key_rate_per_s) == (("a.example", "b.example"), 9)
    monkeypatch.setenv("EAGLERAY_HTTP_KEY_RATE_PER_S", "many")
    with pytest.raises(ConfigError, match="key_rate_per_s"):
        load_http_settings()
    with pytest.raises(ConfigError, match="allowed_hosts"):
        load_http_settings({"allowed_host": ["x"], "key_rate_per_s": 1})


def test_the_deploy_file_is_one_that_the_builder_takes() -> None:
    import yaml

    config = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
    (application,) = config["applications"]
    assert application["import_path"] == "eagleray_serve.deployment:build"
    assert load_http_settings(application["args"]).num_replicas == 1
    assert config["http_options"]["host"] == "127.0.0.1"
