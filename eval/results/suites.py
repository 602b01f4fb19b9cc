"""Results of suites of attacks in the results store, and whether they can be trusted, in words."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...attacks import Attack, Outcome, Suite, SuiteResult, Transfer
from ...configs.errors import InputError
from ..measure.inference import module_fingerprint
from .database import Database
from .records import BOUND, UNMEASURED

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
        wanted = 4 * math.prod(self.shape)
        try:
            values = zlib.decompressobj().decompress(blob, wanted + 1)
            return torch.from_numpy(np.frombuffer(values, dtype="<f4").copy()).view(self.shape)
        except (zlib.error, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"the results store is damaged: an image in it is broken ({error}).") from error


def _pack(image: Tensor | None) -> bytes | None:
    """Float32 exactly, so that a resumed run is the same run."""
    return (
        None
        if image is None
        else zlib.compress(image.float().contiguous().numpy().astype("<f4").tobytes(), 1)
    )


def suite_digest(suite: Suite) -> str:
    """Digest of a whole suite: that of its last attack, which covers those before."""
    return list(attack_settings(suite.attacks).values())[-1]


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


NOT_ASSESSED = "not assessed"


@dataclass(frozen=True)
class SuiteRecord:
    """A suite's verdict with its evidence, and which attack broke how many.

    Attributes:
        settings: Digest of all its attacks and their settings, in order.
        verdict: ``"trusted"`` or ``"not trusted because ..."``.
        checks: Name, whether it was passed, and evidence of each masking check.
        broken: Attack, images that it was tried on, images that it broke; in order.
        skipped: Attacks that could not run, and why.
        misclassified: Images misclassified without any attack.
    """

    settings: str
    verdict: str
    checks: Sequence[tuple[str, bool, str]]
    broken: Sequence[tuple[str, int, int]]
    skipped: Mapping[str, str]
    misclassified: int

    @classmethod
    def of(cls, result: SuiteResult, settings: str) -> SuiteRecord:
        """Record a suite's result."""
        return cls(
            settings=settings,
            verdict=str(result.verdict),
            checks=[(check.name, check.passed, check.evidence) for check in result.verdict.checks],
            broken=[(tally.name, tally.entered, tally.broken) for tally in result.tallies],
            skipped=dict(result.skipped),
            misclassified=int((~result.correct).sum()),
        )

    def left_by(self, attacks: Sequence[str]) -> int | None:
        """Images that the last of some attacks to run left standing; None if none of them ran."""
        left = [entered - broken for name, entered, broken in self.broken if name in attacks]
        return left[-1] if left else None

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> SuiteRecord:
        """Read back what `to_text` wrote.

        Raises:
            InputError: It is damaged.
        """
        try:
            record = cls(**json.loads(text))
            [(str(name), int(entered), int(broken)) for name, entered, broken in record.broken]
            [(str(name), str(evidence)) for name, _, evidence in record.checks]
            dict(record.skipped)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"the results store is damaged: it holds no record of a suite ({error})."
            ) from error
        return record


def verdict_text(details: str) -> str:
    """The verdict in a cell's details; ``"not assessed"`` for an attack outside a suite."""
    return SuiteRecord.from_text(details).verdict if details else NOT_ASSESSED


def attribution_text(details: str) -> str:
    """Which attack broke how many, e.g. ``"clean 3, fgsm 40 of 97, pgd-10 12 of 57"``; empty without a suite."""
    if not details:
        return ""
    record = SuiteRecord.from_text(details)
    parts = [f"{name} {broken} of {entered}" for name, entered, broken in record.broken if broken]
    return ", ".join([f"clean {record.misclassified}", *parts])


def trust_of(cells: pd.DataFrame) -> dict[str, str]:
    """For each attacked model its suites' verdicts, or that nothing assessed its figures.

    Args:
        cells: Rows as `ResultsStore.to_frame` gives them.
    """
    attacked = cells[cells["kind"] == "attack"]
    return {str(model): _of_model(rows) for model, rows in attacked.groupby("model", sort=False)}


def suite_rows(cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of suites of attacks that ran at least in part."""
    ran = (cells["kind"] == "attack") & ~cells["status"].isin(UNMEASURED)
    return cells[ran & (cells["verdict"] != NOT_ASSESSED)]


def bounds_sentence(cells: pd.DataFrame) -> str:
    """Which figures a budget cut short; empty if none."""
    rows = cells[cells["status"] == BOUND]
    if rows.empty:
        return ""
    names = dict.fromkeys(f"{row['model']} at {row['threat']}" for row in rows.to_dict("records"))
    return (
        f"The budget ended {len(rows)} suites of attacks early: their figures are bounds so far, which the same "
        f"evaluation without a budget will lower ({', '.join(names)})."
    )


def attack_sentences(cells: pd.DataFrame) -> Iterator[str]:
    """Sentences on the attacked rows of one model: each suite's attribution, verdict, and attacks that did not run."""
    for row in suite_rows(cells).to_dict("records"):
        yield f"{row['condition']} {row['threat']} ({row['status']}): broken by {row['attribution']}"
        yield f"  {row['verdict']}"
    attacked = cells[cells["kind"] == "attack"]
    for row in attacked[attacked["status"].isin(UNMEASURED)].to_dict("records"):
        yield f"{row['condition']} {row['threat']} ({row['status']}): {row['notes']}"
    if len(attacked) and suite_rows(cells).empty:
        yield _of_model(attacked)


def note_sentences(cells: pd.DataFrame) -> Iterator[str]:
    """Each remark on measured rows once, and how many rows it belongs to."""
    measured = cells[~cells["status"].isin(UNMEASURED) & (cells["notes"] != "")]
    for note, rows in measured.groupby("notes", sort=False):
        yield f"note ({len(rows)} of {len(cells)} rows): {note}"


def _of_model(rows: pd.DataFrame) -> str:
    suites = suite_rows(rows)
    if suites.empty:
        ran = rows[~rows["status"].isin(UNMEASURED)]
        attacks = ", ".join(dict.fromkeys(ran["condition"])) or "no attacks"
        return (
            f"{NOT_ASSESSED}: only {attacks} were run, without adaptive attacks or checks for gradient masking; "
            "accuracies under attack are upper bounds"
        )
    several = suites["model_seed"].nunique() > 1
    parts = [
        row["threat"]
        + (f", seed {row['model_seed']}" if several else "")
        + f": {row['verdict'].rstrip('.')}"
        + (" (bound so far: the budget ended)" if row["status"] == BOUND else "")
        for row in suites.to_dict("records")
    ]
    return "; ".join(parts)
