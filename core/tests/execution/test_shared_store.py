"""A folder counts as the store of several nodes only where all see the same one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eagleray.contract.errors import ClusterError
from eagleray.execution.shared_store import require_shared, store_id
from eagleray.settings import S3Access
from eagleray.storage.local import LocalStore
from eagleray.storage.s3.store import S3Store


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eagleray.execution.shared_store.ray.util.get_node_ip_address", lambda: "10.0.0.7")


def test_a_folder_is_marked_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert store_id(store) == store_id(LocalStore(tmp_path / "store"))
    assert store_id(store) != store_id(LocalStore(tmp_path / "other"))


def test_the_same_folder_is_accepted_and_a_bucket_needs_no_mark(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    require_shared(store, store_id(store))
    bucket = S3Store.open("s3://bucket", S3Access("http://127.0.0.1:9", access_key_id="a", secret_access_key="b"))
    assert store_id(bucket) is None
    require_shared(bucket, None)


@pytest.mark.parametrize("other", ["absent", "another"])
def test_another_nodes_own_folder_is_refused_with_s3_as_the_way(tmp_path: Path, other: str) -> None:
    store = LocalStore(tmp_path / "store")
    expected = store_id(store)
    shutil.rmtree(store.root)
    if other == "another":
        store_id(store)
    with pytest.raises(ClusterError, match=r"is a folder that node 10\.0\.0\.7 does not share") as caught:
        require_shared(store, expected)
    assert "s3://bucket/prefix" in caught.value.hint
