"""Datasets and their versions: imported, shown, compared, fetched and deleted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eagleray.control.commands import Caller
from eagleray.control.errors import ForbiddenError
from eagleray.datasets import Edit, split_validation
from eagleray.datasets.formats import format_named
from eagleray.registry import DatasetRecord, DatasetVersion, ImportOptions
from eagleray_serve import dataset_examples as examples
from eagleray_serve.answers import Items, Page, answer, described
from eagleray_serve.archive import zip_of
from eagleray_serve.auth import Reader, Writer
from eagleray_serve.bodies import NAME_PATTERN, After, Body, IdempotencyKey, Limit, Text
from eagleray_serve.dataset_tasks import TaskView
from eagleray_serve.dataset_work import ImportView, unknown_import
from eagleray_serve.examples import body as example_of
from eagleray_serve.owners import may_change, owner_of, shown_to
from eagleray_serve.parts import Parts, Shared

DATASETS_PATH = "/api/v1/datasets"
router = APIRouter(prefix=DATASETS_PATH, tags=["datasets"])
Name = Annotated[str, Path(pattern=NAME_PATTERN, description="The dataset's name or id.", examples=["coins"])]
Number = Annotated[int, Path(ge=1, le=999_999_999, description="The version's number.", examples=[2])]
INTERNAL = {"layout", "layout_sha256", "moving_to", "last_number", "deleted"}


class DatasetView(BaseModel):
    """A dataset, with the figures of its newest version."""

    id: str
    name: str
    format: str
    task: str
    storage_path: str
    num_images: int
    num_annotations: int
    classes: list[str]
    source_type: str
    metadata: dict[str, Any]
    created_by: str
    created_at: str
    updated_at: str
    version: int
    links: dict[str, str]


class VersionView(DatasetVersion):
    """The manifest of a version; `keypoints` are their count and dimensions."""

    keypoints: list[int] | None = None  # type: ignore[assignment]


class FileView(BaseModel):
    path: str
    sha256: str
    size_bytes: int


class ComparisonView(BaseModel):
    """What differs in `b`, seen from `a`; figures in pairs are those of `a` and of `b`."""

    model_config = ConfigDict(extra="allow")

    a: str
    b: str
    same: bool
    added: list[str]
    removed: list[str]
    changed: list[str]
    renamed: dict[str, str]


class Changed(Body):
    """What shall be otherwise in a copy."""

    validation: float | None = Field(default=None, gt=0, lt=1, description="Make a validation split of so much.")
    keep_classes: list[Text] | None = Field(default=None, max_length=10_000, description="Keep only these classes.")
    rename_classes: dict[Text, Text] = Field(default_factory=dict, description="Old name → new name.")
    splits: dict[Text, Text] = Field(default_factory=dict, description="Split → split; empty: leave it out.")
    allow_loss: bool = Field(default=False, description="Go on where the copy cannot hold all.")

    def edit(self) -> Edit | None:
        if not (self.validation or self.keep_classes or self.rename_classes or self.splits):
            return None
        return Edit(
            keep=tuple(self.keep_classes) if self.keep_classes else None,
            rename=self.rename_classes,
            splits=self.splits,
            validation=split_validation(self.validation) if self.validation else None,
        )


class ValidateVersion(Body):
    task: Text | None = Field(default=None, description="Default: the version's own.")
    pictures: bool = Field(default=False, description="Also decode every picture and look for duplicates.")


class PreviewVersion(Body):
    images: int = Field(default=16, ge=1, le=400, description="How many pictures.")
    seed: int = Field(default=0, ge=0, le=2**31, description="Another seed shows other pictures.")


class ConvertVersion(Changed):
    format: Text = Field(description="The format of the copy.")
    task: Text | None = Field(default=None, description="A lesser task: boxes of masks, say.")


class MendVersion(Body):
    note: Text = ""
    allow_loss: bool = Field(default=False, description="Leave out what the task does not read.")


class CreateDataset(Changed):
    """What to import: `source` or `upload_id`."""

    source: Text | None = Field(default=None, description="An https address, or s3://bucket/prefix.")
    upload_id: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$", description="A whole upload.")
    name: str | None = Field(default=None, pattern=NAME_PATTERN, description="Default: made of the source's name.")
    task: Text | None = Field(default=None, description="Default: what the labels hold.")
    format: Text | None = Field(default=None, description="Default: what is recognised.")
    mend: bool = Field(default=False, description="Keep a mended copy instead of refusing faults.")
    note: Text = ""

    @model_validator(mode="after")
    def _names_one_source(self) -> CreateDataset:
        if (self.source is None) == (self.upload_id is None):
            raise ValueError("give either source or upload_id")
        if self.upload_id is not None and self.name is None:
            raise ValueError("an upload needs a name")
        return self

    def options(self, caller: Caller) -> ImportOptions:
        return ImportOptions(
            task=self.task,
            format=self.format,
            edit=self.edit(),
            mend=self.mend,
            allow_loss=self.allow_loss,
            note=self.note,
            created_by=owner_of(caller),
            only_own=caller.projects is not None,
        )


def _deleting(example: str) -> dict[str, Any]:
    """How a route is described that deletes, at once or, what is large, in the background."""
    begun = {"model": TaskView, **described(examples.DELETION, status=202, what="Begun: it is large.")[202]}
    return {"response_model": dict[str, str], "responses": {**described({"deleted": example}, 404, 409), 202: begun}}


def _view(record: DatasetRecord, caller: Caller) -> dict[str, Any]:
    own = f"{DATASETS_PATH}/{record.name}"
    facts = record.model_dump(mode="json", exclude=INTERNAL) | {"created_by": shown_to(caller, record.created_by)}
    return {**facts, "version": record.layout, "links": {"self": own, "versions": f"{own}/versions"}}


def _version_view(version: DatasetVersion, caller: Caller) -> dict[str, Any]:
    return version.model_dump(mode="json") | {"created_by": shown_to(caller, version.created_by)}


@router.post(
    "",
    status_code=202,
    response_model=ImportView,
    responses=described(examples.IMPORT, 404, 409, status=202, what="Begun."),
    openapi_extra=example_of(examples.CREATE),
)
def import_dataset(
    body: CreateDataset, parts: Shared, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Response:
    """Import a dataset as the newest version of its name. The answer says where to see how far it is."""
    wanted = body.model_dump(include={"source", "upload_id", "name"})
    view = parts.datasets.start(wanted, body.options(caller), idempotency_key=idempotency_key)
    return answer(parts.datasets.show(view.id), 202, {"Location": f"{DATASETS_PATH}/imports/{view.id}"})


@router.get("", response_model=Items[DatasetView], responses=described({"items": [examples.DATASET]}))
def list_datasets(parts: Shared, caller: Reader) -> Response:
    """Every dataset, by name: they are shared by all keys of this server."""
    return answer({"items": [_view(record, caller) for record in parts.datasets.registry.list()]})


@router.get("/imports/{import_id}", response_model=ImportView, responses=described(examples.IMPORT, 404))
def get_import(
    import_id: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", examples=[examples.IMPORT_ID])],
    parts: Shared,
    caller: Reader,
) -> Response:
    """How far an import is, and what it led to. A key that is bound to projects sees its own only."""
    view = parts.datasets.show(import_id)
    if not may_change(caller, view.created_by):
        raise unknown_import(import_id)
    return answer(view)


@router.get("/{dataset}", response_model=DatasetView, responses=described(examples.DATASET, 404))
def get_dataset(dataset: Name, parts: Shared, caller: Reader) -> Response:
    """One dataset."""
    return answer(_view(parts.datasets.registry.find(dataset), caller))


@router.delete("/{dataset}", **_deleting("coins"))
def delete_dataset(dataset: Name, parts: Shared, caller: Writer) -> Response:
    """Delete all of a dataset. Of a key that is bound to projects: only what it imported itself."""
    return _deleted(parts, caller, dataset, None)


@router.get(
    "/{dataset}/versions",
    response_model=Items[VersionView],
    responses=described({"items": [examples.VERSION]}, 404),
)
def list_versions(dataset: Name, parts: Shared, caller: Reader) -> Response:
    """Newest first."""
    found = parts.datasets.registry.versions(dataset)
    return answer({"items": [_version_view(version, caller) for version in found]})


@router.get("/{dataset}/compare", response_model=ComparisonView, responses=described(examples.COMPARISON, 404))
def compare_versions(
    dataset: Name,
    parts: Shared,
    caller: Reader,
    a: Annotated[int, Query(ge=1, le=999_999_999, description="The older version.")],
    b: Annotated[int | None, Query(ge=1, le=999_999_999, description="The newer one; default: the newest.")] = None,
) -> Response:
    """What was added, removed, changed and renamed, and the objects of each class."""
    newer = dataset if b is None else f"{dataset}@{b}"
    return answer(parts.datasets.registry.compare(f"{dataset}@{a}", newer).plain())


@router.get("/{dataset}/versions/{number}", response_model=VersionView, responses=described(examples.VERSION, 404))
def get_version(dataset: Name, number: Number, parts: Shared, caller: Reader) -> Response:
    """One version, with its splits and the objects of each class."""
    return answer(_version_view(parts.datasets.registry.show(f"{dataset}@{number}"), caller))


@router.delete("/{dataset}/versions/{number}", **_deleting("coins@1"))
def delete_version(dataset: Name, number: Number, parts: Shared, caller: Writer) -> Response:
    """Delete one version; its bytes go, unless another version has them too."""
    return _deleted(parts, caller, dataset, number)


@router.get(
    "/{dataset}/versions/{number}/files",
    response_model=Page[FileView],
    responses=described({"items": [examples.FILE], "next": "50"}, 404),
)
def list_files(
    dataset: Name, number: Number, parts: Shared, caller: Reader, limit: Limit = 50, after: After = None
) -> Response:
    """The version's files, by path."""
    files = parts.datasets.registry.files(f"{dataset}@{number}")
    start = int(after or 0)
    shown = [{"path": path, **files[path].model_dump()} for path in sorted(files)[start : start + limit]]
    following = str(start + limit) if start + limit < len(files) else None
    return answer({"items": shown, "next": following})


