"""The app as a Ray Serve application: `import_path: eagleray_serve.deployment:build` in serve/config.yaml."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve

from eagleray.control.actor import connect
from eagleray.control.database.opening import open_read_only
from eagleray.control.queries import Queries
from eagleray.plugins.host import discover
from eagleray.settings import load_settings
from eagleray.storage.opening import open_store
from eagleray_serve.app import make_app
from eagleray_serve.first_key import ensure_admin_key
from eagleray_serve.ray_token import check_ray
from eagleray_serve.settings import HttpSettings, load_http_settings

NAME = "eagleray"
# Open streams hold a place each, so Serve's own default of a few would be used up by one dashboard.
MAX_ONGOING = 4096
# SQLite lies on the head's disk, and so do the first key and the plugins.
HEAD = {"node:__internal_head__": 0.001}


@serve.deployment(
    name="api",
    max_ongoing_requests=MAX_ONGOING,
    ray_actor_options={"num_cpus": 0, "resources": HEAD},
    graceful_shutdown_timeout_s=5,
    health_check_timeout_s=60,
)
@serve.ingress()
class Api:
    """One replica. Connecting to the control plane makes it where there is none, also after a head was lost."""

    def __init__(self, http: dict[str, Any]) -> None:
        check_ray(bool(http["allow_open_ray"]))
        settings = load_settings()
        commands = connect()
        queries = Queries(open_read_only(None, settings.home))
        ensure_admin_key(commands, queries, settings.home)
        store = open_store(settings.storage)
        self._app = make_app(commands, queries, discover(settings), store, settings, HttpSettings.model_validate(http))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app


def build(args: dict[str, Any]) -> Any:
    """The application. `args` are fields of `HttpSettings`; variables `EAGLERAY_HTTP_*` fill in what they lack.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    http = load_http_settings(args)
    return Api.options(num_replicas=http.num_replicas).bind(http.model_dump(mode="json"))  # type: ignore[attr-defined]
