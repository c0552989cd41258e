"""Several echo workers as one: sums over all of them, through the first, by plain sockets."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from eagleray.contract import TrainingError
from eagleray.testing.echo_model import Array, Parameters

MEETING_S = 60.0
EXCHANGE_S = 600.0


class EchoGroup:
    """The workers of one attempt; every worker makes the same calls in the same order.

    Attributes:
        others: rank 0's connections to all others; every other worker's one to rank 0; nobody's where there is one.
    """

    def __init__(self, rank: int, others: list[socket.socket]) -> None:
        self.rank = rank
        self.others = others

    def sum(self, arrays: Parameters) -> Parameters:
        """The sums over all workers of arrays that have the same names and shapes everywhere, bit for bit alike."""
        if not self.others:
            return arrays
        flat = np.concatenate([arrays[name].ravel() for name in sorted(arrays)])
        if self.rank == 0:
            for other in self.others:
                flat = flat + _receive(other, flat.size)
            for other in self.others:
                other.sendall(_message(flat))
        else:
            self.others[0].sendall(_message(flat))
            flat = _receive(self.others[0], flat.size)
        ends = np.cumsum([arrays[name].size for name in sorted(arrays)])[:-1]
        parts = zip(sorted(arrays), np.split(flat, ends), strict=True)
        return {name: part.reshape(arrays[name].shape) for name, part in parts}

    def any(self, flag: bool) -> bool:
        """Whether it is true for any worker: what one has been told, all act on in the same batch."""
        return bool(self.sum({"": np.array([float(flag)])})[""][0])


@contextmanager
def join(rank: int, world_size: int) -> Iterator[EchoGroup]:
    """The group that meets at MASTER_ADDR:MASTER_PORT; a single worker meets nobody.

    Raises:
        TrainingError: not all workers came within a minute.
    """
    with ExitStack() as stack:
        others: list[socket.socket] = []
        if world_size > 1:
            address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
            try:
                found = _listen(address, world_size - 1) if rank == 0 else [_call(address)]
            except OSError as error:
                raise TrainingError(f"Worker {rank} of {world_size} did not meet the others: {error}.") from error
            others = [stack.enter_context(other) for other in found]
        for other in others:
            other.settimeout(EXCHANGE_S)
        yield EchoGroup(rank, others)


def _listen(address: tuple[str, int], count: int) -> list[socket.socket]:
    with socket.create_server(address) as server:
        server.settimeout(MEETING_S)
        return [server.accept()[0] for _ in range(count)]


def _call(address: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + MEETING_S
    while True:
        try:
            return socket.create_connection(address, timeout=MEETING_S)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _message(values: Array) -> bytes:
    return struct.pack("!Q", values.size) + values.astype("<f8").tobytes()


def _receive(other: socket.socket, size: int) -> Array:
    (sent,) = struct.unpack("!Q", _exactly(other, 8))
    if sent != size:
        raise TrainingError(f"Another worker sent {sent} numbers instead of {size}.", "Their configs differ.")
    return np.frombuffer(_exactly(other, 8 * size), dtype="<f8")


def _exactly(other: socket.socket, count: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < count:
        chunk = other.recv(count - len(chunks))
        if not chunk:
            raise ConnectionResetError("Connection closed by peer: another worker is gone.")
        chunks += chunk
    return bytes(chunks)