@router.post(
    "/{dataset}/versions/{number}/validation",
    status_code=202,
    response_model=TaskView,
    responses=described(examples.TASK, 404, status=202, what="Begun, or done already."),
    openapi_extra=example_of(examples.VALIDATE),
)
def validate_version(body: ValidateVersion, dataset: Name, number: Number, parts: Shared, caller: Writer) -> Response:
    """All that is odd about a version, file by file and row by row; the result is a report as JSON."""
    version = parts.datasets.registry.show(f"{dataset}@{number}")
    return _begun(parts.datasets.tasks.validate(version, owner_of(caller), task=body.task, pictures=body.pictures))


@router.post(
    "/{dataset}/versions/{number}/preview",
    status_code=202,
    response_model=TaskView,
    responses=described(examples.TASK, 404, status=202, what="Begun, or done already."),
    openapi_extra=example_of(examples.PREVIEW),
)
def preview_version(body: PreviewVersion, dataset: Name, number: Number, parts: Shared, caller: Writer) -> Response:
    """A contact sheet with boxes, masks and keypoints drawn, and histograms of classes and sizes; a PNG."""
    version = parts.datasets.registry.show(f"{dataset}@{number}")
    return _begun(parts.datasets.tasks.preview(version, owner_of(caller), images=body.images, seed=body.seed))


