"""Masks, run lengths and outlines: from any to any other they cover the same pixels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from eagleray.datasets.geometry import RowError, box_around, outline_area
from eagleray.datasets.masks import box_of_rle, encoded, outlines_of, pixels_of, rle_of, rle_of_counts, run_lengths
from eagleray.datasets.records import Annotation

MASKS = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1))
)
DRAWN = settings(max_examples=200, deadline=None)


@DRAWN
@given(pixels=MASKS)
def test_run_lengths_give_the_pixels_back(pixels: Any) -> None:
    rle = encoded(pixels)
    lengths = run_lengths(rle.counts.decode())

    assert (pixels_of(rle) == pixels).all()
    assert sum(lengths) == pixels.size
    assert rle_of_counts(lengths, *pixels.shape) == rle_of_counts(rle.counts.decode(), *pixels.shape) == rle


@DRAWN
@given(pixels=MASKS)
def test_outlines_go_around_exactly_the_pixels(pixels: Any) -> None:
    outlines = [[float(value) for point in outline for value in point] for outline in outlines_of(pixels)]

    turns = [
        sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(o, [*o[1:], o[0]], strict=True)) / 2
        for o in outlines_of(pixels)
    ]
    assert sum(turns) == pixels.sum()
    assert sum(map(outline_area, outlines)) >= pixels.sum()
    for outline in outlines_of(pixels):
        assert all((a[0] == b[0]) != (a[1] == b[1]) for a, b in pairwise(outline))
    if outlines:
        assert box_around(outlines) == box_of_rle(encoded(pixels))


@DRAWN
@given(text=st.text(st.characters(min_codepoint=0, max_codepoint=300), max_size=20), side=st.integers(1, 20))
def test_any_text_as_run_lengths_is_a_mask_of_the_size_or_refused(text: str, side: int) -> None:
    try:
        assert pixels_of(rle_of_counts(text, side, side)).shape == (side, side)
    except RowError as error:
        assert error.fix


@DRAWN
@given(counts=st.lists(st.integers(-5, 400), max_size=8))
def test_any_numbers_as_run_lengths_are_a_mask_of_the_size_or_refused(counts: list[int]) -> None:
    try:
        assert pixels_of(rle_of_counts(counts, 10, 20)).shape == (10, 20)
    except RowError as error:
        assert error.fix


@pytest.mark.parametrize("size", [(0, 5), (-1, 5), (1 << 20, 1 << 20)])
def test_a_mask_of_no_size_or_of_any_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RowError, match="a mask of"):
        rle_of_counts([25], *size)


def test_an_outline_is_drawn_and_a_box_stands_for_a_missing_one() -> None:
    assert pixels_of(rle_of(Annotation(0, (1, 1, 3, 3)), 6, 5)).sum() == 4
    assert pixels_of(rle_of(Annotation(0, None, ((1, 1, 5, 1, 5, 4, 1, 4),)), 6, 5)).sum() == 12
