"""docs/control-plane.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from eagleray.control.settings import ControlSettings
from eagleray.jobs.phases import TRANSITIONS

PAGE = (Path(__file__).parents[3] / "docs" / "control-plane.md").read_text(encoding="utf-8")


def test_the_picture_of_the_phases_has_the_arrows_of_the_table() -> None:
    (picture,) = re.findall(r"stateDiagram-v2\n(.*?)```", PAGE, re.DOTALL)
    drawn = re.findall(r"^\s*(\w+) --> (\w+)", picture, re.MULTILINE)
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(phase.value, after.value) for phase, following in TRANSITIONS.items() for after in following}


def test_every_setting_is_explained_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", PAGE.partition("## Settings")[2], re.MULTILINE))
    assert set(rows) == {field.name.upper() for field in fields(ControlSettings)}
    defaults = {field.name.upper(): field.default for field in fields(ControlSettings) if field.default}
    assert {name: float(rows[name]) for name in defaults} == defaults
