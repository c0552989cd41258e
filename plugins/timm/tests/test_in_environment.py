"""Runs the tests of `in_environment/` with the Python of the plugin's own environment, which has no pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.testing.environment import python_of, run_pytest
from eagleray_timm.framework import describe


@pytest.mark.framework
@pytest.mark.timeout(1800)
def test_the_adapter_in_its_own_environment(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_TEST_REAL_DATA", str(real_data))
    tests = Path(__file__).parent / "in_environment"
    printed = run_pytest(python_of(describe("0")), tests, ["eagleray_timm"], tmp_path)
    assert "skipped" not in printed
