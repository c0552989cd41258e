"""Values on both sides of what a config's JSON Schema says, to hold the schema against the validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

BOUND_ERRORS = ("greater_than", "less_than", "greater_than_equal", "less_than_equal", "literal_error", "enum")
NONSENSE = {"eagleray-conformance": ["nonsense"]}


@dataclass(frozen=True)
class Probe:
    """A value for one key, and whether the schema admits it."""

    key: str
    value: Any
    admitted: bool


def incomplete(model: type[BaseModel]) -> list[str]:
    """What the model's schema lacks, as clauses."""
    schema = model.model_json_schema()
    found = [] if schema.get("additionalProperties") is False else ['unknown keys are taken: set extra="forbid"']
    for key, shape in schema.get("properties", {}).items():
        if not shape.get("description"):
            found.append(f"'{key}' has no description")
        if "default" not in shape and key not in schema.get("required", ()):
            found.append(f"'{key}' has no default in the schema")
    return found


def untrue(model: type[BaseModel]) -> list[str]:
    """Every probe at which schema and validation disagree, as clauses."""
    return [
        f"{probe.key} = {probe.value!r} is {'refused' if probe.admitted else 'taken'}, the schema says otherwise"
        for probe in probes(model.model_json_schema())
        if _admits(model, probe) is not probe.admitted
    ]


def probes(schema: Mapping[str, Any]) -> Iterator[Probe]:
    """At each bound and one step beyond it, beside each choice, and something that fits no type."""
    for key, shape in schema.get("properties", {}).items():
        kinds = list(_kinds(shape, schema.get("$defs", {})))
        if not any(_takes_anything(kind) for kind in kinds):
            yield Probe(key, NONSENSE, False)
        if all("enum" in kind or "const" in kind or kind.get("type") == "null" for kind in kinds):
            yield Probe(key, "eagleray-nonsense", False)
        numbers = [kind for kind in kinds if kind.get("type") in ("integer", "number")]
        if len(numbers) == 1 and all(kind in numbers or kind.get("type") == "null" for kind in kinds):
            yield from _at_bounds(key, numbers[0])


def _at_bounds(key: str, kind: Mapping[str, Any]) -> Iterator[Probe]:
    if "minimum" in kind:
        yield Probe(key, kind["minimum"], True)
        yield Probe(key, kind["minimum"] - 1, False)
    if "maximum" in kind:
        yield Probe(key, kind["maximum"], True)
        yield Probe(key, kind["maximum"] + 1, False)
    for name in ("exclusiveMinimum", "exclusiveMaximum"):
        if name in kind:
            yield Probe(key, kind[name], False)


def _kinds(shape: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of one property, references followed."""
    if "$ref" in shape:
        yield from _kinds(definitions[shape["$ref"].rpartition("/")[2]], definitions)
        return
    for name in ("anyOf", "oneOf", "allOf"):
        if name in shape:
            for part in shape[name]:
                yield from _kinds(part, definitions)
            return
    yield shape


def _takes_anything(kind: Mapping[str, Any]) -> bool:
    return kind.get("type") == "object" or not ({"type", "enum", "const"} & kind.keys())


def _admits(model: type[BaseModel], probe: Probe) -> bool:
    """Whether validation takes the value as far as this key's own type and bounds go.

    A bound may be met and the model still refuse the value beside others' defaults; that is not the schema's affair.
    """
    try:
        model.model_validate({probe.key: probe.value})
    except ValidationError as error:
        own = [found for found in error.errors(include_url=False) if found["loc"][:1] == (probe.key,)]
        return not any(found["type"] in BOUND_ERRORS for found in own) if probe.admitted else not own
    return True
