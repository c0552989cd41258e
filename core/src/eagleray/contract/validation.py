"""Pydantic's findings as one sentence that names every wrong key, its value, and what would be valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from eagleray.contract.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], values: Mapping[str, Any], *, what: str, hint: str = "") -> Model:
    """`values` as an instance of `model`.

    Raises:
        ConfigError: one line per wrong key; an unknown key names the nearest one.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = [_sentence(model, finding) for finding in error.errors(include_url=False)]
    raise ConfigError(f"{what}: " + " ".join(lines), hint)


def _sentence(model: type[BaseModel], finding: Any) -> str:
    message = finding["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}".removesuffix(".") + "."
    if not finding["loc"]:
        return str(message)  # of a validator that looks at several keys, and names them itself
    # After the key itself, pydantic names the members of a union; they mean nothing to a reader.
    first, *rest = (str(part) for part in finding["loc"])
    location = [first, *(part for part in rest if not part.startswith(("function-", "int", "float", "tuple[")))]
    key = ".".join(location)
    if finding["type"] == "extra_forbidden":
        fields = _fields_at(model, location[:-1])
        guess = nearest(location[-1], fields)
        return f"unknown key '{key}'" + (
            f"; did you mean '{guess}'?" if guess else f"; valid: {', '.join(sorted(fields))}."
        )
    if finding["type"] == "missing":
        return f"'{key}' is missing."
    return f"'{key}' = {finding['input']!r}: {message}"


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Field names of the (nested) model that `location` leads to."""
    current: Any = model
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        annotation = field.annotation if field else None
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            break
        current = annotation
    return list(current.model_fields)
