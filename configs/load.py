"""Read YAML into frozen dataclasses, with errors that name the file, the key and its neighbour."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .errors import InputError, unknown_name


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


T = TypeVar("T")

PRESETS = Path(__file__).parent


def preset_names(kind: str) -> list[str]:
    """List the presets of a kind, e.g. ``"train"``: the YAML files in that folder of the package."""
    return sorted(path.stem for path in (PRESETS / kind).glob("*.yaml"))


def load_config(cls: type[T], source: str | Path, kind: str, overrides: Sequence[str] = ()) -> T:
    """Build a configuration from presets or files, with overrides.

    Args:
        cls: The dataclass to build.
        source: Name of a preset of ``kind``, the path of a YAML file, or several of them joined by ``+``, such as
            ``"warp-lca+resnet18+trades"``: later ones win, key by key. A file may begin with ``base:``, a name or a
            list of them, over which its own keys are laid.
        kind: Folder of the presets: one of the package's, such as ``"train"``, or a path.
        overrides: Entries such as ``"train.epochs=20"``; the value is read as YAML.

    Raises:
        InputError: On an unknown preset or file, bad YAML, an unknown key or a value of a wrong type.
    """
    whole = Path(source).is_file()
    parts = [str(source)] if whole else str(source).split("+")
    values = [_read(part, kind, Path(), ()) for part in parts]
    names = [part if part in preset_names(kind) else Path(part).name for part in parts]
    where = " + ".join(name if Path(name).suffix else f"{name}.yaml" for name in names)
    merged = merge(*values)
    changed = apply_overrides(merged, overrides)
    try:
        return from_dict(cls, changed, where=where)
    except InputError:
        if overrides:
            from_dict(cls, merged, where=where)  # raises where the fault is the file's own
            from_dict(cls, changed, where="the command line")
        raise


def _read(source: str, kind: str, folder: Path, above: tuple[Path, ...]) -> Mapping[str, Any]:
    """Read a preset or a file, laid over its bases; relative paths start at ``folder``."""
    path = PRESETS / kind / f"{source}.yaml"
    if not path.is_file():
        path = folder / source
    if not path.is_file():
        if path.suffix in (".yaml", ".yml"):
            raise InputError(f"the configuration file {path} does not exist; give the path of a YAML file.")
        raise unknown_name(f"{Path(kind).name} preset", source, preset_names(kind))
    if path in above:
        raise InputError(f"{path.name} is its own base: {' -> '.join(p.name for p in (*above, path))}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise InputError(f"{path.name}: the file is {values!r}; expected keys with values.")
    base = values.get("base", [])
    bases = base if isinstance(base, list) else [base]
    own = {key: value for key, value in values.items() if key != "base"}
    return merge(*(_read(str(base), kind, path.parent, (*above, path)) for base in bases), own)


def apply_overrides(values: Any, overrides: Sequence[str]) -> Any:
    """Set dotted keys, e.g. ``"train.epochs=20"``, in nested mappings; the value is read as YAML."""
    for entry in overrides:
        values = _override(values, entry)
    return values


def from_dict(cls: type[T], values: Any, *, where: str, prefix: str = "") -> T:
    """Build a dataclass, nested ones included, from plain values; every key and type is checked.

    Args:
        cls: The dataclass.
        values: A mapping of field names to plain values.
        where: What to call the source in messages.
        prefix: Dotted path of ``cls`` inside the whole.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            f"{where}: {prefix.rstrip('.') or 'the file'} is {values!r}; expected keys with values."
        )
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise unknown_name("key", f"{prefix}{key}", [prefix + name for name in fields], where=where)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in values:
            raise InputError(f"{where}: the key {prefix + field.name!r} is missing.")
    built: dict[str, Any] = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            built[key] = from_dict(
                typing.cast(type, hints[key]), value, where=where, prefix=f"{prefix}{key}."
            )
        else:
            built[key] = _typed(hints[key], value, f"{prefix}{key}", where)
    try:
        return cls(**built)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _typed(hint: Any, value: Any, key: str, where: str) -> Any:
    """Check a value against its declared type with jsonargparse, which also turns lists into tuples."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}, defaults=False).value
    except ArgumentError as error:
        expected = getattr(hint, "__name__", None) or str(hint)
        if typing.get_args(hint):
            expected = str(hint).replace("typing.", "")
        raise InputError(f"{where}: {key} is {value!r}; expected {expected}.") from error


def _override(values: Any, entry: str) -> dict[str, Any]:
    """Set one dotted key."""
    key, separator, text = entry.partition("=")
    if not separator or not key:
        raise InputError(
            f"the override {entry!r} has no value; write key=value, for instance train.epochs=20."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"the value of {entry!r} is not valid YAML.") from error
    changed = dict(values)
    head, _, rest = key.partition(".")
    changed[head] = _override(changed.get(head) or {}, f"{rest}={text}") if rest else value
    return changed
