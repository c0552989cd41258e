"""The API is served on a Ray with a token only."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from eagleray.contract.errors import ConfigError
from eagleray_serve import ray_token
from eagleray_serve.ray_token import check_ray
from eagleray_serve.settings import load_http_settings


def test_an_open_ray_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_token, "is_token_auth_enabled", lambda: False)
    with pytest.raises(ConfigError, match="asks for no token") as refused:
        check_ray(allow_open=False)
    assert "RAY_AUTH_MODE=token" in refused.value.hint
    assert "allow_open_ray" in refused.value.hint


def test_an_open_ray_can_be_allowed_and_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_token, "is_token_auth_enabled", lambda: False)
    assert not load_http_settings().allow_open_ray
    with caplog.at_level(logging.WARNING):
        check_ray(load_http_settings({"allow_open_ray": True}).allow_open_ray)
    assert "asks for no token" in caplog.text


REPLICA = """
import asyncio
from eagleray_serve.deployment import Api
from eagleray_serve.settings import load_http_settings
replica = object.__new__(Api.func_or_class)
asyncio.run(type(replica).__init__(replica, load_http_settings().model_dump(mode="json")))
"""


@pytest.mark.parametrize(("mode", "served"), [("token", True), ("disabled", False)])
def test_a_replica_asks_ray_before_anything_else(mode: str, served: bool) -> None:
    environ = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "t" * 40}
    result = subprocess.run([sys.executable, "-c", REPLICA], env=environ, capture_output=True, text=True)
    assert ("asks for no token" in result.stderr) is not served
    assert ("connected to no Ray cluster" in result.stderr) is served, "it has gone on, and there is no cluster here"
