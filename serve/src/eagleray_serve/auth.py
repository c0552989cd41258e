"""Who asks: a key, in `Authorization: Bearer …` or `X-API-Key: …`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from eagleray.control.commands import Caller
from eagleray.control.errors import ForbiddenError
from eagleray.control.queries import Queries
from eagleray_serve.edge import address_of
from eagleray_serve.errors import UnauthenticatedError
from eagleray_serve.limits import RateLimit
from eagleray_serve.settings import HttpSettings

Scope = Literal["read", "write", "admin"]
# What a scope lets a key do beside its own name.
IMPLIED: Mapping[str, frozenset[str]] = {
    "admin": frozenset({"read", "write", "admin"}),
    "write": frozenset({"read", "write"}),
    "read": frozenset({"read"}),
}
MAX_CACHED = 4096
MAX_KEY_CHARACTERS = 200


class Authenticator:
    """From a key to a caller. What the database said is believed for `key_cache_s`.

    Only failures count towards an address's limit, so that one client with an old key does not shut out the good keys
    behind the same address; how often any key may be tried is the address's own limit.
    """

    def __init__(self, queries: Queries, settings: HttpSettings) -> None:
        self._queries = queries
        self._cache_s = settings.key_cache_s
        self._failures = RateLimit("requests with a wrong key", settings.failed_logins_per_minute, "minute")
        self._requests = RateLimit("requests of this key", settings.key_rate_per_s, "second")
        self._cache: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    async def caller(self, key: str | None, address: str) -> Caller:
        """Raises UnauthenticatedError, TooManyRequestsError."""
        if not key:
            raise UnauthenticatedError("A key is needed.", "Send it as 'Authorization: Bearer KEY'.")
        found = await self.holder(key)
        if found is None:
            self._failures.spend(address)
            raise UnauthenticatedError(
                "This key is unknown, revoked or expired.", "Ask an admin for another, or try: eagleray login"
            )
        self._requests.spend(str(found.key_id))
        return found

    async def holder(self, key: str) -> Caller | None:
        """Whose key it is, counting nothing; None where it is unknown, revoked or expired."""
        # Only a hash is ever looked up, so the time it takes says nothing about stored keys.
        digest = hashlib.sha256(key[:MAX_KEY_CHARACTERS].encode()).hexdigest()
        known = self._cache.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        return await asyncio.to_thread(self._look_up, digest)

    def forget(self) -> None:
        """Believe nothing that was read before: a key was revoked."""
        self._cache.clear()

    def _look_up(self, digest: str) -> Caller | None:
        found = self._queries.key_by_hash(digest)
        if found is None:
            self._cache.pop(digest, None)
        elif self._cache_s:
            self._cache[digest] = (time.monotonic() + self._cache_s, found)
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return found


def check_scope(caller: Caller, scope: Scope) -> Caller:
    """Raises ForbiddenError."""
    if not any(scope in IMPLIED.get(given, ()) for given in caller.scopes):
        raise ForbiddenError(
            f"This key may not do that: it takes the scope '{scope}'.",
            f"It has: {', '.join(sorted(caller.scopes)) or 'none'}.",
        )
    if scope == "admin" and caller.projects is not None:
        raise ForbiddenError("This key is an admin of its projects only.", "Use one that is not bound to projects.")
    return caller


_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="A key of `eagleray login` or `/api/v1/keys`.")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="key", description="The same key, plain.")


async def key_of(
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    plain: Annotated[str | None, Security(_HEADER)],
) -> str | None:
    return bearer.credentials if bearer else plain


Key = Annotated[str | None, Depends(key_of)]


async def caller_of(request: Request, key: Key) -> Caller:
    authenticator: Authenticator = request.app.state.parts.authenticator
    return await authenticator.caller(key, address_of(request.scope))


class Needs:
    """A dependency: a caller whose key has the scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope: Scope = scope

    async def __call__(self, caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        return check_scope(caller, self.scope)


Reader = Annotated[Caller, Depends(Needs("read"))]
Writer = Annotated[Caller, Depends(Needs("write"))]
Admin = Annotated[Caller, Depends(Needs("admin"))]
