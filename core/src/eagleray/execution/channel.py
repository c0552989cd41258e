"""The line between a job's driver and its workers: progress, log lines and facts one way, `stop` the other.

Ray Train's reports come once an epoch and block until they are polled; this carries all that is more frequent. It is a
plain socket with the standard library's mutual HMAC authentication, because an actor for it would cost a process (some
120 MB and 3 CPU-seconds) per job. Messages are JSON, never pickle.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from typing import Any

from eagleray.contract.errors import ConfigError

Message = dict[str, Any]


def channel_port() -> int:
    """The port that `EAGLERAY_CHANNEL_PORT` fixes; 0: any free one.

    Raises:
        ConfigError: it is no port.
    """
    text = os.environ.get("EAGLERAY_CHANNEL_PORT", "").strip() or "0"
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigError(f"EAGLERAY_CHANNEL_PORT is '{text}'.", "It is a port from 1 to 65535; unset: any free one.")
    return int(text)


def check_port() -> None:
    """Refuse a fixed port that cannot be had, before anything is started for the job.

    Raises:
        ConfigError: it is no port, or is in use.
    """
    if not (port := channel_port()):
        return
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise _taken(port, error) from error


def _taken(port: int, error: OSError) -> ConfigError:
    return ConfigError(
        f"Workers cannot be listened to on port {port}: {error.strerror or error}.",
        "Another job of this machine may hold it; name another port with EAGLERAY_CHANNEL_PORT, or unset it.",
    )


class DriverChannel:
    """The driver's end. `receive` is called in reader threads, one per worker."""

    def __init__(self, host: str, receive: Callable[[Message], None]) -> None:
        self._secret = secrets.token_bytes(32)
        port = channel_port()
        try:
            self._listener = Listener((host, port), backlog=64)
        except OSError as error:
            raise _taken(port, error) from error
        self._receive = receive
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._connections: set[Connection] = set()
        self._workers: set[Connection] = set()
        self._stopping = False
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="eagleray-channel", daemon=True)
        self._thread.start()

    @property
    def address(self) -> dict[str, Any]:
        """What a worker needs to connect; goes to it as an argument of a remote call only."""
        host, port = self._listener.address
        return {"host": host, "port": port, "secret": self._secret.hex()}

    def stop(self) -> None:
        """Ask all workers, and those still to come, to end gracefully."""
        with self._lock:
            self._stopping = True
            workers = list(self._workers)
        for connection in workers:
            _send(connection, {"type": "stop"})

    def drain(self, timeout_s: float) -> bool:
        """Wait until workers that have ended are read to their last word; whether all were in time."""
        with self._left:
            return self._left.wait_for(lambda: not self._workers, timeout_s)

    def close(self) -> None:
        self._closed = True
        # A blocked accept() is not woken by closing its socket; a connection does it.
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.address, timeout=5).close()
        self._thread.join(5)
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _hang_up(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            if self._closed:
                connection.close()
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        """One worker, from the handshake to its end. A stranger who says nothing holds up nobody else."""
        with contextlib.suppress(OSError, EOFError, ValueError, AuthenticationError):
            with self._lock:
                self._connections.add(connection)
            deliver_challenge(connection, self._secret)
            answer_challenge(connection, self._secret)
            with self._lock:
                self._workers.add(connection)
                stopping = self._stopping
            if stopping:
                _send(connection, {"type": "stop"})
            while True:
                self._receive(json.loads(connection.recv_bytes(16 * 2**20)))
        with self._left:
            self._connections.discard(connection)
            self._workers.discard(connection)
            self._left.notify_all()
        connection.close()


class WorkerChannel:
    """A worker's end. Sending never raises and never blocks training for long: a lost driver ends the worker anyway."""

    def __init__(self, address: Message) -> None:
        self._lock = threading.Lock()
        self.stop_requested = threading.Event()
        self._connection: Connection | None = Client(
            (address["host"], address["port"]), authkey=bytes.fromhex(address["secret"])
        )
        self._thread = threading.Thread(target=self._read, args=(self._connection,), daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        with self._lock:
            if self._connection is not None and not _send(self._connection, message):
                self._connection = None

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            _hang_up(connection)
        self._thread.join(5)

    def _read(self, connection: Connection) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                if json.loads(connection.recv_bytes(2**16)).get("type") == "stop":
                    self.stop_requested.set()
        with self._lock:
            self._connection = None
        connection.close()


def _hang_up(connection: Connection) -> None:
    """End a connection so that a thread that reads from it wakes up; that thread closes it."""
    with contextlib.suppress(OSError, ValueError), socket.socket(fileno=os.dup(connection.fileno())) as shared:
        shared.shutdown(socket.SHUT_RDWR)


def _send(connection: Connection, message: Message) -> bool:
    try:
        connection.send_bytes(json.dumps(message, separators=(",", ":")).encode())
    except (OSError, ValueError):
        return False
    return True
