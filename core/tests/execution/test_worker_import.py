"""A worker's import of the plugin's adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.contract import PluginError
from eagleray.contract.failures import FailureKind
from eagleray.execution.failures import WorkerRaised, classify
from eagleray.execution.worker import _load
from eagleray.settings import Settings


def test_one_that_does_not_come_back_ends_as_the_plugins_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_that_hangs.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings = Settings(tmp_path, "unused", frozenset(), adapter_import_timeout_s=0.3)
    with pytest.raises(PluginError, match=r"'adapter_that_hangs:Adapter' .* took longer than 0\.3 s") as caught:
        _load("adapter_that_hangs:Adapter", settings)
    assert "EAGLERAY_ADAPTER_IMPORT_TIMEOUT_S=0.9" in caught.value.hint
    raised = WorkerRaised.of(error="PluginError", message=caught.value.message, hint=caught.value.hint)
    assert classify(raised).kind is FailureKind.PLUGIN
