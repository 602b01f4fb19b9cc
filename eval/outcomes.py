"""Outcomes of single images under the attacks of a suite, kept in the results store's file."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..attacks import Attack, Outcome, Transfer
from .database import Database
from .fingerprint import module_fingerprint

_KEY = "model = ? AND model_seed = ? AND fingerprint = ? AND image_set = ? AND seed = ? AND batch_size = ?"
_WHERE = f"{_KEY} AND threat = ? AND attack = ? AND settings = ?"


@dataclass(frozen=True)
class StoredOutcomes:
    """An `attacks.OutcomeStore` for one network on one choice of images; a batch is one transaction.

    Attributes:
        database: The file.
        key: Model, training seed, fingerprint, image set, seed and batch size.
        shape: (C, H, W) of an image.
        settings: Digest of each attack's settings, as `attack_settings` gives them.
    """

    database: Database
    key: tuple[str | int, ...]
    shape: tuple[int, ...]
    settings: Mapping[str, str]

    def load(self, attack: str, threat: str, images: Sequence[int]) -> dict[int, Outcome]:
        """The outcomes kept for these images; the others are absent."""
        marks = ", ".join("?" for _ in images)
        rows = self.database.query(
            f"SELECT image, broken, prediction, adversarial FROM outcomes WHERE {_WHERE} AND image IN ({marks})",
            [*self._row_key(attack, threat), *images],
        )
        return {
            image: Outcome(bool(broken), prediction, self._unpack(blob))
            for image, broken, prediction, blob in rows
        }

    def save(self, attack: str, threat: str, outcomes: Mapping[int, Outcome]) -> None:
        """Keep the outcomes of a batch."""
        key = self._row_key(attack, threat)
        rows = [
            (*key, image, outcome.broken, outcome.prediction, _pack(outcome.adversarial))
            for image, outcome in outcomes.items()
        ]
        with self.database.transaction():
            self.database.insert(f"INSERT OR REPLACE INTO outcomes VALUES ({', '.join('?' * 13)})", rows)

    def _row_key(self, attack: str, threat: str) -> tuple[str | int, ...]:
        return (*self.key, threat, attack, self.settings.get(attack, ""))

    def _unpack(self, blob: bytes | None) -> Tensor | None:
        if blob is None:
            return None
        return torch.from_numpy(np.frombuffer(zlib.decompress(blob), dtype="<f4").copy()).view(self.shape)


def _pack(image: Tensor | None) -> bytes | None:
    """Float32 exactly, so that a resumed run is the same run."""
    return (
        None
        if image is None
        else zlib.compress(image.float().contiguous().numpy().astype("<f4").tobytes(), 1)
    )


def attack_settings(attacks: Mapping[str, Attack]) -> dict[str, str]:
    """Digest of each attack's settings and of those before it, which decide what images share its batches."""
    digest = hashlib.sha256()
    found = {}
    for name, attack in attacks.items():
        digest.update(f"{name} {re.sub(r'0x[0-9a-f]+', '', repr(attack))}\0".encode())
        if isinstance(attack, Transfer):
            digest.update(module_fingerprint(attack.source).encode())
        found[name] = digest.hexdigest()[:32]
    return found
