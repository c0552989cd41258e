"""The control plane's own numbers (`EAGLERAY_CONTROL_*`), all in seconds or counts."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from eagleray.contract.errors import ConfigError

PREFIX = "EAGLERAY_CONTROL_"
# A driver and its Ray supervisor hold some 300 MB of the head, with room for callbacks.
_DRIVER_BYTES = 400 << 20


@dataclass(frozen=True)
class ControlSettings:
    """Each can be set as `EAGLERAY_CONTROL_<NAME>`.

    Attributes:
        lease_s: how long a driver may say nothing before it is called silent.
        start_s: how long a driver may take, once Ray calls it running, until it says its first word.
        silence_s: how long it may be silent, while Ray calls it running, before it is stopped and replaced.
        poll_s: how often Ray is asked about running jobs.
        grace_s: how long a driver's last words are waited for once Ray calls its job ended.
        reserve_after_s: how long a job that does not fit waits before nodes are kept for it.
        max_drivers: jobs that may run at once; 0: as many as half of the head's memory holds.
        log_bytes: of printed lines kept in the database, per attempt; the store has the whole files.
        idempotency_s: how long an idempotency key is remembered.
        command_s: how long a command may take.
    """

    lease_s: float = 60.0
    start_s: float = 1800.0
    silence_s: float = 900.0
    poll_s: float = 2.0
    grace_s: float = 10.0
    reserve_after_s: float = 600.0
    max_drivers: int = 0
    log_bytes: int = 16 << 20
    idempotency_s: float = 7 * 86400.0
    command_s: float = 30.0

    @property
    def drivers(self) -> int:
        if self.max_drivers:
            return self.max_drivers
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return max(1, int(memory / 2 / _DRIVER_BYTES))


def load_control_settings() -> ControlSettings:
    """Raises ConfigError where a variable is not a number from 0."""
    values: dict[str, Any] = {}
    for field in fields(ControlSettings):
        variable = PREFIX + field.name.upper()
        text = os.environ.get(variable, "").strip()
        if not text:
            continue
        try:
            values[field.name] = (int if isinstance(field.default, int) else float)(text)
        except ValueError:
            raise ConfigError(f"{variable} is '{text}'.", f"It is a number, such as {field.default}.") from None
        if values[field.name] < 0:
            raise ConfigError(f"{variable} is '{text}'.", "It is a number from 0.")
    return ControlSettings(**values)
