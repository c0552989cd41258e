"""Examples of what the API says of datasets, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from eagleray_serve.examples import TIME

Plain = dict[str, Any]
ID = "0b7c1f0e-6f0e-4c39-9a53-3a3b3c8f1a11"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
IMPORT_ID = "5f3c9a520c1b4f0e8a7d6c5b4a392817"

DATASET: Plain = {
    "id": ID,
    "name": "coins",
    "format": "dice",
    "task": "object-detection",
    "storage_path": f"s3://models/datasets/{ID}",
    "num_images": 32,
    "num_annotations": 209,
    "classes": ["penny", "dime"],
    "source_type": "upload",
    "metadata": {},
    "created_by": "user:2",
    "created_at": TIME,
    "updated_at": TIME,
    "version": 2,
    "links": {"self": "/api/v1/datasets/coins", "versions": "/api/v1/datasets/coins/versions"},
}
VERSION: Plain = {
    "dataset_id": ID,
    "name": "coins",
    "number": 2,
    "digest": SHA256,
    "format": "dice",
    "task": "object-detection",
    "classes": ["penny", "dime"],
    "splits": {
        "train": {
            "images": "train/images",
            "annotations": "train/labels",
            "num_images": 32,
            "num_annotations": 209,
            "num_backgrounds": 0,
            "class_counts": {"penny": 120, "dime": 89},
        }
    },
    "keypoints": None,
    "flip_index": [],
    "files_sha256": SHA256,
    "num_files": 65,
    "size_bytes": 5242880,
    "source": {"type": "upload", "location": "coins.zip"},
    "note": "",
    "created_by": "user:2",
    "warnings": [],
    "created_at": TIME,
}
FILE: Plain = {"path": "train/images/a.jpg", "sha256": SHA256, "size_bytes": 81920}
COMPARISON: Plain = {
    "a": "coins@1",
    "b": "coins@2",
    "same": False,
    "added": ["train/images/new.jpg"],
    "removed": [],
    "changed": ["train/labels/a.txt"],
    "renamed": {},
    "unchanged": 62,
    "added_bytes": 81950,
    "removed_bytes": 25,
    "images": [31, 32],
    "annotations": [200, 209],
    "classes": {"penny": [118, 120], "dime": [82, 89]},
    "splits": {"train": [{"images": 31, "annotations": 200}, {"images": 32, "annotations": 209}]},
}
IMPORT: Plain = {
    "id": IMPORT_ID,
    "name": "coins",
    "created_by": "user:2",
    "state": "running",
    "stage": "downloading",
    "done": 1048576,
    "total": 5242880,
    "version": None,
    "created": None,
    "mended": [],
    "error": None,
    "created_at": TIME,
    "updated_at": TIME,
    "links": {"self": f"/api/v1/datasets/imports/{IMPORT_ID}"},
}
TASK: Plain = {
    "id": IMPORT_ID,
    "created_by": "",
    "state": "done",
    "stage": "storing",
    "done": 0,
    "total": 5242880,
    "error": None,
    "created_at": TIME,
    "updated_at": TIME,
    "links": {
        "self": f"/api/v1/dataset-tasks/{IMPORT_ID}",
        "result": f"/api/v1/dataset-tasks/{IMPORT_ID}/result",
    },
    "kind": "conversion",
    "dataset": "coins",
    "version": 2,
    "lost": [],
}
DELETION: Plain = {
    **TASK,
    "state": "running",
    "stage": "deleting",
    "total": None,
    "links": {"self": f"/api/v1/dataset-tasks/{IMPORT_ID}"},
    "kind": "deletion",
}
VALIDATE: Plain = {"pictures": True}
PREVIEW: Plain = {"images": 16, "seed": 0}
CONVERT: Plain = {"format": "coco"}
MEND: Plain = {"note": "mended"}
REPORT: Plain = {
    "path": "coins@2",
    "format": "dice",
    "task": "object-detection",
    "classes": ["penny", "dime"],
    "splits": {"train": {"images": 32, "annotations": 209, "backgrounds": 0}},
    "class_counts": {"penny": 120, "dime": 89},
    "errors": 0,
    "warnings": 1,
    "counts": {"warning/class-name": 1},
    "findings": [
        {
            "severity": "warning",
            "code": "class-name",
            "message": "data.yaml names a class twice: dime",
            "fix": "",
            "path": "data.yaml",
            "row": 3,
        }
    ],
}
CREATE: Plain = {"source": "https://example.org/coins.zip", "name": "coins", "task": "object-detection"}
CREATE_UPLOAD: Plain = {"size_bytes": 5242880, "sha256": SHA256, "filename": "coins.zip"}
UPLOAD: Plain = {
    "id": "a" * 32,
    "filename": "coins.zip",
    "size_bytes": 5242880,
    "sha256": SHA256,
    "created_at": TIME,
    "received": [[0, 1048576]],
}
