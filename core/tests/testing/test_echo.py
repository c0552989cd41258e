"""The reference framework learns, resumes to the last bit, and stops cleanly; all without Ray."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagleray.contract import CheckpointError, PluginError, Resume, TrainingContext
from eagleray.datasets.read import read_dataset
from eagleray.testing.data import write_classification_dataset, write_detection_dataset
from eagleray.testing.echo import FRAMEWORK
from eagleray.testing.echo_adapter import EchoAdapter
from eagleray.testing.echo_config import EchoConfig
from eagleray.testing.host import RecordingHost, run_adapter

WRITERS = {"image-classification": write_classification_dataset, "object-detection": write_detection_dataset}


def make_context(
    root: Path, name: str, task: str = "image-classification", epochs: int = 4, **config: Any
) -> TrainingContext:
    """A job on a dataset under `root`, which jobs with the same `root` share; `name` is the attempt's own."""
    data = root / task
    if not data.exists():
        WRITERS[task](data, images=48)
    card = next(card for card in FRAMEWORK.models if card.task == task)
    host = RecordingHost(root / name)
    dataset = read_dataset(data, task).dataset
    return TrainingContext(
        1, 1, task, card, epochs, 8, EchoConfig(**config), dataset, root / name / "work", host, learning_rate=0.02
    )


def recorded(context: TrainingContext) -> RecordingHost:
    assert isinstance(context.host, RecordingHost)
    return context.host


def test_a_warning_reaches_the_host_as_text(tmp_path: Path) -> None:
    context = make_context(tmp_path, "a")
    context.warn("optimizer=auto ignores learning_rate=0.02")
    assert recorded(context).warnings == ["optimizer=auto ignores learning_rate=0.02"]


def saved(host: RecordingHost, file: str = "state.npz") -> dict[str, Any]:
    folder = host.reports[-1].checkpoint
    assert folder is not None
    with np.load(folder / file) as arrays:
        return {name: arrays[name].tolist() for name in arrays.files}


@pytest.mark.parametrize("task", list(WRITERS))
@pytest.mark.parametrize("hidden", [0, 16])
def test_it_learns_from_pixels(tmp_path: Path, task: str, hidden: int) -> None:
    context = make_context(tmp_path, "a", task, epochs=15, hidden=hidden)
    final = run_adapter(EchoAdapter, context)
    reports = recorded(context).reports
    assert [report.epoch for report in reports] == list(range(1, 16))
    assert reports[-1].metrics["loss"] < 0.8 * reports[0].metrics["loss"]
    assert final["accuracy"] == max(report.metrics["accuracy"] for report in reports)


def test_a_checkpoint_holds_the_portable_file(tmp_path: Path) -> None:
    context = make_context(tmp_path, "a", epochs=1)
    run_adapter(EchoAdapter, context)
    assert set(saved(recorded(context), FRAMEWORK.portable_file)) == {"facts", "weight", "bias"}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    contexts = [make_context(tmp_path, name) for name in "abc"]
    contexts[2].seed = 1
    for context in contexts:
        run_adapter(EchoAdapter, context)
    first, second, other = (saved(recorded(context)) for context in contexts)
    assert first == second
    assert first != other


@pytest.mark.parametrize("stop_after_steps", [1, 5, 7, 10])
def test_a_stopped_and_resumed_run_ends_as_if_it_had_never_stopped(tmp_path: Path, stop_after_steps: int) -> None:
    whole = make_context(tmp_path, "whole", hidden=4)
    expected = run_adapter(EchoAdapter, whole)
    cut = make_context(tmp_path, "cut", hidden=4)
    recorded(cut).stop_after_steps = stop_after_steps
    assert run_adapter(EchoAdapter, cut) == {}
    assert len(recorded(cut).steps) == stop_after_steps, "a stop takes effect within one batch"
    rest = make_context(tmp_path, "rest", hidden=4)
    rest.resume = recorded(cut).resume() if recorded(cut).reports else None
    assert run_adapter(EchoAdapter, rest) == expected
    epochs = [report.epoch for context in (cut, rest) for report in recorded(context).reports]
    assert epochs == [1, 2, 3, 4]
    assert saved(recorded(rest)) == saved(recorded(whole))


def test_a_stop_discards_the_epoch_it_cuts_short(tmp_path: Path) -> None:
    context = make_context(tmp_path, "a")
    adapter = EchoAdapter(context)
    adapter.load_data()
    adapter.load_model()
    before = adapter.state.copy()
    recorded(context).stop_after_steps = 2
    adapter.train()
    assert recorded(context).reports == []
    assert np.array_equal(adapter.state.parameters["weight"], before.parameters["weight"])
    assert not adapter.state.velocity["weight"].any()
    assert adapter.state.rng.bit_generator.state == before.rng.bit_generator.state


def test_resuming_an_unreadable_checkpoint_is_refused(tmp_path: Path) -> None:
    context = make_context(tmp_path, "a")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "state.npz").write_bytes(b"PK\x03\x04 torn")
    context.resume = Resume(broken, 1, {})
    with pytest.raises(CheckpointError, match="cannot be read"):
        run_adapter(EchoAdapter, context)


def test_resuming_the_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    first = make_context(tmp_path, "a", epochs=1)
    run_adapter(EchoAdapter, first)
    second = make_context(tmp_path, "b", hidden=4)
    second.resume = recorded(first).resume()
    with pytest.raises(CheckpointError, match="does not belong"):
        run_adapter(EchoAdapter, second)


def test_it_fails_in_the_epoch_that_the_config_names(tmp_path: Path) -> None:
    context = make_context(tmp_path, "a", fail_at_epoch=2)
    with pytest.raises(RuntimeError, match="epoch 2"):
        run_adapter(EchoAdapter, context)
    assert [report.epoch for report in recorded(context).reports] == [1]


def test_it_kills_its_process_once_only(tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_echo as t\n"
        "context = t.make_context(Path(sys.argv[2]), sys.argv[3], kill_at_epoch=2, kill_marker=sys.argv[4])\n"
        "t.run_adapter(t.EchoAdapter, context); print(len(t.recorded(context).reports))"
    )
    here = str(Path(__file__).parent)
    runs = [
        subprocess.run(
            [sys.executable, "-c", script, here, str(tmp_path), name, str(marker)], capture_output=True, text=True
        )
        for name in "ab"
    ]
    assert [run.returncode for run in runs] == [-9, 0], runs[1].stderr
    assert runs[1].stdout.strip() == "4"


def test_it_prints_the_lines_that_the_config_asks_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_adapter(EchoAdapter, make_context(tmp_path, "a", epochs=2, noise_lines=3))
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_the_host_refuses_epochs_out_of_order(tmp_path: Path) -> None:
    host = RecordingHost(tmp_path)
    host.report(1, {}, None)
    with pytest.raises(PluginError, match="Epoch 3 was reported after epoch 1"):
        host.report(3, {}, None)


def test_the_host_keeps_files_after_the_adapter_has_removed_its_own(tmp_path: Path) -> None:
    context = dataclasses.replace(make_context(tmp_path, "a"))
    plot = tmp_path / "plot.png"
    plot.write_text("x")
    context.keep_file(plot, "plots/loss.png")
    plot.unlink()
    assert recorded(context).files["plots/loss.png"].read_text() == "x"
