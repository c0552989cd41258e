from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from eagleray.registry import DatasetRegistry
from eagleray.settings import load_settings
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_detection_dataset


@pytest.fixture(scope="session")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detection dataset of 8 pictures, to be copied."""
    return write_detection_dataset(tmp_path_factory.mktemp("data") / "coins")


@pytest.fixture
def folder(coins: Path, tmp_path: Path) -> Path:
    """A copy of `coins` that a test may change."""
    return Path(shutil.copytree(coins, tmp_path / "source"))


@pytest.fixture
def registry(tmp_path: Path) -> DatasetRegistry:
    settings = replace(load_settings(), home=tmp_path / "home", dataset_hosts=frozenset(), dataset_buckets=frozenset())
    return DatasetRegistry(LocalStore(tmp_path / "store"), settings)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    def read(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read
