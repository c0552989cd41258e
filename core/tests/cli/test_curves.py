"""Curves in a terminal."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from eagleray.cli.curves import curve, labelled
from eagleray.cli.follow import harmless


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    top, bottom = curve([float(n) for n in range(8)], 4, 2)
    assert (top[0], bottom[-1]) == ("⠀", "⠀")
    assert top[-1] != "⠀" != bottom[0]


def test_a_constant_is_one_level_line() -> None:
    assert curve([3.0] * 8, 4, 1) == ["⠤" * 4]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=500), st.integers(1, 40), st.integers(1, 6))
def test_any_figures_fit_their_box(values: list[float], width: int, height: int) -> None:
    lines = curve(values, width, height)
    assert len(lines) == height
    assert all(len(line) in (0, width) for line in lines)


def test_a_gap_stays_a_gap() -> None:
    (line,) = curve([1.0, 1.0, math.nan, math.nan, 1.0, 1.0], 3, 1)
    assert line[1] == "⠀"


def test_a_curve_says_what_it_shows() -> None:
    head, *lines = labelled("loss", {1: 2.0, 2: 1.0, 3: 0.5}, 10)
    assert head == "loss  0.5  (epochs 1–3)"
    assert [line.partition("┤")[0].strip() for line in lines] == ["2", "", "0.5"]
    assert labelled("loss", {1: math.nan}, 10) == []


def test_a_worker_cannot_command_the_terminal() -> None:
    assert harmless("\x1b]0;title\x07\x1b[31mred\x1b[0m\r\x9b2Jok\ttab") == "]0;titlered2Jok\ttab"
