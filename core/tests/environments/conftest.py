"""Wheels made on the spot and an index that is a folder: real uv, real environments, no network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.environments.lock import Lock, parse_lock

MakeLock = Callable[..., Lock]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the environments are built."""
    return tmp_path / "envs"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only index that uv may look at, and a cache of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


@pytest.fixture
def make_lock(wheels: Path) -> MakeLock:
    """`make_lock(tiny="x = 1", …)`: a lock of packages at 1.0, each one module with that source."""

    def make(reference: str = "tests:locks/tiny.txt", **sources: str) -> Lock:
        lines = [f"{name}==1.0 --hash=sha256:{make_wheel(wheels, name, code)}" for name, code in sources.items()]
        return parse_lock("\n".join(lines), reference)

    return make


def make_wheel(folder: Path, name: str, source: str) -> str:
    """Write `{name}-1.0-py3-none-any.whl`; returns its sha256."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text.encode())}\n"
        for path, text in files.items()
    )
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()
