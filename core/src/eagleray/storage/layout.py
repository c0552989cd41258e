"""Where everything lies in a store: the keys, the same on a folder and in a bucket."""

from __future__ import annotations

from urllib.parse import quote

JOBS = "jobs"
MANIFEST = "manifest.json"


def quote_name(name: str) -> str:
    """`name` as one part of a key; different names give different parts (`a/b` → `a%2Fb`, `..` → `%2E.`)."""
    quoted = quote(name, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def job_record_key(job_id: int) -> str:
    return f"{JOBS}/{job_id}.json"


def job_prefix(job_id: int, project_id: str | None) -> str:
    if project_id:
        return f"checkpoints/projects/{quote_name(project_id)}/jobs/{job_id}"
    return f"checkpoints/test-jobs/job_{job_id}"


def best_key(prefix: str) -> str:
    return f"{prefix}/best.pt"


def last_key(prefix: str) -> str:
    return f"{prefix}/last.pt"


def metrics_key(prefix: str) -> str:
    return f"{prefix}/metrics.jsonl"


def attempts_prefix(prefix: str) -> str:
    return f"{prefix}/attempts"


def checkpoint_prefix(prefix: str, attempt: int, epoch: int) -> str:
    return f"{attempts_prefix(prefix)}/{attempt}/epoch-{epoch:05d}"


def manifest_key(prefix: str, attempt: int, epoch: int) -> str:
    return f"{checkpoint_prefix(prefix, attempt, epoch)}/{MANIFEST}"


def log_key(prefix: str, name: str) -> str:
    return f"{prefix}/logs/{name}"


def file_key(prefix: str, name: str) -> str:
    return f"{prefix}/files/{name}"


def weights_key(framework: str, name: str) -> str:
    return f"pretrained_weights/{quote_name(framework)}/{quote_name(name)}.pt"
