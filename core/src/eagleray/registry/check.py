"""What an import needs to know of a folder: which files belong to the dataset, and what they say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from eagleray.contract import Dataset
from eagleray.contract.errors import DatasetError
from eagleray.datasets import Edit, convert, detect_format, fix, validate
from eagleray.datasets.formats import format_named
from eagleray.datasets.read import open_dataset, require_splits
from eagleray.datasets.report import listed, shown
from eagleray.datasets.scan import dataset_of, scan
from eagleray.datasets.validate import Twins
from eagleray.registry import keys
from eagleray.registry.files import dump_files, sha256_of
from eagleray.registry.limits import Limits
from eagleray.registry.models import SplitFacts, digest_of
from eagleray.registry.progress import Progress
from eagleray.registry.sources.temporary import temporary_folder
from eagleray.registry.threads import in_threads
from eagleray.storage.disk import disk_errors
from eagleray.storage.store import FileEntry, check_key, file_entry

# What some dataset format reads. Anything else, a pickle or a script, say, is never stored, let alone opened.
ANNOTATIONS = frozenset({".txt", ".yaml", ".yml", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md"})
KINDS = keys.PICTURES | ANNOTATIONS


@dataclass(frozen=True)
class ImportOptions:
    """How a dataset is read, and what is changed on its way in.

    Attributes:
        task: a task name or alias; None: what the labels hold.
        format: a name of `eagleray.datasets.FORMATS`; None: by what lies there.
        edit: classes and splits of the version; a validation split that is made.
        mend: keep a mended copy instead of refusing faults.
        allow_loss: of a mended or changed copy: leave out what the task does not read, masks beside boxes say.
        note, created_by: kept with the version.
        only_own: no version is added to a dataset that someone else than `created_by` made.
    """

    task: str | None = None
    format: str | None = None
    edit: Edit | None = None
    mend: bool = False
    note: str = ""
    created_by: str = ""
    allow_loss: bool = False
    only_own: bool = False


@dataclass(frozen=True)
class Prepared:
    """A dataset that may be stored.

    Attributes:
        folder: where its files are, at the paths that `files` names.
        digest: the identity that its version will have.
        done: what was mended.
    """

    folder: Path
    dataset: Dataset
    splits: dict[str, SplitFacts]
    files: dict[str, FileEntry]
    files_list: bytes
    warnings: tuple[str, ...]
    done: tuple[str, ...] = ()

    @cached_property
    def files_sha256(self) -> str:
        return sha256_of(self.files_list)

    @cached_property
    def digest(self) -> str:
        return digest_of(self.dataset, self.files_sha256)


@contextmanager
def prepared(
    folder: Path, scratch: Path, options: ImportOptions, limits: Limits, progress: Progress
) -> Iterator[Prepared]:
    """The dataset in `folder`, changed as `options` wish, read to its end and identified.

    Raises:
        DatasetError: the faults and how to mend them; or it is more than `limits` allow.
    """
    contents = list_contents(folder, limits)
    with ExitStack() as held:
        done: tuple[str, ...] = ()
        if options.mend or options.edit:
            temporary = held.enter_context(temporary_folder(scratch))
            folder, done = _changed(folder, temporary, options)
            left_out, contents = contents.warnings, list_contents(folder, limits)
        else:
            left_out = contents.warnings
        progress("checking", 0, None)
        dataset, splits, warnings = check_dataset(folder, options.task, options.format)
        files = identify(contents, progress)
        yield Prepared(folder, dataset, splits, files, dump_files(files), (*warnings, *left_out), done)


def _changed(folder: Path, temporary: Path, options: ImportOptions) -> tuple[Path, tuple[str, ...]]:
    """A copy of the dataset as it is wished, in its own format, and what was mended."""
    done: tuple[str, ...] = ()
    if options.mend:
        report = validate(folder, options.task, options.format)
        mended = fix(report, temporary / "mended", allow_loss=options.allow_loss)
        folder, done = mended.path, mended.done
    if options.edit:
        name = options.format or detect_format(folder)
        into, loss = temporary / "edited", options.allow_loss
        convert(folder, name, into, source_format=name, task=options.task, edit=options.edit, allow_loss=loss)
        folder = into
    return folder, done


def check_dataset(
    folder: Path, task: str | None, format: str | None
) -> tuple[Dataset, dict[str, SplitFacts], tuple[str, ...]]:
    """Read all of it: what it is, its splits, and warnings. Raises DatasetError."""
    source, findings = open_dataset(folder, task, format)
    require_splits(source.info, format_named(source.info.format))
    tallies = scan(source, findings, watch=Twins(findings).watch)
    findings.raise_faults()
    dataset = dataset_of(source.info, tallies)
    splits = {
        name: SplitFacts(**asdict(split), class_counts=_by_name(tallies[name].classes, dataset.classes))
        for name, split in dataset.splits.items()
    }
    return dataset, splits, findings.warnings


def _by_name(counts: Mapping[int, int], classes: Sequence[str]) -> dict[str, int]:
    """Two classes may have one name; their counts are added."""
    found: dict[str, int] = {}
    for number, name in enumerate(classes):
        found[name] = found.get(name, 0) + counts.get(number, 0)
    return found


@dataclass
class Contents:
    """The files of a folder: `taken` belong to a dataset, `left_out` are of kinds that no format reads."""

    taken: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.left_out:
            return ()
        return (f"Left out, because no dataset format reads such files: {listed(self.left_out)}.",)


def list_contents(folder: Path, limits: Limits) -> Contents:
    """Every visible file of the folder.

    Raises:
        DatasetError: a link that leads out of the folder, a name that no store takes, or more than `limits` allow.
    """
    found = Contents()
    size_bytes = 0
    root = folder.resolve()
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if len(found.taken) + len(found.left_out) >= limits.max_files:
            raise DatasetError(f"{shown(folder)} has more than {limits.max_files:,} files.", "Import a part of it.")
        if not path.resolve().is_relative_to(root):
            raise DatasetError(
                f"{shown(name)} is a link that leads out of {shown(folder)}.", "Replace the link by the file itself."
            )
        if not path.is_file() or path.suffix.lower() not in KINDS:
            found.left_out.append(name)
            continue
        _check_path(name)
        size_bytes += path.stat().st_size
        if size_bytes > limits.max_bytes:
            raise DatasetError(f"{shown(folder)} is larger than {limits.max_bytes:,} bytes.", "Import a part of it.")
        found.taken[name] = path
    return found


def identify(contents: Contents, progress: Progress) -> dict[str, FileEntry]:
    """sha256 and size of every file, by path. Raises StorageError where one cannot be read."""

    def entry_of(item: tuple[str, Path]) -> tuple[str, FileEntry]:
        with disk_errors(f"read {item[0]}", item[1].parent):
            return item[0], file_entry(item[1])

    files = {}
    for done, (name, entry) in enumerate(in_threads(entry_of, contents.taken.items()), start=1):
        files[name] = entry
        progress("reading", done, len(contents.taken))
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in list(folders):
            # os.walk names a link to a folder among the folders, and does not go into it.
            if Path(parent, name).is_symlink():
                yield Path(parent, name)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _check_path(name: str) -> None:
    # The longest prefix that goes before it in the store.
    check_key(keys.current_key("0" * 36, name))
