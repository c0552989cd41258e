"""Settings from the environment (`EAGLERAY_*`, and `AWS_*` for S3)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from eagleray.contract.errors import ConfigError


@dataclass(frozen=True)
class S3Access:
    """How a bucket is reached. What is None is left to boto3's own chain (files in `~/.aws`, a role of the machine).

    Attributes:
        endpoint_url: `AWS_S3_ENDPOINT_URL`, of R2 `https://{account}.r2.cloudflarestorage.com`; None: Amazon's.
        region: `AWS_REGION`; default `auto` for R2.
        profile: `EAGLERAY_S3_PROFILE`, one of `~/.aws/config`; it wins over `AWS_ACCESS_KEY_ID`.
        access_key_id: `AWS_ACCESS_KEY_ID`, with `AWS_SECRET_ACCESS_KEY` and, of temporary ones, `AWS_SESSION_TOKEN`.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        home: `EAGLERAY_HOME`, default `~/.eagleray`: environments, caches, work folders of this node.
        storage: `EAGLERAY_STORAGE`, a folder or `s3://bucket/prefix`; default `{home}/storage`.
        blocked_plugins: `EAGLERAY_BLOCKED_PLUGINS`, comma-separated entry-point names that are not loaded.
        plugin_import_timeout_s: `EAGLERAY_PLUGIN_IMPORT_TIMEOUT_S`, seconds that loading a plugin, whose top package
            is light, may take, or a hook of it.
        adapter_import_timeout_s: `EAGLERAY_ADAPTER_IMPORT_TIMEOUT_S`, seconds that a worker's import of a plugin's
            adapter, and so of its framework, may take.
        environment_timeout_s: `EAGLERAY_ENVIRONMENT_TIMEOUT_S`, seconds that building an environment may take.
        cache_max_bytes: `EAGLERAY_CACHE_MAX_BYTES`, what the node's cache of datasets and weights keeps beyond what is
            in use; None: half of its file system.
        worker_start_timeout_s: `EAGLERAY_WORKER_START_TIMEOUT_S`, seconds that a job waits on a shared cluster for room
            for its workers: for other jobs to end, or for nodes to be added.
        upload_grace_s: `EAGLERAY_UPLOAD_GRACE_S`, seconds that the end of a job waits for uploads that are delayed.
        dataset_hosts: `EAGLERAY_DATASET_HOSTS`, comma-separated `host` or `host:port` that datasets may be fetched from
            though they are not public, or speak plain http.
        dataset_buckets: `EAGLERAY_DATASET_BUCKETS`, comma-separated buckets that the server imports from for others.
    """

    home: Path
    storage: str
    blocked_plugins: frozenset[str]
    plugin_import_timeout_s: float = 20.0
    adapter_import_timeout_s: float = 600.0
    environment_timeout_s: float = 1800.0
    cache_max_bytes: int | None = None
    worker_start_timeout_s: float = 3600.0
    upload_grace_s: float = 60.0
    dataset_hosts: frozenset[str] = frozenset()
    dataset_buckets: frozenset[str] = frozenset()

    @property
    def environments(self) -> Path:
        return self.home / "envs"

    @property
    def work(self) -> Path:
        """Work folders of running attempts; an attempt removes its own."""
        return self.home / "work"

    @property
    def cache(self) -> Path:
        """Datasets and weights that jobs of this node share."""
        return self.home / "cache"

    @property
    def forms(self) -> Path:
        """Datasets in the form that a plugin trains from, where their own is another."""
        return self.home / "forms"

    @property
    def imports(self) -> Path:
        """What is being unpacked or downloaded; each import removes its own."""
        return self.home / "imports"

    @property
    def pending(self) -> Path:
        """What jobs of this node have saved and the store does not have yet."""
        return self.home / "pending"


def load_settings() -> Settings:
    home = Path(os.environ.get("EAGLERAY_HOME") or Path.home() / ".eagleray").expanduser().absolute()
    cache_bytes = _positive("EAGLERAY_CACHE_MAX_BYTES", None, "bytes", "200e9")
    return Settings(
        home=home,
        storage=os.environ.get("EAGLERAY_STORAGE") or str(home / "storage"),
        blocked_plugins=_names("EAGLERAY_BLOCKED_PLUGINS"),
        plugin_import_timeout_s=_seconds("EAGLERAY_PLUGIN_IMPORT_TIMEOUT_S", 20.0),
        adapter_import_timeout_s=_seconds("EAGLERAY_ADAPTER_IMPORT_TIMEOUT_S", 600.0),
        environment_timeout_s=_seconds("EAGLERAY_ENVIRONMENT_TIMEOUT_S", 1800.0),
        cache_max_bytes=None if cache_bytes is None else int(cache_bytes),
        worker_start_timeout_s=_seconds("EAGLERAY_WORKER_START_TIMEOUT_S", 3600.0),
        upload_grace_s=_seconds("EAGLERAY_UPLOAD_GRACE_S", 60.0),
        dataset_hosts=frozenset(host.lower() for host in _names("EAGLERAY_DATASET_HOSTS")),
        dataset_buckets=_names("EAGLERAY_DATASET_BUCKETS"),
    )


def load_s3_access() -> S3Access:
    """How this process's environment says that buckets are reached."""
    return S3Access(
        endpoint_url=_first("AWS_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        region=_first("AWS_REGION", "AWS_DEFAULT_REGION"),
        profile=_first("EAGLERAY_S3_PROFILE"),
        access_key_id=_first("AWS_ACCESS_KEY_ID"),
        secret_access_key=_first("AWS_SECRET_ACCESS_KEY"),
        session_token=_first("AWS_SESSION_TOKEN"),
    )


def _names(variable: str) -> frozenset[str]:
    return frozenset(name.strip() for name in os.environ.get(variable, "").split(",") if name.strip())


def _first(*variables: str) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name, "").strip())), None)


def _seconds(variable: str, default: float) -> float:
    """A duration from the environment.

    Raises:
        ConfigError: it is not a number above 0.
    """
    value = _positive(variable, default, "seconds", f"{default:g}")
    assert value is not None
    return value


def _positive(variable: str, default: float | None, unit: str, example: str) -> float | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{variable} is '{text}'.", f"It is a number of {unit} above 0, such as {example}.")
    return value
