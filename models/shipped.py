"""Trained classifiers inside the package: checkpoint folders that are found by name."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "pretrained"


def shipped_checkpoints() -> list[str]:
    """Names of the classifiers inside the package, which ``load_checkpoint`` takes in place of a folder."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if (folder / "config.json").is_file())


def checkpoint_folder(source: str | Path) -> Path:
    """Return the folder that is meant: one of the user's, or else a shipped classifier of that name."""
    folder = Path(source)
    if not folder.exists() and str(source) in shipped_checkpoints():
        return SHIPPED / str(source)
    return folder
