"""The adapter against Transformers' own types, which the project's environment has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.testing.environment import check_types, python_of
from eagleray_huggingface.framework import describe


@pytest.mark.framework
@pytest.mark.timeout(1800)
def test_the_adapter_fits_the_types_of_its_framework(tmp_path: Path) -> None:
    check_types(python_of(describe("0")), "eagleray_huggingface", tmp_path)
