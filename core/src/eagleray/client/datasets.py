"""Datasets of a server: uploads that go on where they ended, imports, and what is made of stored versions."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eagleray.client.downloads import download
from eagleray.client.errors import ServerError
from eagleray.client.transport import TRIES, Transport
from eagleray.contract.errors import ConfigError
from eagleray.settings import load_settings

DATASETS = "/api/v1/datasets"
UPLOADS = "/api/v1/uploads"
# As much as a server takes in one part.
PART_BYTES = 8 << 20
POLL_S = (0.1, 2.0)
ENDED = ("done", "failed", "lost")
Fields = dict[str, Any]
Progress = Callable[[str, int, int | None], None]


def quiet(stage: str, done: int, total: int | None) -> None:
    """Says nothing."""


class Datasets:
    """The datasets of one server, as `Client.datasets`. Values are plain data with the API's field names."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    def all(self) -> list[Fields]:
        """Every dataset, by name."""
        return self._items(DATASETS)

    def show(self, dataset: str) -> Fields:
        """One dataset, by its name or id."""
        return self._get(_path(dataset))

    def versions(self, dataset: str) -> list[Fields]:
        """Newest first."""
        return self._items(f"{_path(dataset)}/versions")

    def version(self, dataset: str, number: int) -> Fields:
        return self._get(_path(dataset, number))

    def files(self, dataset: str, number: int) -> Iterator[Fields]:
        """The version's files, by path."""
        after: str | None = ""
        while after is not None:
            query = {"limit": 200, "after": after or None}
            page = self._http.call("GET", f"{_path(dataset, number)}/files", query=query)
            yield from page["items"]
            after = page.get("next")

    def compare(self, dataset: str, a: int, b: int | None = None) -> Fields:
        """What differs in version `b` (None: the newest), seen from version `a`."""
        found: Fields = self._http.call("GET", f"{_path(dataset)}/compare", query={"a": a, "b": b})
        return found

    def delete(self, dataset: str, number: int | None = None, *, progress: Progress = quiet) -> None:
        """One version, or all of it; returns once it is gone."""
        answer: Fields = self._http.call("DELETE", _path(dataset, number))
        if "state" in answer:
            self.wait(answer, progress=progress)

    def upload(self, file: Path, *, progress: Progress = quiet) -> str:
        """Send a file in parts; the upload's id, for `import_dataset`.

        The same file again goes on where it ended, also by another process of this machine.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            size_bytes = file.stat().st_size
            sha256 = _sha256(file, size_bytes, progress)
            note = _note(self._http.server, sha256)
            upload = self._known(note) or self._announce(note, size_bytes, sha256, file.name)
            self._send(file, upload, progress)
        except OSError as error:
            raise ConfigError(f"Cannot read '{file}': {error.strerror or error}.", "Name another file.") from None
        note.unlink(missing_ok=True)
        return str(upload["id"])

    def import_dataset(self, wish: Mapping[str, Any], *, idempotency_key: str | None = None) -> Fields:
        """Begin an import of a `source` or an `upload_id`; see `wait`."""
        return self._begin(DATASETS, wish, idempotency_key or uuid.uuid4().hex)

    def mend(self, dataset: str, number: int, *, idempotency_key: str | None = None, **wish: Any) -> Fields:
        """Begin to make a mended copy of a version the newest one; `note`, `allow_loss`."""
        return self._begin(f"{_path(dataset, number)}/mend", wish, idempotency_key or uuid.uuid4().hex)

    def validate(self, dataset: str, number: int, **wish: Any) -> Fields:
        """Begin a report on a version; `task`, `pictures`. See `wait` and `result`."""
        return self._begin(f"{_path(dataset, number)}/validation", wish)

    def preview(self, dataset: str, number: int, **wish: Any) -> Fields:
        """Begin a contact sheet of a version; `images`, `seed`."""
        return self._begin(f"{_path(dataset, number)}/preview", wish)

    def convert(self, dataset: str, number: int, format: str, **wish: Any) -> Fields:
        """Begin a copy of a version in another format; `task`, `allow_loss`, and what an import may change."""
        return self._begin(f"{_path(dataset, number)}/conversion", {"format": format, **wish})

    def wait(self, begun: Fields, *, progress: Progress = quiet) -> Fields:
        """An import or a task once it is done.

        Raises:
            ServerError: it failed, in the server's words.
        """
        pause_s = POLL_S[0]
        while begun["state"] not in ENDED:
            progress(begun["stage"] or "waiting", begun["done"], begun["total"])
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, POLL_S[1])
            begun = self._get(begun["links"]["self"])
        if begun["state"] == "failed":
            error = begun["error"]
            raise ServerError(error["message"], error["hint"], {**error, "status": 409})
        if begun["state"] == "lost":
            raise ServerError("The server's process that did this has ended.", "Ask again; nothing is stored twice.")
        return begun

    def report(self, done: Fields) -> Fields:
        """What a validation found."""
        return self._get(done["links"]["result"])

    def result(self, done: Fields, into: Path) -> Path:
        """What a task made, as a file; a broken transfer goes on."""
        return download(self._http, done["links"]["result"], f"{done['dataset']}-{done['version']}", into)

    def archive(self, dataset: str, number: int, into: Path) -> Path:
        """The version's files as a zip archive."""
        return download(self._http, f"{_path(dataset, number)}/archive", f"{dataset}-{number}.zip", into)

    def _known(self, note: Path) -> Fields | None:
        """An upload of this file that a process began before."""
        with suppress(OSError, ServerError):
            return self._get(f"{UPLOADS}/{quote(note.read_text(encoding='ascii'), safe='')}")
        return None

    def _announce(self, note: Path, size_bytes: int, sha256: str, filename: str) -> Fields:
        body = {"size_bytes": size_bytes, "sha256": sha256, "filename": filename}
        made: Fields = self._http.call("POST", UPLOADS, body=body, repeat=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(made["id"], encoding="ascii")
        return made

    def _send(self, file: Path, upload: Fields, progress: Progress) -> None:
        missing = list(_missing(upload["received"], upload["size_bytes"]))
        sent = upload["size_bytes"] - sum(end - start for start, end in missing)
        with file.open("rb") as source:
            for start, end in missing:
                progress("uploading", sent, upload["size_bytes"])
                source.seek(start)
                self._put(f"{UPLOADS}/{upload['id']}/parts/{start}", source.read(end - start))
                sent += end - start
        progress("uploading", sent, upload["size_bytes"])

    def _put(self, path: str, data: bytes) -> None:
        headers = {"X-Part-Sha256": hashlib.sha256(data).hexdigest(), "Content-Type": "application/octet-stream"}
        for attempt in range(1, TRIES + 1):
            try:
                self._http.call("PUT", path, body=data, headers=headers, repeat=True)
                return
            except ServerError as error:
                # It was damaged on its way, which the server saw.
                if error.code != "upload" or attempt == TRIES:
                    raise

    def _begin(self, path: str, wish: Mapping[str, Any], idempotency_key: str | None = None) -> Fields:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        # A report, a preview or a copy is made once, however often it is asked for.
        begun: Fields = self._http.call("POST", path, body=dict(wish), headers=headers, repeat=True)
        return begun

    def _get(self, path: str) -> Fields:
        found: Fields = self._http.call("GET", path)
        return found

    def _items(self, path: str) -> list[Fields]:
        items: list[Fields] = self._http.call("GET", path)["items"]
        return items


def _path(dataset: str, number: int | None = None) -> str:
    path = f"{DATASETS}/{quote(dataset, safe='')}"
    return path if number is None else f"{path}/versions/{number}"


def _missing(received: list[list[int]], size_bytes: int) -> Iterator[tuple[int, int]]:
    """The parts that are still to be sent, `[start, end)`, in order."""
    at = 0
    for start, end in [*received, [size_bytes, size_bytes]]:
        for begin in range(at, start, PART_BYTES):
            yield begin, min(begin + PART_BYTES, start)
        at = end


def _sha256(file: Path, size_bytes: int, progress: Progress) -> str:
    digest, done = hashlib.sha256(), 0
    with file.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            done += len(chunk)
            progress("reading the archive", done, size_bytes)
    return digest.hexdigest()


def _note(server: str, sha256: str) -> Path:
    """Where it is kept which upload of this file has begun."""
    return load_settings().home / "uploads" / hashlib.sha256(f"{server}\n{sha256}".encode()).hexdigest()[:32]
