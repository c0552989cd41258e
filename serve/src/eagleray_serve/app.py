"""The app: plain FastAPI, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from eagleray import __version__
from eagleray.control.commands import Commands
from eagleray.control.queries import Queries
from eagleray.plugins.host import Catalogue
from eagleray.settings import Settings
from eagleray.storage.store import Store
from eagleray_serve import errors
from eagleray_serve.auth import Authenticator
from eagleray_serve.edge import Edge
from eagleray_serve.limits import RateLimit
from eagleray_serve.metering import Meter
from eagleray_serve.parts import Parts
from eagleray_serve.routes import ROUTERS
from eagleray_serve.settings import HttpSettings
from eagleray_serve.streams import EventFeed

# Routes that wait for the control plane or the disk run in threads; so many at a time.
THREADS = 64
DESCRIPTION = """Trains vision models on a Ray cluster. Every request but `GET /health` needs a key.

Errors are `application/problem+json` with a stable `code`, a `hint` and a `request_id`."""


def make_app(
    commands: Commands,
    queries: Queries,
    catalogue: Catalogue,
    store: Store,
    settings: Settings,
    http: HttpSettings | None = None,
) -> FastAPI:
    """An app on a control plane (`commands`) and its database (`queries`)."""
    http = http or HttpSettings()
    app = FastAPI(
        title="eagleray",
        version=__version__,
        description=DESCRIPTION,
        # Pages that load scripts from elsewhere would need holes in the content security policy.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        lifespan=_lifespan,
    )
    meter = Meter(queries)
    app.state.parts = Parts(
        commands=commands,
        queries=queries,
        catalogue=catalogue,
        store=store,
        settings=settings,
        http=http,
        authenticator=Authenticator(queries, http),
        feed=EventFeed(commands, queries, http),
        meter=meter,
    )
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    addresses = RateLimit("requests from this address", http.address_rate_per_s, "second")
    app.add_middleware(Edge, settings=http, addresses=addresses, observe=meter.observe)
    if http.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(http.trusted_proxies))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    # asyncio's own default is a handful of threads on few cores, and one of them waits for news.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="eagleray"))
    yield {}


def _operation_id(route: APIRoute) -> str:
    tag = str(route.tags[0]) if route.tags else ""
    return f"{tag}_{route.name}"