@router.post(
    "/{dataset}/versions/{number}/conversion",
    status_code=202,
    response_model=TaskView,
    responses=described(examples.TASK, 404, status=202, what="Begun, or done already."),
    openapi_extra=example_of(examples.CONVERT),
)
def convert_version(body: ConvertVersion, dataset: Name, number: Number, parts: Shared, caller: Writer) -> Response:
    """A copy in another format, with other classes or splits if wished; a zip archive."""
    version = parts.datasets.registry.show(f"{dataset}@{number}")
    task = parts.datasets.tasks.convert(
        version,
        owner_of(caller),
        format=format_named(body.format).name,
        task=body.task,
        edit=body.edit(),
        allow_loss=body.allow_loss,
    )
    return _begun(task)


@router.post(
    "/{dataset}/versions/{number}/mend",
    status_code=202,
    response_model=ImportView,
    responses=described(examples.IMPORT, 404, 409, status=202, what="Begun."),
    openapi_extra=example_of(examples.MEND),
)
def mend_version(
    body: MendVersion,
    dataset: Name,
    number: Number,
    parts: Shared,
    caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a mended copy the newest version. The answer says where to see how far it is."""
    record = _own(parts, caller, dataset)
    options = ImportOptions(
        mend=True,
        note=body.note,
        allow_loss=body.allow_loss,
        created_by=owner_of(caller),
        only_own=caller.projects is not None,
    )
    view = parts.datasets.start({"mends": f"{record.id}@{number}"}, options, idempotency_key=idempotency_key)
    return answer(view, 202, {"Location": view.links["self"]})


@router.get(
    "/{dataset}/versions/{number}/archive",
    response_class=Response,
    responses=described("…", 404, media_type="application/zip", what="The archive."),
)
def download_version(dataset: Name, number: Number, parts: Shared, caller: Reader) -> Response:
    """The version's files as a zip archive, each one verified while it is sent."""
    version, chunks = zip_of(parts.datasets.registry, f"{dataset}@{number}", parts.settings.imports)
    headers = {"content-disposition": f'attachment; filename="{version.name}-{version.number}.zip"'}
    return StreamingResponse(chunks, headers=headers, media_type="application/zip")


def _begun(task: TaskView) -> Response:
    return answer(task.model_copy(update={"created_by": ""}), 202, {"Location": task.links["self"]})


def _deleted(parts: Parts, caller: Caller, dataset: str, number: int | None) -> Response:
    record = _own(parts, caller, dataset)
    task = parts.datasets.delete(record, number, owner_of(caller))
    if task is not None:
        return _begun(task)
    return answer({"deleted": record.name if number is None else f"{record.name}@{number}"})


def _own(parts: Parts, caller: Caller, dataset: str) -> DatasetRecord:
    """A dataset that the caller may delete. Raises UnknownNameError, ForbiddenError."""
    record = parts.datasets.registry.remains(dataset)
    if not may_change(caller, record.created_by):
        raise ForbiddenError(
            f"'{record.name}' was imported by someone else.",
            "A key that is bound to projects deletes only what it imported itself.",
        )
    return record
