"""What the HTTP side can be told: the builder's `args` in serve/config.yaml, or `EAGLERAY_HTTP_*` variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from eagleray.contract.validation import validate

PREFIX = "EAGLERAY_HTTP_"


class HttpSettings(BaseModel):
    """Limits and names of the HTTP API. Rates and numbers of streams are of one replica."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed_hosts: tuple[str, ...] = Field(
        default=("localhost", "127.0.0.1", "[::1]"),
        description="Host names that requests may be made to; `*.example.org` takes all below, `*` takes any.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="Addresses of reverse proxies whose X-Forwarded-For is believed."
    )
    num_replicas: int = Field(default=1, ge=1, description="Replicas of the API; all run on the head.")
    body_limit_bytes: int = Field(default=1 << 20, ge=1024, description="Largest request body.")
    body_timeout_s: float = Field(default=20.0, gt=0, description="Longest wait for the next part of a body.")
    send_timeout_s: float = Field(
        default=60.0, gt=0, description="Longest wait for a client that does not read its answer."
    )
    request_timeout_s: float = Field(default=60.0, gt=0, description="Longest time until an answer begins.")
    key_rate_per_s: int = Field(default=100, ge=1, description="Requests per second and key.")
    address_rate_per_s: int = Field(default=200, ge=1, description="Requests per second and address.")
    failed_logins_per_minute: int = Field(
        default=20, ge=1, description="Requests with a wrong key per minute and address."
    )
    key_cache_s: float = Field(
        default=1.0, ge=0, description="For so long a replica believes what it read about a key; 0: not at all."
    )
    max_streams: int = Field(default=1000, ge=1, description="Open event streams.")
    stream_s: float = Field(default=3600.0, gt=0, description="A stream ends after this time; clients come back.")
    stream_bytes: int = Field(default=64 << 20, ge=1024, description="A stream ends after so much.")
    allow_open_ray: bool = Field(
        default=False, description="Serve on a Ray that asks for no token: whoever reaches its ports owns the cluster."
    )
    poll_s: float = Field(
        default=0.2, gt=0, description="How often the database is looked at while the control plane is away."
    )

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def load_http_settings(given: Mapping[str, Any] | None = None) -> HttpSettings:
    """Settings from `given`, else from the environment, else the defaults.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    names = HttpSettings.model_fields
    found = {name: os.environ[PREFIX + name.upper()] for name in names if os.environ.get(PREFIX + name.upper())}
    return validate(HttpSettings, {**found, **(given or {})}, what="Settings of the HTTP API")
