"""The hyperparameters: every key with a default, bounds and a description, from which forms are made."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """`advanced_config` of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(default=320, ge=32, le=2048, description="Pixels of a picture's shorter side.")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="Which optimizer takes the steps.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of SGD: share of the last step kept in the next.")
    weight_decay: float = Field(default=0.0005, ge=0, le=1, description="How strongly weights are drawn to zero.")
    flip: float = Field(default=0.5, ge=0, le=1, description="Share of pictures that are mirrored while training.")
