"""One job on two worker processes of a real Ray cluster, with the reference framework."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Home

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ECHO = ("train", "--framework", "echo", "--model", "echo-linear", "--batch-size", "4", "--no-pretrained")


def test_two_workers_end_where_one_does_also_when_one_is_killed(home: Home, pictures: Path, tmp_path: Path) -> None:
    arguments = (*ECHO, "--data", str(pictures), "--epochs", "4", "--seed", "5")
    killed = ("--set", "kill_at_epoch=3", "--set", f"kill_marker={tmp_path / 'killed'}")
    for more in ((), ("--workers", "2"), ("--workers", "2", *killed)):
        code, training = home.run(*arguments, *more)
        assert code == 0, training.errors
    alone, together, lost = ([row["metrics"] for row in home.metrics(number)] for number in (1, 2, 3))
    assert [row.keys() for row in together] == [row.keys() for row in alone]
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, abs=1e-9)
    assert lost == together
    attempts = home.record(3)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["worker-lost", "completed"]
    assert attempts[1]["resumed_from_epoch"] == 2
