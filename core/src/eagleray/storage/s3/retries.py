"""Whether a request that failed is sent again, and when: values, decided without a server.

botocore's own retries are switched off: its standard mode does not know R2's 429, shares one quota among all threads of
a client, and cannot go on with a body that broke off (docs/decisions.md, "Retries of S3 requests are ours").
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from eagleray.storage.s3.options import S3Options

MAX_RETRY_AFTER_S = 30.0
# What a client meets and a second try mends: overload, bits that flipped on the way, two writers at one moment.
_PASSING = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}
BROKEN = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError, ResponseParserError, HTTPError)


@dataclass(frozen=True)
class RetryAfter:
    wait_s: float


@dataclass(frozen=True)
class GiveUp:
    pass


def decide(error: Exception, tried: int, options: S3Options, *, met: bool) -> RetryAfter | GiveUp:
    """What to do about `error`, the `tried`-th in a row (from 1).

    Args:
        met: whether this server has answered before; where it never did, a wrong address is likelier than an outage.
    """
    if isinstance(error, ClientError):
        if not _is_passing(error) or tried >= options.attempts:
            return GiveUp()
        return RetryAfter(max(_wait_s(tried, options), _asked_s(error)))
    if isinstance(error, BROKEN):
        attempts = options.unreachable_attempts if met or _was_connected(error) else 3
        return GiveUp() if tried >= attempts else RetryAfter(_wait_s(tried, options))
    return GiveUp()


def code_of(error: Exception) -> str:
    """The server's name for what went wrong, or the HTTP status where an answer has no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_outage(error: Exception) -> bool:
    """Whether the server, not the request, is to blame."""
    return isinstance(error, BROKEN) or (isinstance(error, ClientError) and _is_passing(error))


def _is_passing(error: ClientError) -> bool:
    return status_of(error) == 429 or status_of(error) >= 500 or code_of(error) in _PASSING


def _was_connected(error: Exception) -> bool:
    return isinstance(error, ConnectionClosedError) or not isinstance(error, BotoCoreError)


def _wait_s(tried: int, options: S3Options) -> float:
    # "Full jitter": many clients that were refused together do not come back together.
    return random.uniform(0, min(options.cap_s, options.base_s * 2**tried))


def _asked_s(error: ClientError) -> float:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return min(MAX_RETRY_AFTER_S, float(headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
