"""Random numbers that depend on what they are for, not on what was drawn before.

A picture's augmentation follows from (seed, epoch, picture), and what a rank draws in an epoch (dropout, mixup,
erasing) from (seed, epoch, rank). So a resumed run draws what the uninterrupted one did, and neither the number of
workers nor that of loader processes changes a picture.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

MASK = (1 << 64) - 1


def mix(*values: int) -> int:
    """A 64-bit number that scatters `values`; each round is the finaliser of SplitMix64 (Steele et al. 2014)."""
    state = 0
    for value in values:
        state = (state + 0x9E3779B97F4A7C15 + value) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


def seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Seed every generator of this process, CUDA's too, for one epoch of one rank."""
    value = mix(seed, epoch, rank)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.manual_seed(value)


def seed_picture(seed: int, epoch: int, index: int) -> None:
    """Seed the generators of the CPU for one picture of one epoch."""
    # -1: apart from what `seed_epoch` makes of the same three numbers.
    value = mix(seed, epoch, index, MASK)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.default_generator.manual_seed(value)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Give the generators of the CPU back as they were."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
