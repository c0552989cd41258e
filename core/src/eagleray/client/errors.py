"""A server's answers as errors of the family."""

from __future__ import annotations

from typing import Any

from eagleray.contract import errors
from eagleray.contract.errors import EaglerayError


class UnreachableError(EaglerayError):
    """No server answers."""

    code = "unreachable"
    exit_code = 10
    http_status = 503


class ServerError(EaglerayError):
    """What a server refused, in its own words.

    Attributes:
        http_status: as the server answered.
        code: the server's stable code.
        request_id: under which the server's log has it.
        fields: what is wrong with which field of the request.
    """

    def __init__(self, message: str, hint: str = "", problem: dict[str, Any] | None = None) -> None:
        super().__init__(message, hint)
        given = problem or {}
        self.args = (message, hint, given)
        self.code = str(given.get("code", "server"))
        self.http_status = int(given.get("status", 500))
        self.request_id = str(given.get("request_id", ""))
        self.fields: list[dict[str, Any]] = list(given.get("errors", []))
        self.exit_code = EXIT_CODES.get(self.code, 11)


# A refusal ends the CLI with the code that the same mistake has without a server.
EXIT_CODES = {
    found.code: found.exit_code
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, EaglerayError) and found is not EaglerayError
} | {"invalid-request": errors.ConfigError.exit_code}


def server_error(status: int, body: Any, text: str) -> ServerError:
    """From an answer's status and its body, which need not be ours: a proxy may have written it."""
    if isinstance(body, dict) and "message" in body:
        return ServerError(str(body["message"]), str(body.get("hint", "")), {**body, "status": status})
    shown = " ".join(text.split())[:200]
    return ServerError(
        f"The server answered {status}: {shown or 'nothing'}", "Is this the address of an eagleray server?",
        {"status": status, "code": "server"},
    )  # fmt: skip
