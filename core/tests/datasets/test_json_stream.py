"""Reading JSON of any size by a window: what it gives, and that its work grows with the file and no faster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eagleray.datasets.formats import json_stream
from eagleray.datasets.formats.json_stream import JsonStream

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "x"]), inner),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(PLAIN, max_size=30), indent=st.sampled_from([None, 1]), chunk=st.integers(1, 300))
def test_a_stream_gives_what_the_whole_file_holds(
    items: list[Any], indent: int | None, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"other": items, "list": items, "end": {"a": items}}, indent=indent))
    content = path.read_bytes()

    with JsonStream(path) as stream:
        found = []
        for key in stream.keys():  # noqa: SIM118 - a stream of keys, not a mapping
            if key != "list":
                stream.skip()
                continue
            for batch in stream.batches():
                found += [content[offset : offset + length] for offset, length in zip(*batch.spans(), strict=True)]

    assert [json.dumps(json.loads(each)) for each in found] == [json.dumps(each) for each in items]


class Counting:
    """A decoder that counts the bytes it is given."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.bytes = inner, 0

    def decode(self, text: bytes) -> Any:
        self.bytes += len(text)
        return self.inner.decode(text)

    def raw_decode(self, text: str) -> Any:
        self.bytes += len(text)
        return self.inner.raw_decode(text)


MANY = {
    "lists of objects": [{"parts": [{"a": 1}] * 400}] * 60,
    "objects of objects": [{"parts": {str(n): {"a": 1} for n in range(400)}}] * 60,
    "one element": [{"parts": [{"a": 1}] * 20_000}],
    "small values": [0] * 100_000,
    "not JSON": [float("nan")] * 60_000,
}


@pytest.mark.parametrize("items", MANY.values(), ids=MANY)
def test_each_byte_is_decoded_a_bounded_number_of_times(
    items: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 1 << 16)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"list": items}))
    counting = [Counting(json_stream.RAWS), Counting(json_stream.SCANNER)]
    monkeypatch.setattr(json_stream, "RAWS", counting[0])
    monkeypatch.setattr(json_stream, "SCANNER", counting[1])

    with JsonStream(path) as stream:
        assert next(stream.keys()) == "list"
        count = sum(len(batch.raws or [None]) for batch in stream.batches())

    assert count == len(items)
    assert sum(each.bytes for each in counting) < 400 * path.stat().st_size
