"""One example of everything that the API says, for the OpenAPI document. Tests hold them against the schemas."""

from __future__ import annotations

from typing import Any

Plain = dict[str, Any]
TIME = "2026-11-23T12:00:00Z"

SPEC: Plain = {
    "framework": "ultralytics",
    "model_name": "yolo11n",
    "task_type": "object-detection",
    "dataset_path": "/data/fruit",
    "epochs": 2,
    "batch_size": 16,
    "project_id": "orchard",
    "advanced_config": {"imgsz": 320},
}
CREATE: Plain = {**SPEC, "start": True, "priority": 0}
JOB: Plain = {
    "id": 7,
    "session_id": None,
    "project_id": "orchard",
    "created_by": "anna",
    "framework": "ultralytics",
    "model_name": "yolo11n",
    "task_type": "object-detection",
    "dataset_path": "/data/fruit",
    "dataset_format": "dice",
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": None,
    "output_dir": "s3://models/checkpoints/projects/orchard/jobs/7",
    "error_message": None,
    "advanced_config": {"imgsz": 320},
    "phase": "running",
    "spec": SPEC,
    "epochs_done": 1,
    "metrics": {"mAP50-95": 0.41},
    "best": {"epoch": 1, "value": 0.41, "metric": "mAP50-95"},
    "priority": 0,
    "attempt_count": 1,
    "created_at": TIME,
    "queued_at": TIME,
    "started_at": TIME,
    "updated_at": TIME,
    "version": 5,
    "status": "running",
    "etag": '"5"',
    "links": {"self": "/api/v1/training/jobs/7"},
}
QUEUED: Plain = {
    **JOB,
    "phase": "queued",
    "status": "pending",
    "reason": "2 GPUs are wanted and 1 is free",
    "queue_position": 1,
    "started_at": None,
    "epochs_done": 0,
    "metrics": {},
    "best": None,
}
ATTEMPT: Plain = {
    "job_id": 7,
    "number": 1,
    "submission_id": "7-1",
    "state": "running",
    "resumed_from_epoch": None,
    "created_at": TIME,
    "started_at": TIME,
}
EVENT: Plain = {
    "seq": 41,
    "job_id": 7,
    "project_id": "orchard",
    "attempt": 1,
    "type": "epoch",
    "time": TIME,
    "data": {"epoch": 1, "epochs": 2, "seconds": 31.5, "metrics": {"mAP50-95": 0.41}},
}
METRIC: Plain = {"key": "mAP50-95", "epoch": 1, "value": 0.41, "attempt": 1, "time": TIME}
LINE: Plain = {"id": 900, "attempt": 1, "rank": 0, "time": TIME, "text": "epoch 1 of 2"}
CHECKPOINT: Plain = {
    "attempt": 1,
    "epoch": 1,
    "best": True,
    "metrics": {"mAP50-95": 0.41},
    "size_bytes": 5_400_000,
    "files": [{"name": "weights.pt", "size_bytes": 5_400_000, "sha256": "0" * 64}],
    "created_at": TIME,
}
ARTIFACT: Plain = {"name": "best.pt", "links": {"self": "/api/v1/training/jobs/7/checkpoints/best.pt"}}
PRESIGNED: Plain = {"url": "https://bucket.example.org/best.pt?X-Amz-Signature=…", "expires_at": TIME}
FRAMEWORK: Plain = {
    "name": "ultralytics",
    "version": "8.4.190",
    "licence": "AGPL-3.0",
    "description": "YOLO",
    "tasks": ["object-detection"],
    "num_models": 12,
    "dataset_formats": ["dice"],
    "best_metrics": {"object-detection": {"name": "mAP50-95", "mode": "max"}},
    "capabilities": {"resume": {"available": True, "reason": ""}},
    "export_formats": ["onnx"],
    "distribution": "eagleray-ultralytics",
    "distribution_version": "0.1.0",
}
MODEL: Plain = {
    "name": "yolo11n",
    "framework": "ultralytics",
    "task": "object-detection",
    "parameters": 2624080,
    "status": "trainable",
    "reason": "",
    "weights": "yolo11n",
    "description": "",
    "licence": "AGPL-3.0",
}
SCHEMA: Plain = {"type": "object", "properties": {"imgsz": {"type": "integer", "default": 640}}}
PLAN: Plain = {
    "framework": "ultralytics",
    "model": "yolo11n",
    "task": "object-detection",
    "dataset": {"images": 32, "annotations": 209},
    "environment": {"ready": True, "path": "/var/lib/eagleray/envs/ultralytics-1f0c"},
    "would_wait": False,
    "waiting": "",
    "spec": SPEC,
}
PROJECT: Plain = {
    "name": "orchard",
    "quota_jobs": 4,
    "quota_gpus": 8.0,
    "created_at": TIME,
    "version": 1,
    "etag": '"1"',
}
USER: Plain = {"id": 2, "name": "anna", "projects": ["orchard"], "created_at": TIME}
KEY: Plain = {
    "id": 3,
    "name": "anna-laptop",
    "prefix": "er_3fK2",
    "scopes": ["read", "write"],
    "projects": ["orchard"],
    "user_id": 2,
    "created_at": TIME,
    "expires_at": None,
    "revoked_at": None,
}
NEW_KEY: Plain = {**KEY, "key": "er_3fK2…"}
WHOAMI: Plain = {"name": "anna-laptop", "key_id": 3, "user_id": 2, "scopes": ["read", "write"], "projects": ["orchard"]}
HEALTH: Plain = {"status": "healthy", "service": "eagleray", "version": "0.1.0"}
READY: Plain = {
    "status": "ok",
    "version": "0.1.0",
    "parts": {"database": {"ok": True, "message": ""}, "control": {"ok": True, "message": ""}},
}
DELETED: Plain = {"id": 7, "deleted": True}
PROTOTYPE_START: Plain = {
    "framework": "ultralytics",
    "model_name": "yolo11n",
    "task_type": "detection",
    "dataset_path": "/data/fruit",
    "dataset_format": "dice",
    "epochs": 2,
    "batch_size": 16,
}
PROTOTYPE_STATUS: Plain = {
    "job_id": 7,
    "status": "running",
    "phase": "running",
    "current_epoch": 1,
    "total_epochs": 2,
    "progress": 50.0,
    "metrics": {"mAP50-95": 0.41},
    "output_dir": JOB["output_dir"],
    "error_message": None,
}
EVENT_STREAM = 'id: 41\nevent: epoch\ndata: {"seq": 41, "job_id": 7, "type": "epoch", "data": {"epoch": 1}}\n\n'
PROMETHEUS = 'eagleray_jobs{framework="ultralytics",phase="running"} 1.0\n'


def page(item: Plain, after: str | None = None) -> Plain:
    return {"items": [item], "next": after}


def body(example: Plain) -> Plain:
    """For `openapi_extra` of a route: an example of its request."""
    return {"requestBody": {"content": {"application/json": {"example": example}}}}
