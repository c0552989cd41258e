"""The echo framework's `advanced_config`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class EchoConfig(BaseModel):
    """Hyperparameters, and faults on demand for tests of what surrounds a training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    momentum: float = Field(default=0.9, ge=0, lt=1, description="Share of the last step kept in the next.")
    hidden: int = Field(default=0, ge=0, le=4096, description="Width of the hidden layer; 0: none.")
    delay_s: float = Field(default=0, ge=0, description="Seconds to sleep in every batch.")
    noise_lines: int = Field(default=0, ge=0, description="Lines to print in every epoch.")
    fail_at_epoch: int | None = Field(default=None, ge=1, description="Raise in this epoch's first batch.")
    kill_at_epoch: int | None = Field(default=None, ge=1, description="Kill the process in this epoch's first batch.")
    kill_marker: Path | None = Field(
        default=None, description="Written before the kill; while it exists there is no kill. None: kill every time."
    )
