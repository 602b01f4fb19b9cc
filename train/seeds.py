"""Random numbers that follow from the run's seed and the step alone: continuing needs no saved generator."""

from __future__ import annotations

import torch

DROPOUT, ORDER, PLACEMENT, POLICY, NOISE, CUT = 1, 2, 3, 4, 5, 6
"""Purposes, so that streams of one step differ."""


def mixed_seed(*keys: int) -> int:
    """Mix integers into one seed (splitmix-style), so that neighbouring steps are unrelated."""
    value = 0
    for key in keys:
        value = (value ^ (key + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 31)) * 0x94D049BB133111EB % 2**64
    return value >> 1


def generator(*keys: int) -> torch.Generator:
    """Return a CPU generator seeded by these keys."""
    return torch.Generator().manual_seed(mixed_seed(*keys))
