"""Nested settings laid over one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested mappings over one another, key by key; later ones win, and none is changed."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = merged.get(key)
            if isinstance(below, Mapping) and isinstance(value, Mapping):
                value = merge(below, value)
            merged[key] = value
    return merged
