"""Training with the real Transformers on a CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from eagleray.testing.host import RecordingHost

from conftest import (  # isort: skip
    FRAMEWORK,
    TINY,
    again,
    assert_same,
    state_of,
    tiny_context,
    train,
    write_dataset,
)


def files_below(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", TINY)
def test_every_architecture_trains_offline_and_leaves_the_dataset_as_it_was(
    tmp_path: Path, kind: str, network: list[object]
) -> None:
    task = TINY[kind]["task"]
    dataset = write_dataset(tmp_path / "data", task)
    before = files_below(dataset.path)
    host = RecordingHost(tmp_path / "host")
    final: dict[str, Any] = {}
    context = tiny_context(tmp_path, kind, dataset, host)
    thread = threading.Thread(target=lambda: final.update(train(context)))  # as on a worker: not the main thread
    thread.start()
    thread.join()
    assert [report.epoch for report in host.reports] == [1, 2]
    best = FRAMEWORK.best_metrics[task].name
    assert best in final and all(best in report.metrics for report in host.reports)
    assert {"train/loss", "val/loss", "lr"} <= set(host.reports[-1].metrics)
    assert host.steps == [(epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)]
    assert files_below(dataset.path) == before and network == []


@pytest.mark.parametrize("kind", TINY)
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path: Path, kind: str) -> None:
    dataset = write_dataset(tmp_path / "data", TINY[kind]["task"])
    augmented = {"augment": {"horizontal_flip": 0.5, "crop": 0.5}, "warmup_steps": 2}
    whole, first, second = (RecordingHost(tmp_path / name) for name in ("whole", "first", "second"))
    context = tiny_context(tmp_path / "a", kind, dataset, whole, epochs=4, config=augmented)
    train(context)
    first.stop_after_steps = 8
    train(again(context, tmp_path / "b", first))
    assert [report.epoch for report in first.reports] == [1, 2]
    train(again(context, tmp_path / "c", second, resume=first.resume()))
    assert [report.epoch for report in second.reports] == [3, 4]
    assert [report.metrics for report in second.reports] == [report.metrics for report in whole.reports[2:]]
    assert_same(state_of(second)["state_dict"], state_of(whole)["state_dict"])
