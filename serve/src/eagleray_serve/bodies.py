"""What requests may hold."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Header, Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from eagleray.jobs.spec import JobSpec

MAX_DEPTH = 24
MAX_INTEGER = 2**53
MAX_ID = 2**63 - 1
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def storable(value: Any, depth: int = 0) -> Any:
    """`value`, where every database and every JSON reader can hold it.

    Raises:
        ValueError: it nests too deep, or holds a number that is too large or not finite, or text with a NUL or half a
            surrogate pair.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nests deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key, each in value.items():
            storable(key, depth + 1)
            storable(each, depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            storable(each, depth + 1)
    elif isinstance(value, str):
        if "\0" in value:
            raise ValueError("holds a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half a surrogate pair") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"holds {value}")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError("holds an integer beyond 2**53")
    return value


Number = Annotated[int, Field(ge=1, le=MAX_ID)]
Text = Annotated[str, Field(max_length=300), AfterValidator(storable)]
Id = Annotated[int, Path(ge=1, le=MAX_ID, examples=[3])]
JobId = Annotated[int, Path(ge=1, le=MAX_ID, description="The job's number.", examples=[7])]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="The same key with the same body makes no second one; with another body it is refused (409).",
        examples=["5f3c9a52-0c1b-4f0e"],
    ),
]
IfMatch = Annotated[
    str | None,
    Header(max_length=100, description="Only if it still has this ETag, else 412.", examples=['"3"']),
]
Limit = Annotated[int, Query(ge=1, le=200, description="Items of a page.")]
After = Annotated[str | None, Query(max_length=100, pattern=r"^\d{1,18}$", description="`next` of the page before.")]


class Body(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _is_storable(cls, value: Any) -> Any:
        return storable(value)


class JobBody(JobSpec):
    """A job's description; its keys are those of docs/job-spec.md."""

    @model_validator(mode="before")
    @classmethod
    def _is_storable(cls, value: Any) -> Any:
        return storable(value)

    @field_validator("resume")
    @classmethod
    def _has_its_own_route(cls, value: int | None) -> None:
        if value is not None:
            raise ValueError(f"a job is resumed by POST /api/v1/training/jobs/{value}/resume")

    def given(self) -> dict[str, Any]:
        """The keys that the caller wrote, as plain data."""
        return self.model_dump(mode="json", include=self.model_fields_set & set(JobSpec.model_fields))


class CreateJob(JobBody):
    start: bool = Field(default=False, description="Put it into the queue at once.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="More comes first.")


class PlanJob(JobBody):
    priority: int = Field(default=0, ge=-1000, le=1000, description="That it would be queued with.")


class CloneJob(Body):
    changes: dict[str, Any] = Field(default_factory=dict, description="Keys of the job that shall differ.")
    start: bool = Field(default=False, description="Put it into the queue at once.")


class ResumeJob(Body):
    epochs: int | None = Field(default=None, ge=1, le=MAX_INTEGER, description="Epochs in all, to train on.")


class EditJob(Body):
    priority: int = Field(ge=-1000, le=1000, description="More comes first.")


class Quotas(Body):
    quota_jobs: int | None = Field(default=None, ge=0, le=10**6, description="Jobs at a time; null: no limit.")
    quota_gpus: float | None = Field(default=None, ge=0, le=10**6, description="GPUs at a time; null: no limit.")


class CreateProject(Quotas):
    name: str = Field(pattern=NAME_PATTERN)


class CreateUser(Body):
    name: str = Field(pattern=NAME_PATTERN)
    projects: list[Annotated[str, Field(pattern=NAME_PATTERN)]] | None = Field(
        default=None, max_length=1000, description="The user's keys reach only these; null: all."
    )


def _scopes(value: list[str]) -> list[str]:
    return sorted(set(value))


class CreateKey(Body):
    name: str = Field(pattern=NAME_PATTERN)
    scopes: Annotated[
        list[Literal["read", "write", "admin"]], Field(min_length=1, max_length=10), AfterValidator(_scopes)
    ]
    projects: list[Annotated[str, Field(pattern=NAME_PATTERN)]] | None = Field(
        default=None, max_length=1000, description="It reaches only these; null: all."
    )
    user_id: Number | None = None
    expires_at: Annotated[datetime | None, BeforeValidator(storable)] = Field(
        default=None, description="With its offset from UTC; null: never."
    )

    @model_validator(mode="after")
    def _has_an_offset(self) -> CreateKey:
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at has no offset from UTC; an example: 2027-01-31T00:00:00Z")
        return self
