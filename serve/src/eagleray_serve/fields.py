"""What of a job's description can be checked at once against what is installed, field by field."""

from __future__ import annotations

from pydantic import ValidationError

from eagleray.contract.errors import ConfigError, EaglerayError, nearest
from eagleray.jobs.spec import JobSpec
from eagleray.plugins.catalogue import config_model, resolve_model
from eagleray.plugins.host import Catalogue
from eagleray_serve.errors import InvalidFieldsError

SCHEMA_HINT = "Its schema: GET /api/v1/frameworks/{}/tasks/{}/schema"


def check_fields(spec: JobSpec, catalogue: Catalogue) -> None:
    """Refuse a framework, model, task or setting that does not exist here.

    Raises:
        InvalidFieldsError: names every field.
    """
    try:
        framework = catalogue.framework(spec.framework).framework
    except EaglerayError as error:
        raise _refusal("framework", error) from None
    try:
        card = resolve_model(framework, spec.model_name, spec.task_type)
    except EaglerayError as error:
        raise _refusal("task_type" if "not offered for" in error.message else "model_name", error) from None
    try:
        model = config_model(framework, card.task)
    except ConfigError as error:
        raise _refusal("task_type", error) from None
    try:
        model.model_validate(dict(spec.advanced_config))
    except ValidationError as error:
        found = []
        for finding in error.errors(include_url=False):
            key = ".".join(str(part) for part in finding["loc"])
            message = finding["msg"].removeprefix("Value error, ")
            if finding["type"] == "extra_forbidden":
                guess = nearest(str(finding["loc"][0]), model.model_fields)
                message = "unknown key" + (f"; did you mean '{guess}'?" if guess else "")
            found.append((f"advanced_config.{key}".rstrip("."), message, finding["type"]))
        shown = "; ".join(f"{where}: {what}" for where, what, _ in found[:5])
        raise InvalidFieldsError(shown, SCHEMA_HINT.format(framework.name, card.task), tuple(found)) from None


def _refusal(field: str, error: EaglerayError) -> InvalidFieldsError:
    return InvalidFieldsError(error.message, error.hint, ((field, error.message, error.code),))
