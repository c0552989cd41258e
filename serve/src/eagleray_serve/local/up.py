"""Start Ray, the control plane and the API on this machine."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eagleray.client import Client, ServerError
from eagleray.client.credentials import find_key, keep_key
from eagleray.contract.errors import ClusterError, EaglerayError
from eagleray.execution.starting import start_again
from eagleray.settings import Settings
from eagleray_serve.first_key import FILE, make_admin_key
from eagleray_serve.local.processes import MARK, alive, end, marked
from eagleray_serve.local.state import ServerFolder, ServerState
from eagleray_serve.settings import PREFIX, HttpSettings

# Named here and not imported: that module imports Ray, which reads its environment when it is imported.
SWITCH = "RAY_RUNTIME_ENV_PLUGINS"
PLUGIN = '[{"class":"eagleray.execution.runtime_env.EnvironmentPlugin"}]'
START_S = 120.0
Say = Callable[[str], None]
Faults = dict[str, str]
# Parts of a server that `up` can start again.
API, CONTROL = "api", "control"


@dataclass(frozen=True)
class Wanted:
    """What `eagleray up` was asked for; None: what Ray finds on the machine."""

    host: str = "127.0.0.1"
    port: int = 8000
    dashboard_port: int | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    new_admin_key: bool = False
    http: dict[str, Any] | None = None


def up(wanted: Wanted, settings: Settings, say: Say) -> dict[str, Any]:
    """A server that answers. Of one that runs already, what is not well is started again, and the rest left alone.

    Returns:
        `server`, `dashboard`, `started`, `not_ok` (what is not well and why, by part) and, if one was made, `key`.

    Raises:
        ClusterError: the port is taken, or Ray does not start.
    """
    folder = ServerFolder(settings.home)
    with folder.locked():
        state = folder.load()
        had_key = (settings.home / FILE).exists()
        started = state is None or not alive(state.pid) or state.pid not in marked(state.mark)
        if state is None or started:
            state = _start(wanted, state, settings, folder, say)
            faults = _faults(state, settings)
        elif faults := _faults(state, settings):
            say("not well: " + "; ".join(f"{name}: {why}" for name, why in faults.items()))
            faults = _mend(faults, wanted, state, settings, folder, say)
        new_key = not had_key and (settings.home / FILE).exists()
        if wanted.new_admin_key and not new_key:
            _make_key(state, settings, folder)
            new_key = True
        return _result(state, settings, started=started, new_key=new_key) | {"not_ok": faults}


def _start(wanted: Wanted, old: ServerState | None, settings: Settings, folder: ServerFolder, say: Say) -> ServerState:
    if old is not None:
        say("cleaning up after a server that has ended")
        end(old.pid, old.mark, patience_s=5)
        shutil.rmtree(old.temp_dir, ignore_errors=True)
    _check_free(wanted.host, wanted.port)
    state = _start_ray(wanted, settings, folder, say)
    say("starting the control plane and the API")
    _deploy(wanted, state, folder)
    _require_answer(state, folder)
    return state


def _mend(
    faults: Faults, wanted: Wanted, state: ServerState, settings: Settings, folder: ServerFolder, say: Say
) -> Faults:
    """Start again what can be; what is still not well then."""
    if CONTROL in faults:
        say("starting the control plane again: running jobs go on, and it takes them over")
        _restart_control(state, folder)
    if API in faults:
        say("deploying the API again")
        _deploy(wanted, state, folder)
        _require_answer(state, folder)
    return _faults(state, settings)


def _faults(state: ServerState, settings: Settings) -> Faults:
    if not _answers(state.server, 5):
        return {API: f"it does not answer at {state.server}"}
    path = settings.home / FILE
    key = path.read_text(encoding="utf-8").strip() if path.exists() else find_key(state.server)
    if key is None:
        return {}  # nobody here may ask for more
    try:
        with Client(state.server, key) as client:
            parts = client.ready()["parts"]
    except ServerError as error:
        # A key that was revoked says nothing about the server.
        return {} if error.http_status in (401, 403) else {API: error.message}
    except EaglerayError as error:
        return {API: error.message}
    return {name: part["message"] for name, part in parts.items() if not part["ok"]}


def _require_answer(state: ServerState, folder: ServerFolder) -> None:
    if not _answers(state.server, START_S):
        raise ClusterError(f"The API does not answer at {state.server}.", f"Ray's log: {folder.log}")


def _start_ray(wanted: Wanted, settings: Settings, folder: ServerFolder, say: Say) -> ServerState:
    say("starting Ray")
    return start_again(lambda: _begin_ray(wanted, settings, folder), say)


def _begin_ray(wanted: Wanted, settings: Settings, folder: ServerFolder) -> ServerState:
    ports = _free_ports(8)
    dashboard = wanted.dashboard_port or ports[0]
    # Socket paths end at 107 characters, so Ray's folder cannot lie in the home.
    temp_dir = tempfile.mkdtemp(prefix="eagleray-up-")
    mark = uuid.uuid4().hex
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", f"--port={ports[1]}", f"--temp-dir={temp_dir}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--ray-client-server-port={ports[2]}", f"--dashboard-agent-listen-port={ports[3]}"]
    command += [f"--dashboard-agent-grpc-port={ports[4]}", f"--runtime-env-agent-port={ports[5]}"]
    command += [f"--metrics-export-port={ports[6]}"]
    command += [f"--num-cpus={wanted.num_cpus}"] if wanted.num_cpus is not None else []
    command += [f"--num-gpus={wanted.num_gpus}"] if wanted.num_gpus is not None else []
    environ = ray_environ(folder) | {
        MARK: mark,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "EAGLERAY_HOME": str(settings.home),
        "EAGLERAY_STORAGE": settings.storage,
        SWITCH: PLUGIN,
    }
    with folder.log.open("w") as log:
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    state = ServerState(
        mark=mark,
        pid=process.pid,
        server=f"http://{wanted.host if wanted.host != '0.0.0.0' else '127.0.0.1'}:{wanted.port}",
        address=f"127.0.0.1:{ports[1]}",
        dashboard=f"http://127.0.0.1:{dashboard}",
        temp_dir=temp_dir,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    # Before it is up: whoever is interrupted now can still end it by `eagleray down`.
    folder.save(state)
    deadline = time.monotonic() + START_S
    while "Ray runtime started" not in folder.log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            last = " ".join(folder.log.read_text(errors="replace").split())[-500:]
            end(state.pid, mark, patience_s=5)
            shutil.rmtree(temp_dir, ignore_errors=True)
            folder.forget()
            raise ClusterError(f"Ray did not start: {last}", f"Its whole log: {folder.log}")
        time.sleep(0.2)
    return state


def ray_environ(folder: ServerFolder) -> dict[str, str]:
    """The environment of whoever talks to this Ray: the token is named by its file, not written out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") or "SERVE" in name}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder.token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # Ray's switch for machines without clusters: all of its servers then listen on the loopback address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def join_ray(state: ServerState, folder: ServerFolder) -> Any:
    """Connect this process to the server's Ray; the `ray` module."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ.update(ray_environ(folder) | {"RAY_API_SERVER_ADDRESS": state.dashboard})
    import ray  # noqa: PLC0415 - reads its environment, set just before, when it is imported

    try:
        ray.init(address=state.address, namespace="eagleray", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise ClusterError(
            f"Ray does not answer at {state.address}: {' '.join(str(error).split())[:300]}", "Try: eagleray down"
        ) from error
    return ray


def _deploy(wanted: Wanted, state: ServerState, folder: ServerFolder) -> None:
    ray = join_ray(state, folder)
    from ray import serve  # noqa: PLC0415 - see `join_ray`

    from eagleray_serve.deployment import NAME, build  # noqa: PLC0415 - imports Serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": wanted.host, "port": wanted.port})
        serve.run(build(http_arguments(wanted)), name=NAME, route_prefix="/", blocking=False)
    except EaglerayError:
        raise
    except Exception as error:
        raise ClusterError(
            f"The API could not be deployed: {' '.join(str(error).split())[-500:]}", f"Ray's log: {folder.log}"
        ) from error
    finally:
        ray.shutdown()


def http_arguments(wanted: Wanted) -> dict[str, Any]:
    """What `up` sets by itself: the host that it listens on is one that requests may name, unless others are given."""
    if wanted.host == "0.0.0.0" or os.environ.get(f"{PREFIX}ALLOWED_HOSTS"):
        return dict(wanted.http or {})
    default = HttpSettings().allowed_hosts
    return {"allowed_hosts": list(dict.fromkeys([*default, wanted.host])), **(wanted.http or {})}


def _restart_control(state: ServerState, folder: ServerFolder) -> None:
    ray = join_ray(state, folder)
    from eagleray.control.actor import connect, shut_down  # noqa: PLC0415 - see `join_ray`

    try:
        shut_down()
        connect()
    finally:
        ray.shutdown()


def _make_key(state: ServerState, settings: Settings, folder: ServerFolder) -> None:
    ray = join_ray(state, folder)
    from eagleray.control.actor import connect  # noqa: PLC0415 - see `join_ray`

    try:
        make_admin_key(connect(create=False), settings.home / FILE)
    finally:
        ray.shutdown()


def _result(state: ServerState, settings: Settings, *, started: bool, new_key: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"server": state.server, "dashboard": state.dashboard, "started": started}
    path = settings.home / FILE
    if path.exists():
        key = path.read_text(encoding="utf-8").strip()
        keep_key(state.server, key)
        found |= {"key_file": str(path)} | ({"key": key} if new_key else {})
    return found


def _answers(server: str, patience_s: float) -> bool:
    try:
        with Client(server, timeout_s=5) as client:
            client.wait_until_up(patience_s)
    except EaglerayError:
        return False
    return True


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(
                f"Nothing can listen at {host}:{port}: {error.strerror}.", "Another one: eagleray up --port 8001"
            ) from None


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now, below those that the system gives out and above those of Ray's workers."""
    found: list[int] = []
    for port in range(21000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ClusterError("This machine has no free ports between 21000 and 32000.", "End what holds them.")
