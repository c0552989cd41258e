"""Changes to a dataset on its way: some of the classes, other names for them, other splits."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from eagleray.contract import DatasetError
from eagleray.contract.errors import unknown_name
from eagleray.contract.tasks import IMAGE_CLASSIFICATION
from eagleray.datasets.records import SPLITS, Annotation, DatasetInfo, DatasetSource, ImageRecord
from eagleray.datasets.report import shown


@dataclass(frozen=True)
class ValidationSplit:
    """A part of `train` that becomes `val`: the same for the same names and seed, in whatever order they come."""

    fraction: float
    seed: int = 0


def split_validation(fraction: float, seed: int = 0) -> ValidationSplit:
    """Raises DatasetError where `fraction` is not between 0 and 1."""
    if not 0 < fraction < 1:
        raise DatasetError(
            f"A validation split of {fraction:g} is no part of the dataset.", "Between 0 and 1; 0.2, say."
        )
    return ValidationSplit(fraction, seed)


@dataclass(frozen=True)
class Edit:
    """What is changed.

    Attributes:
        keep: the classes to keep, by their names in the source; None keeps all. What is left out is counted.
        rename: old → new; two classes with one new name become one.
        splits: source split → split of the copy, or "" to leave it out.
        validation: made from `train` where the source has no `val`.
    """

    keep: tuple[str, ...] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    validation: ValidationSplit | None = None


def edited(source: DatasetSource, edit: Edit) -> DatasetSource:
    """The source as `edit` wants it. Raises UnknownNameError, DatasetError."""
    if edit.keep is not None or edit.rename:
        source = Reclassed(source, *class_plan(source.info.classes, edit))
    if edit.splits:
        source = Resplit(source, split_plan(source.info, edit.splits))
    if edit.validation:
        source = with_validation(source, edit.validation)
    return source


def class_plan(classes: tuple[str, ...], edit: Edit) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The new classes in the old order, and for each old one its new id, or -1."""
    for name in (*(edit.keep or ()), *edit.rename):
        if name not in classes:
            raise unknown_name("class", shown(name), classes)
    if empty := [old for old, new in edit.rename.items() if not new.strip()]:
        raise DatasetError(f"The class '{shown(empty[0])}' would have no name.", "Leave it out by `keep` instead.")
    kept = [name for name in classes if edit.keep is None or name in edit.keep]
    names = tuple(dict.fromkeys(edit.rename.get(name, name) for name in kept))
    ids = {name: number for number, name in enumerate(names)}
    return names, tuple(ids[edit.rename.get(name, name)] if name in kept else -1 for name in classes)


def split_plan(info: DatasetInfo, splits: Mapping[str, str]) -> dict[str, str]:
    for old, new in splits.items():
        if old not in info.splits:
            raise unknown_name("split", shown(old), info.splits)
        if new and new not in SPLITS:
            raise unknown_name("split", shown(new), SPLITS)
    return {split: splits.get(split, split) for split in info.splits}


@dataclass
class Reclassed:
    """Another set of classes. A labelled picture whose only class is left out is left out with it."""

    source: DatasetSource
    classes: tuple[str, ...]
    ids: tuple[int, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def info(self) -> DatasetInfo:
        return self.source.info.described(classes=self.classes)

    def records(self, split: str) -> Iterator[ImageRecord]:
        whole = self.info.task == IMAGE_CLASSIFICATION
        for record in self.source.records(split):
            kept = tuple(found for old in record.annotations if (found := self.annotation(old)) is not None)
            if kept or not whole:
                yield msgspec.structs.replace(record, annotations=kept)

    def annotation(self, old: Annotation) -> Annotation | None:
        new = self.ids[old.class_id]
        return msgspec.structs.replace(old, class_id=new) if new >= 0 else None


@dataclass(frozen=True)
class Resplit:
    """Whole splits under other names, or together, or left out."""

    source: DatasetSource
    plan: dict[str, str]

    @property
    def info(self) -> DatasetInfo:
        info = self.source.info
        images = {self.plan[old]: info.images[old] for old in info.splits if self.plan[old]}
        return info.described(images=images, annotations={})

    def records(self, split: str) -> Iterator[ImageRecord]:
        for old in self.source.info.splits:
            if self.plan[old] == split:
                for record in self.source.records(old):
                    yield msgspec.structs.replace(record, split=split)


@dataclass(frozen=True)
class WithValidation:
    """Some of the training pictures as validation pictures."""

    source: DatasetSource
    chosen: frozenset[str]

    @property
    def info(self) -> DatasetInfo:
        info = self.source.info
        return info.described(images={**info.images, "val": info.images["train"]})

    def records(self, split: str) -> Iterator[ImageRecord]:
        if split not in ("train", "val"):
            yield from self.source.records(split)
            return
        for record in self.source.records("train"):
            if (record.name in self.chosen) == (split == "val"):
                yield msgspec.structs.replace(record, split=split)


def with_validation(source: DatasetSource, wanted: ValidationSplit) -> DatasetSource:
    """Raises DatasetError where there is a validation split already, or too few pictures to make one."""
    info = source.info
    if "val" in info.images:
        fix = "Leave it as it is, or leave the old one out: --split val="
        raise DatasetError(f"The dataset {shown(info.root)} has a val split already.", fix)
    if "train" not in info.images:
        raise DatasetError(
            f"The dataset {shown(info.root)} has no train split to take from.", "Name one: --split test=train"
        )
    chosen = stratified(source, wanted)
    if not chosen:
        raise DatasetError(f"{shown(info.root)} has too few pictures to part.", "Two pictures are the least.")
    return WithValidation(source, chosen)


def stratified(source: DatasetSource, wanted: ValidationSplit) -> frozenset[str]:
    """Names of the pictures to take: the fraction of each class, the rarest first, by a hash of name and seed.

    A picture counts for the rarest of its classes, so that a class of few pictures is in both parts.
    """
    classes: dict[str, frozenset[int]] = {}
    for record in source.records("train"):
        known = classes.get(record.name, frozenset())
        classes[record.name] = known | {found.class_id for found in record.annotations}
    frequency = Counter(class_id for found in classes.values() for class_id in found)
    strata: defaultdict[int, list[str]] = defaultdict(list)
    for name, found in classes.items():
        strata[min(found, key=lambda class_id: (frequency[class_id], class_id), default=-1)].append(name)
    chosen: set[str] = set()
    owed = 0.0
    for _, names in sorted(strata.items(), key=lambda item: (len(item[1]), item[0])):
        names.sort(
            key=lambda name: hashlib.sha256(f"{wanted.seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
        )
        # What rounding leaves over goes to the next class, so that the whole has its fraction.
        exact = len(names) * wanted.fraction + owed
        count = min(max(round(exact), 1 if len(names) > 1 else 0), max(len(names) - 1, 0))
        owed = exact - count
        chosen.update(names[:count])
    return frozenset(chosen)
