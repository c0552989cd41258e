"""The control plane across the actor's border: `Commands` with timeouts, and errors as they were raised."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from eagleray.contract.errors import ClusterError
from eagleray.control.answering import METHODS, one_line
from eagleray.control.commands import Commands
from eagleray.control.errors import ControlPlaneAwayError

NAME = "eagleray-control"
NAMESPACE = "eagleray"
CALL_S = 40.0
# How long one that is starting is waited for.
START_S = 60.0
# What `eagleray up` marks the processes of its cluster with.
_UP_MARK = "EAGLERAY_CLUSTER"
# Safe to send twice, so a restart of the actor in the middle is waited out.
_REPEATABLE = frozenset({"record", "index_datasets", "admission", "wait_for_events", "would_wait", "health"})


class RemoteCommands:
    """`Commands` through the actor's name; `cast` to the protocol by `commands_of`.

    Args:
        create: makes the actor where there is none, also where one was lost later on; None: that is an error.
    """

    def __init__(self, timeout_s: float = CALL_S, *, create: Callable[[], Any] | None = None) -> None:
        self._timeout_s = timeout_s
        self._create = create
        self._actor: Any = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(name)
        return functools.partial(self._call, name)

    def _call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return self._ask(method, arguments, keywords, max(deadline - time.monotonic(), 1.0))
            except RayActorError as error:
                with self._lock:
                    self._actor = None
                if method not in _REPEATABLE or time.monotonic() + 1 > deadline:
                    raise _away(f"it is being restarted ({type(error).__name__}: {one_line(error)})") from error
                time.sleep(0.5)

    def _ask(self, method: str, arguments: Any, keywords: Any, timeout_s: float) -> Any:
        if method == "wait_for_events":
            timeout_s += float(arguments[1] if len(arguments) > 1 else keywords.get("timeout_s", 0.0))
        try:
            answer = ray.get(self._handle().call.remote(method, arguments, keywords), timeout=timeout_s)
        except GetTimeoutError as error:
            raise _away(f"no answer within {timeout_s:.0f} s") from error
        except RayActorError:
            raise
        except RayError as error:
            raise _away(one_line(error)) from error
        if "error" in answer:
            raise answer["error"]
        return answer["value"]

    def _handle(self) -> Any:
        with self._lock:
            if self._actor is None:
                try:
                    self._actor = ray.get_actor(NAME, namespace=NAMESPACE)
                except ValueError as error:
                    if self._create is None:
                        raise _away("there is none on this cluster") from error
                    self._actor = self._create()
            return self._actor


def find(timeout_s: float = CALL_S, *, patience_s: float = 0.0) -> Commands:
    """The control plane of the cluster that this process is connected to; needs no database package.

    Args:
        patience_s: how long one that is not there, or not up yet, is waited for.

    Raises:
        ControlPlaneAwayError: there is none, or it does not answer.
        ClusterError: this process is connected to no cluster.
    """
    if not ray.is_initialized():
        raise ClusterError("This process is connected to no Ray cluster.", "Call ray.init() first, or: eagleray up")
    commands = commands_of(RemoteCommands(timeout_s))
    wait_until_up(commands, patience_s)
    return commands


def wait_until_up(commands: Commands, timeout_s: float) -> None:
    """Raises what keeps it from starting: at once where that does not pass by itself, else after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            commands.health()
            return
        except ControlPlaneAwayError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.5)


def is_expected() -> bool:
    """Whether this process's cluster has a control plane, be it up or not, or will have one: `eagleray up` made it."""
    try:
        ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return _UP_MARK in os.environ
    return True


def commands_of(remote: RemoteCommands) -> Commands:
    return cast(Commands, remote)


def _away(why: str) -> ControlPlaneAwayError:
    return ControlPlaneAwayError(f"The control plane does not answer: {why}.", "Try: eagleray status; eagleray up")
