"""Puts the files of a new dataset in place: pictures linked where that can be, under names nobody else has."""

# This runs once for each of a million files, and a Path costs more than the call that it wraps.
# ruff: noqa: PTH103, PTH114, PTH118, PTH122, PTH123, PTH211

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import mkdtemp

from eagleray.contract import DatasetError, StorageError
from eagleray.contract.errors import DiskFullError
from eagleray.datasets.report import shown

# Of linux/fs.h: share the blocks of another file until one of both is written to.
FICLONE = 0x40049409
COPY_BYTES = 1 << 20
SPLIT_FOLDERS = {"train": "train", "val": "valid", "test": "test"}


class Placing(StrEnum):
    """How pictures come into a new dataset: by a hard link, or as said here where the file system has none.

    OWN never links: what is written into the new dataset changes nothing else, and removing the source frees its space.
    """

    COPY = "copy"
    SYMLINK = "symlink"
    OWN = "own"


# Files a thread takes at once, and how many such lots may wait: what is to be written stays bounded in memory.
LOT = 128
WAITING = 16
THREADS = 3


@dataclass
class Files:
    """The folder that a dataset is written into, by a few threads: names are made in several folders at once.

    To be used as a context; at its end every file is there, or the first error is raised.

    Attributes:
        placing: whether pictures are linked, and what is done where they cannot be.
        renamed: how many pictures got another name because theirs was taken.
        on_place: puts a picture there in another way, a mended copy say; returns False to leave it to `place`.
    """

    root: Path
    placing: Placing = Placing.COPY
    renamed: int = 0
    on_place: Callable[[Path, Path], bool] | None = None
    _taken: set[str] = field(default_factory=set)
    _folders: dict[str, str] = field(default_factory=dict)
    _lots: dict[Callable[..., None], list[tuple[object, ...]]] = field(default_factory=dict)
    _running: deque[Future[None]] = field(default_factory=deque)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS))

    def __enter__(self) -> Files:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                for doing, lot in self._lots.items():
                    self._running.append(self._threads.submit(each, doing, lot))
                while self._running:
                    self._running.popleft().result()
        finally:
            self._threads.shutdown(cancel_futures=True)

    def _later(self, doing: Callable[..., None], *what: object) -> None:
        lot = self._lots.setdefault(doing, [])
        lot.append(what)
        if len(lot) == LOT:
            del self._lots[doing]
            self._running.append(self._threads.submit(each, doing, lot))
            while len(self._running) > WAITING or (self._running and self._running[0].done()):
                self._running.popleft().result()

    def folder(self, place: str) -> str:
        """`place` below the root, made if need be; a plain path, for it is asked for once a picture."""
        path = self._folders.get(place)
        if path is None:
            path = self._folders[place] = os.path.join(self.root, place)
            os.makedirs(path, exist_ok=True)
        return path

    def claim(self, space: str, name: str, *, flat: bool = False) -> str:
        """A name for a picture that nobody else has in `space`, not even with another suffix or in another case.

        `flat` turns folders in the name into a prefix.
        """
        stem, suffix = os.path.splitext(name.replace("/", "_") if flat else name)
        wanted, number = stem, 1
        while (key := f"{space}\0{wanted.casefold()}") in self._taken:
            number += 1
            wanted = f"{stem}-{number}"
        self._taken.add(key)
        self.renamed += number > 1
        return wanted + suffix

    def place(self, source: Path, target: str) -> None:
        """Link the picture `source` to `target` below the root, or put it there as `placing` says."""
        path = self._path(target)
        if self.on_place is not None and self.on_place(source, Path(path)):
            return
        self._later(put, source, path, self.placing)

    def write_text(self, target: str, text: str) -> None:
        self._later(write_new, self._path(target), text)

    def _path(self, target: str) -> str:
        """Where `target` goes, its folder made."""
        folder, _, name = target.rpartition("/")
        return f"{self.folder(folder)}/{name}"


def each(doing: Callable[..., None], lot: list[tuple[object, ...]]) -> None:
    for what in lot:
        doing(*what)


def put(source: Path, path: str, placing: Placing) -> None:
    """Hard-link `source`, or do what `placing` says where that cannot be. Raises DatasetError, OSError."""
    # A hard link to a symbolic link would be one, too, and lead nowhere from the new dataset.
    real = os.path.realpath(source) if os.path.islink(source) else source
    if placing is Placing.OWN:
        copy_file(real, path)
        return
    try:
        os.link(real, path)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES):
            raise DatasetError(f"{shown(source)} cannot be put into the new dataset: {error.strerror}.") from None
        if placing is Placing.SYMLINK:
            os.symlink(real, path)
        else:
            shutil.copyfile(real, path)


def copy_file(source: str | Path, path: str) -> None:
    """A copy that takes space of its own only where it is changed, if the file system can. Raises OSError."""
    with open(source, "rb") as read, open(path, "xb") as written:
        try:
            fcntl.ioctl(written.fileno(), FICLONE, read.fileno())
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOTSUP, errno.ENOSYS, errno.EPERM):
                raise
            shutil.copyfileobj(read, written, COPY_BYTES)


def write_new(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        content = memoryview(text.encode("utf-8"))
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(into: Path) -> Iterator[Path]:
    """A folder beside `into` that becomes it when the block ends well, and vanishes when it does not.

    Raises:
        DatasetError: `into` holds something.
        DiskFullError: there is no room.
        StorageError: a file cannot be read or written.
    """
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise DatasetError(f"{shown(into)} is not an empty folder.", "Name a folder that does not exist yet.")
    into.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=f".{into.name}.", suffix=".partial", dir=into.parent))
    try:
        yield partial
        partial.chmod(0o755)
        if into.is_dir():
            into.rmdir()
        partial.rename(into)
    except OSError as error:
        place = f" ({shown(error.filename)})" if error.filename else ""
        kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(
            f"The new dataset {shown(into)} cannot be made: {error.strerror or error}{place}.",
            "Free some space, or name another folder; nothing was left behind.",
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
