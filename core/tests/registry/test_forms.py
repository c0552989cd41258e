from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract import Dataset
from eagleray.datasets import convert, prepare_form, read_dataset
from eagleray.registry.forms import KEEP_S, use_form


@pytest.fixture
def coco(folder: Path, tmp_path: Path) -> Dataset:
    convert(folder, "coco", tmp_path / "coco")
    return read_dataset(tmp_path / "coco", "object-detection", "coco").dataset


def test_another_format_becomes_the_wanted_one_with_all_counts(coco: Dataset, tmp_path: Path) -> None:
    with ExitStack() as held:
        found = use_form(coco, ["dice"], tmp_path / "forms", held)
    assert found.format == "dice"
    assert (found.num_images, found.num_annotations) == (coco.num_images, coco.num_annotations)


def test_workers_of_one_node_make_a_form_once(coco: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def counted(given: Path, *rest: Any) -> None:
        made.append(given)
        original(given, *rest)

    from eagleray.datasets import prepare

    original = prepare.prepare
    monkeypatch.setattr(prepare, "prepare", counted)
    with ExitStack() as held:
        workers = [threading.Thread(target=use_form, args=(coco, ["dice"], tmp_path / "forms", held)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(made) == 1


def test_a_form_that_nobody_used_for_days_goes_unless_it_is_in_use(coco: Dataset, tmp_path: Path) -> None:
    root = tmp_path / "forms"
    other = prepare_form(coco.path, coco.task, ["voc"], root, "coco").dataset.path
    with ExitStack() as held:
        mine = use_form(coco, ["dice"], root, held).path
        old = time.time() - KEEP_S - 60
        for folder in (mine, other):
            os.utime(folder, (old, old))
        with ExitStack() as second:
            use_form(coco, ["yolo"], root, second)
        assert mine.is_dir()
        assert not other.exists()
