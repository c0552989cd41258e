"""What of a job's description can be checked at once against what is installed, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from eagleray.contract.errors import ConfigError, EaglerayError, nearest
from eagleray.jobs.spec import JobSpec
from eagleray.plugins.catalogue import config_model, resolve_model
from eagleray.plugins.host import Catalogue
from eagleray_serve.bodies import JobBody
from eagleray_serve.errors import InvalidFieldsError, told

SCHEMA_HINT = "Its schema: GET /api/v1/frameworks/{}/tasks/{}/schema"
REQUEST_HINT = "The schema of every request: GET /api/v1/openapi.json"
# A clone's own; they are not taken over.
NOT_CLONED = ("resume", "created_by")


def check_fields(spec: JobSpec, catalogue: Catalogue, within: str = "") -> None:
    """Refuse a framework, model, task or setting that does not exist here.

    Args:
        within: path of the description in the body, with its dot.

    Raises:
        InvalidFieldsError: names every field.
    """
    try:
        framework = catalogue.framework(spec.framework).framework
    except EaglerayError as error:
        raise _refusal(f"{within}framework", error) from None
    try:
        card = resolve_model(framework, spec.model_name, spec.task_type)
    except EaglerayError as error:
        field = "task_type" if "not offered for" in error.message else "model_name"
        raise _refusal(f"{within}{field}", error) from None
    try:
        model = config_model(framework, card.task)
    except ConfigError as error:
        raise _refusal(f"{within}task_type", error) from None
    try:
        model.model_validate(dict(spec.advanced_config))
    except ValidationError as error:
        hint = SCHEMA_HINT.format(framework.name, card.task)
        raise _invalid(error, model, f"{within}advanced_config.", hint) from None


def check_changes(spec: Mapping[str, Any], changes: Mapping[str, Any], catalogue: Catalogue) -> None:
    """Refuse `changes` of a job with the description `spec` that creating a job would refuse.

    Raises:
        InvalidFieldsError: names every field.
    """
    kept = {key: value for key, value in spec.items() if key not in NOT_CLONED}
    try:
        made = JobBody.model_validate({**kept, **changes})
    except ValidationError as error:
        raise _invalid(error, JobSpec, "changes.", REQUEST_HINT) from None
    check_fields(made, catalogue, "changes.")


def _invalid(error: ValidationError, model: type[BaseModel], within: str, hint: str) -> InvalidFieldsError:
    found = []
    for finding in error.errors(include_url=False):
        key = ".".join(str(part) for part in finding["loc"])
        message = finding["msg"].removeprefix("Value error, ")
        if finding["type"] == "extra_forbidden":
            guess = nearest(str(finding["loc"][-1]), model.model_fields)
            message = "unknown key" + (f"; did you mean '{guess}'?" if guess else "")
        found.append((f"{within}{key}".rstrip("."), message, finding["type"]))
    shown = "; ".join(f"{where}: {what}" for where, what, _ in found[:5])
    return InvalidFieldsError(shown, hint, tuple(found))


def _refusal(field: str, error: EaglerayError) -> InvalidFieldsError:
    return InvalidFieldsError(error.message, told(error)[1], ((field, error.message, error.code),))
