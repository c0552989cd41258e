"""Reads a JSON file of any size piece by piece: a window of it is in memory, never the whole.

msgspec decodes the elements of an array a window at a time; where an element ends is found by letting it try. Elements
that are not JSON but that Python writes (`NaN`) are handed on one by one, so that what is wrong can be said by its row.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from eagleray.contract import DatasetError
from eagleray.datasets.report import shown

CHUNK = 1 << 20
MAX_ELEMENT = 16 << 20
MAX_DEPTH = 32
# Cuts of a window that may fail; then its elements are taken one by one. An element that is full of objects of its own
# has a thousand places that look like its end, and each try decodes the window again.
MAX_CUTS = 32
SPACE = b" \t\r\n"
NOT_SPACE = re.compile(rb"[^ \t\r\n]")
PLACE = re.compile(r"trailing characters \(byte (\d+)\)")
FAULT = re.compile(r"\(byte (\d+)\)")
RAWS: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
SCANNER = json.JSONDecoder()
FIX = "Export the file again, or restore it from a copy."


@dataclass(frozen=True)
class Batch:
    """Whole elements of an array.

    Attributes:
        offset: of `text[1]` in the file; `text` is the elements between brackets.
        raws: each element's own bytes; None for a single element that is not strict JSON.
    """

    offset: int
    text: bytes
    raws: list[msgspec.Raw] | None

    def spans(self) -> tuple[list[int], list[int]]:
        """Offsets in the file and lengths of the elements."""
        if self.raws is None:
            return [self.offset], [len(self.text) - 2]
        lengths = list(map(len, self.raws))
        offsets, at, find, before = [], 1, self.text.find, self.offset - 1
        for raw, length in zip(self.raws, lengths, strict=True):
            at = find(raw, at)
            offsets.append(before + at)
            at += length
        return offsets, lengths


class JsonStream:
    """A JSON object, read from its first key to its last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self._base = 0
        self._at = 0
        # Elements before this place in the file are taken one by one.
        self._singly = 0
        self._buffer = self._file.read(CHUNK)
        self._ended = len(self._buffer) < CHUNK
        if self._buffer.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in self._buffer[:4]:
            self._file.close()
            raise DatasetError(f"{shown(path)} is UTF-16 or UTF-32, not UTF-8 text.", "Save the file as UTF-8.")
        self.marked = self._buffer.startswith(codecs.BOM_UTF8)
        self._at = len(codecs.BOM_UTF8) if self.marked else 0

    def __enter__(self) -> JsonStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def keys(self) -> Iterator[str]:
        """The keys of the object; the caller takes each one's value by `batches` or `skip` before the next."""
        self._expect(b"{")
        if self._next() == b"}":
            self._at += 1
        else:
            while True:
                if self._next() != b'"':
                    raise self._broken("a key is expected")
                try:
                    key: str = msgspec.json.decode(self._value(), type=str)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise self._broken("a key is not text") from None
                self._expect(b":")
                yield key
                if self._next() != b",":
                    break
                self._at += 1
            self._expect(b"}")
        if self._next():
            raise self._broken("something follows the end")

    def batches(self) -> Iterator[Batch]:
        """The elements of an array. Raises DatasetError where the value is no array, or is broken."""
        self._expect(b"[")
        if self._next() == b"]":
            self._at += 1
            return
        while True:
            found = self._batch()
            yield found
            byte = self._next()
            if byte not in (b",", b"]"):
                raise self._broken("a comma or the end of a list is expected")
            self._at += 1
            if byte == b"]":
                return
            self._next()

    def skip(self, depth: int = 0) -> None:
        """Leave out a value, whatever it is."""
        byte = self._next()
        if byte == b"[":
            for _ in self.batches():
                pass
        elif byte == b"{" and depth < MAX_DEPTH:
            self._at += 1
            while self._next() != b"}":
                self._value()
                self._expect(b":")
                self.skip(depth + 1)
                if self._next() == b",":
                    self._at += 1
                elif self._next() != b"}":
                    raise self._broken("a comma or the end of an object is expected")
            self._at += 1
        else:
            self._value()

    def _batch(self) -> Batch:
        """As many elements as the window holds whole, by letting msgspec try where they end."""
        self._fill(CHUNK)
        stop, buffer, at = len(self._buffer), self._buffer, self._at
        offset = self._base + at
        cuts = MAX_CUTS if offset >= self._singly else 0
        while cuts and (cut := buffer.rfind(b"},", at, stop)) >= 0:
            text = b"[" + buffer[at : cut + 1] + b"]"
            try:
                found = RAWS.decode(text)
            except RecursionError:
                raise self._broken("nested too deeply") from None
            except msgspec.DecodeError as error:
                if closed := PLACE.search(str(error)):
                    # The list ends inside the window; this byte, the first behind it, is counted from 1.
                    text = text[: int(closed[1]) - 1].rstrip(SPACE)
                    self._at = at + len(text) - 2
                    return Batch(offset, text, RAWS.decode(text))
                fault = FAULT.search(str(error))
                stop = min(cut + 1, at + int(fault[1]) - 1) if fault else cut
                cuts -= 1
                continue
            self._at = cut + 1
            return Batch(offset, text, found)
        if not cuts:
            self._singly = max(self._singly, self._base + len(buffer))
        return self._single()

    def _single(self) -> Batch:
        value = self._value()
        text = b"[" + value + b"]"
        try:
            return Batch(self._base + self._at - len(value), text, RAWS.decode(text))
        except (msgspec.DecodeError, RecursionError):
            return Batch(self._base + self._at - len(value), text, None)

    def _value(self) -> bytes:
        """The bytes of one value, by Python's own scanner, which also takes `NaN`."""
        self._next()
        # Small at first: a file of a million small values would else be copied a thousand times over.
        size = 1 << 10
        while True:
            self._fill(size)
            # Latin-1 keeps every byte one character, so places in the text are places in the file.
            text = self._buffer[self._at : self._at + size].decode("latin-1")
            whole = len(self._buffer) - self._at < size
            try:
                _, end = SCANNER.raw_decode(text)
            except (json.JSONDecodeError, ValueError) as error:
                if whole:
                    raise self._broken(f"{error}".partition(":")[0]) from None
            except RecursionError:
                raise self._broken("nested too deeply") from None
            else:
                if end < len(text) or whole:
                    value = self._buffer[self._at : self._at + end]
                    self._at += end
                    return value
            if size >= MAX_ELEMENT:
                raise self._broken(f"one value is longer than {MAX_ELEMENT} bytes")
            size *= 4

    def _fill(self, size: int) -> None:
        """Have `size` bytes from here in the buffer, or all that there are."""
        missing = size - (len(self._buffer) - self._at)
        if missing > 0 and not self._ended:
            read = self._file.read(max(missing, CHUNK))
            self._ended = len(read) < max(missing, CHUNK)
            self._base += self._at
            self._buffer = self._buffer[self._at :] + read
            self._at = 0

    def _next(self) -> bytes:
        """The next byte that is not white space, not taken; empty at the end of the file."""
        while True:
            if found := NOT_SPACE.search(self._buffer, self._at):
                self._at = found.start()
                return found[0]
            self._at = len(self._buffer)
            if self._ended:
                return b""
            self._fill(1)

    def _expect(self, byte: bytes) -> None:
        if (found := self._next()) != byte:
            here = f"'{found.decode('latin-1')}'" if found else "the end of the file"
            raise self._broken(f"'{byte.decode()}' is expected, not {here}")
        self._at += 1

    def _broken(self, what: str) -> DatasetError:
        return DatasetError(f"{shown(self.path)} is broken at byte {self._base + self._at}: {shown(what)}.", FIX)
