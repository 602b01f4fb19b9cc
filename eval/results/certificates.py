"""Records of smoothed classifiers: the votes of every image between runs, and the bracket that a cell holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...configs.errors import InputError
from .database import Database
from .records import CERTIFICATE, COMPLETE, SMOOTHED_ATTACK

MEANING = (
    "A certificate proves that the smoothed classifier, the majority over Gaussian copies of an image, keeps its class "
    "under every perturbation up to the radius, for all but {failure} of the images; it concerns the smoothed "
    "classifier alone, and no attack on the base classifier belongs beside it."
)

_TABLE = """
CREATE TABLE IF NOT EXISTS smoothed (
    model TEXT NOT NULL, model_seed INTEGER NOT NULL, fingerprint TEXT NOT NULL, dataset TEXT NOT NULL,
    seed INTEGER NOT NULL, settings TEXT NOT NULL, image INTEGER NOT NULL, found TEXT NOT NULL,
    PRIMARY KEY (model, model_seed, fingerprint, dataset, seed, settings, image)
)
"""


@dataclass(frozen=True)
class StoredImages:
    """Records of single images of one smoothed network, as JSON; each is saved in a transaction of its own.

    Attributes:
        database: The file.
        key: Model, training seed, fingerprint, the data set's fingerprint, seed and settings.
    """

    database: Database
    key: tuple[str | int, ...]

    @classmethod
    def open(cls, database: Database, key: tuple[str | int, ...]) -> Self:
        """Make the table where the file is older than it."""
        if not has_table(database):
            with database.transaction():
                database.change(_TABLE)
        return cls(database, key)

    def load(self) -> dict[int, str]:
        """All that is kept, by the image's index in its set."""
        where = (
            "model = ? AND model_seed = ? AND fingerprint = ? AND dataset = ? AND seed = ? AND settings = ?"
        )
        return dict(self.database.query(f"SELECT image, found FROM smoothed WHERE {where}", self.key))  # type: ignore[arg-type]

    def save(self, image: int, found: str) -> None:
        """Keep what is known of an image, in place of what was."""
        with self.database.transaction():
            self.database.change(
                "INSERT OR REPLACE INTO smoothed VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*self.key, image, found)
            )


def has_table(database: Database) -> bool:
    """Whether a file holds single images of smoothed networks."""
    return bool(database.query("SELECT 1 FROM sqlite_master WHERE name = 'smoothed'"))


@contextmanager
def read_back(what: str) -> Iterator[None]:
    """Name what in a results store cannot be read.

    Raises:
        InputError: The block met text of another form.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{what} in the results store cannot be read: restore a copy, or certify anew."
        ) from error


@dataclass(frozen=True)
class Bracket:
    """The proven and the attacked radius of each image of a cell.

    Attributes:
        sigma: Standard deviation of the noise.
        samples: Samples at each planned look.
        failure: Failure probability of an image.
        proven: (n,) L2 radii within which the true class is proven; 0 for classes proven at no radius, -1 for others.
        attacked: (m,) smallest L2 radius at which the first m images were attacked, None where no attack was found;
            m is 0 without attacks.
    """

    sigma: float
    samples: Sequence[int]
    failure: float
    proven: Sequence[float]
    attacked: Sequence[float | None] = ()

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read back what ``to_text`` wrote.

        Raises:
            InputError: It is damaged.
        """
        with read_back("the certificates of a cell"):
            return cls(**json.loads(text))

    def certified(self, radii: NDArray[np.float64]) -> NDArray[np.float64]:
        """Certified accuracy at each radius, a lower bound of the robust accuracy."""
        return (np.asarray(self.proven)[:, None] >= radii).mean(axis=0)

    def withstood(self, radii: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of images not attacked up to each radius, an upper bound; images that met no attack count."""
        attacked = np.full(len(self.proven), np.inf)
        for number, radius in enumerate(self.attacked):
            attacked[number] = np.inf if radius is None else radius
        return (attacked[:, None] > radii).mean(axis=0)

    @property
    def contradictions(self) -> int:
        """Images attacked within their proven radius: as many as the failure probabilities allow, about none."""
        pairs = zip(self.proven, self.attacked, strict=False)
        return sum(attacked is not None and proven >= attacked for proven, attacked in pairs)


def brackets(cells: pd.DataFrame) -> Iterator[tuple[Mapping[Any, Any], Bracket]]:
    """Rows that hold a bracket, with it: one for each network and sigma."""
    for row in cells[(cells["kind"] == CERTIFICATE) & (cells["threat"] == "")].to_dict("records"):
        yield row, Bracket.from_text(row["details"])


def meaning_sentence(cells: pd.DataFrame) -> str:
    """Return the meaning of the certificates in words; empty without any."""
    failures = [bracket.failure for _, bracket in brackets(cells)]
    return MEANING.format(failure=f"{100 * max(failures):g} %") if failures else ""


def bracket_lines(cells: pd.DataFrame) -> Iterator[str]:
    """Proven and attacked accuracies for a terminal, a line for each radius, and what they mean."""
    keys = ["model", "condition"]
    for (_, condition), rows in cells.groupby(keys, sort=False):
        yield f"{condition}: accuracy in % at each L2 radius, proven with its 95 % interval; left by the attack"
        attacked = rows[rows["kind"] == SMOOTHED_ATTACK].set_index("threat")
        for row in rows[rows["kind"] == CERTIFICATE].to_dict("records"):
            low, mean, high = (100 * row[name] for name in ("low", "accuracy", "high"))
            text = (
                f"  {row['threat'] or 'l2 0':<8} {mean:5.1f} [{low:.1f}, {high:.1f}], {row['images']} images"
            )
            if row["threat"] in attacked.index:
                left = attacked.loc[row["threat"]]
                text += f"; {100 * left['accuracy']:5.1f}, {left['images']} images"
            yield text + ("" if row["status"] == COMPLETE else f" ({row['status']})")
        for _, bracket in brackets(rows):
            if bracket.contradictions:
                yield f"  {bracket.contradictions} images were attacked within their proven radius"
        yield from dict.fromkeys(f"  {note}" for note in rows["notes"] if note)
    yield meaning_sentence(cells)
