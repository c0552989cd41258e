"""Every store keeps the same promises: a folder, the S3 server, and the server behind R2's rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.storage.local import LocalStore
from eagleray.storage.store import Store
from eagleray.testing.s3_proxy import StrictProxy
from eagleray.testing.stores import StoreConformance

from .conftest import OpenS3


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "store")


class TestS3Store(StoreConformance):
    @pytest.fixture
    def store(self, open_s3: OpenS3) -> Store:
        return open_s3()


class TestS3StoreAsStrictAsR2(StoreConformance):
    @pytest.fixture
    def store(self, open_s3: OpenS3, proxy: StrictProxy) -> Store:
        return open_s3(proxy.access)
