"""Read YAML into frozen dataclasses, with errors that name the file, the key and its neighbour."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError, brief, unknown_name
from .extensions import REGISTRIES, Registry
from .untrusted import parse_yaml, read_yaml

T = TypeVar("T")
PRESETS = Path(__file__).parent
YAML_WORDS = {False: ("no", "off"), True: ("yes", "on")}
"""What YAML 1.1 reads as truth values: as names they mean themselves."""


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested mappings over one another, key by key; later ones win, and none is changed.

    A section with a ``name`` (a front-end, a loss) replaces one of another name as a whole: their keys differ.
    """
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = merged.get(key)
            below = _named(below) if isinstance(value, Mapping) else below
            named = _named(value) if isinstance(below, Mapping) else value
            if isinstance(named, Mapping) and isinstance(below, Mapping):
                value = (
                    merge(below, named)
                    if named.get("name", below.get("name")) == below.get("name")
                    else value
                )
            merged[key] = value
    return merged


def _named(section: Any) -> Any:
    """Return a section in its long form: a name alone stands for a section of that name."""
    return {"name": section} if isinstance(section, str) else section


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
    values = read_yaml(path)
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise InputError(f"{path.name}: the file is {brief(values)}; expected keys with values.")
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

    A field whose metadata name a registry takes sections by name; see :func:`read_sections`.

    Args:
        cls: The dataclass. Its ``ELSEWHERE``, if it has one, maps keys that belong to another section to where they go.
        values: A mapping of field names to plain values.
        where: Name of the source in messages.
        prefix: Dotted path of ``cls`` inside the whole.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            f"{where}: {prefix.rstrip('.') or 'the file'} is {brief(values)}; expected keys with values."
        )
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key in getattr(cls, "ELSEWHERE", ()):
            raise InputError(f"{where}: there is no {prefix}{key}; write {cls.ELSEWHERE[key]}.")  # type: ignore[attr-defined]
        if key not in fields:
            raise unknown_name("key", f"{prefix}{key}", [prefix + name for name in fields], where=where)
    for field in fields.values():
        if is_required(field) and field.name not in values:
            raise InputError(f"{where}: the key {prefix + field.name!r} is missing.")
    built: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if "registry" in fields[key].metadata:
            built[key] = read_sections(fields[key].metadata["registry"], value, where=where, prefix=path)
        elif dataclasses.is_dataclass(hints[key]):
            value = _named(value) if "name" in hints[key].__dataclass_fields__ else value
            built[key] = from_dict(typing.cast(type, hints[key]), value, where=where, prefix=f"{path}.")
        else:
            built[key] = _typed(hints[key], value, path, where)
    try:
        return cls(**built)
    except InputError as error:
        raise InputError(f"{where}: {_as_typed(str(error), fields, prefix)}") from error


def _as_typed(message: str, names: Iterable[str], prefix: str) -> str:
    """Begin a class's own message about one of its fields with the key that the user types."""
    first = re.match(r"\w+", message)
    return f"{prefix}{message}" if first and first[0] in names else message


def read_sections(registry: Registry, value: Any, *, where: str, prefix: str) -> tuple[Any, ...]:
    """Build the settings of one or several registered classes.

    Args:
        registry: A registry of classes with ``Settings``, a dataclass.
        value: A name, a mapping with ``name`` and settings, settings that are built already, or a list of such; None
            stands for the name "none".
        where: Name of the source in messages.
        prefix: Dotted path of the section.

    Raises:
        InputError: On an unknown name, or a key that the class of that name lacks; the message lists those it has.
    """
    several = isinstance(value, list | tuple)
    entries = list(value) if several else [value]
    places = [f"{prefix}.{i}" for i in range(len(entries))] if several else [prefix]
    return tuple(
        _read_section(registry, entry, where, place)
        for entry, place in zip(entries or ["none"], places or [prefix], strict=True)
    )


def _read_section(registry: Registry, value: Any, where: str, prefix: str) -> Any:
    value = _named("none" if value is None else value)
    if registry.name_of(type(value)) is not None:
        return value
    if not isinstance(value, Mapping) or "name" not in value:
        raise InputError(
            f"{where}: {prefix} is {brief(value)}; expected a name, or keys with one of them 'name'."
        )
    cls = registry.get(value["name"], where=f"{where}, {prefix}")
    return from_dict(
        cls.Settings,
        {key: entry for key, entry in value.items() if key != "name"},
        where=f"{where} ({registry.kind} {value['name']})",
        prefix=f"{prefix}.",
    )


def to_plain(config: Any, *, defaults: bool = True) -> Any:
    """Return what :func:`from_dict` builds a configuration from: mappings, lists and plain values, as JSON takes them.

    Args:
        config: A dataclass, or a part of one.
        defaults: Whether values that equal the default are written; a class's ``FILLED`` holds those that it puts in
            place of None.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        kept = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if defaults or value not in (default_of(field), getattr(config, "FILLED", {}).get(field.name)):
                single = "registry" in field.metadata and isinstance(value, tuple) and len(value) == 1
                kept[field.name] = to_plain(value[0] if single else value, defaults=defaults)
        name = registered_name(config)
        return kept if name is None else {"name": name, **kept}
    if isinstance(config, Mapping):
        return {key: to_plain(value, defaults=defaults) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_plain(value, defaults=defaults) for value in config]
    return config


def registered_name(settings: Any) -> str | None:
    """Return the name of the registered class that settings are of; None if they are of none."""
    names = (registry.name_of(type(settings)) for registry in REGISTRIES)
    return next((name for name in names if name is not None), None)


def is_required(field: dataclasses.Field) -> bool:
    """Whether a field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default_of(field: dataclasses.Field) -> Any:
    """Return the default of a field that has one."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _type_text(hint: Any) -> str:
    """Return a type as its users would write it."""
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return " or ".join(map(str, parts))
    if kind in (typing.Union, types.UnionType):
        return " or ".join(_type_text(part) for part in parts)
    return str(hint).replace("typing.", "") if parts else getattr(hint, "__name__", None) or str(hint)


def _typed(hint: Any, value: Any, key: str, where: str) -> Any:
    """Check a value against its declared type; lists become tuples, whole numbers floats where floats are declared."""
    try:
        found = _converted(hint, value, key, where)
    except TypeError as error:
        if typing.get_origin(hint) is typing.Literal:
            raise unknown_name(key, value, map(str, typing.get_args(hint)), where=where) from error
        raise InputError(f"{where}: {key} is {brief(value)}; expected {_type_text(hint)}.") from error
    if isinstance(found, float) and math.isnan(found):
        raise InputError(f"{where}: {key} is not a number (NaN); give one.")
    return found


def _converted(hint: Any, value: Any, key: str, where: str) -> Any:
    """Return the value as the type ``hint`` holds it.

    Raises:
        TypeError: If it does not fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for member in arguments:
            with suppress(TypeError):
                return _converted(member, value, key, where)
        raise TypeError
    if origin is typing.Literal:
        spellings = YAML_WORDS[value] if isinstance(value, bool) else (value,)
        found = [option for option in arguments if option in spellings]
        return found[0] if found else _misfit()
    if origin is not None:
        return _filled(origin, arguments, value, key, where)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(value)  # YAML reads 1e-3 as a text
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast(type, hint), value, where=where, prefix=f"{key}.")
    fits = hint is Any or isinstance(value, hint)
    return value if fits and (hint is not int or not isinstance(value, bool)) else _misfit()


def _filled(kind: type, arguments: tuple[Any, ...], value: Any, key: str, where: str) -> Any:
    """Return a tuple or a dictionary whose members fit."""
    if kind in (dict, Mapping) and isinstance(value, Mapping):
        names, members = arguments
        return {
            _converted(names, name, key, where): _converted(members, member, f"{key}.{name}", where)
            for name, member in value.items()
        }
    if kind in (tuple, list, Sequence) and isinstance(value, list | tuple):
        alike = kind is not tuple or arguments[1:] == (...,)
        hints = arguments[:1] * len(value) if alike else arguments
        if len(hints) == len(value):
            pairs = enumerate(zip(hints, value, strict=True))
            return tuple(_converted(hint, member, f"{key}.{i}", where) for i, (hint, member) in pairs)
    raise TypeError


def _misfit() -> typing.NoReturn:
    raise TypeError


def _override(values: Any, entry: str, before: str = "") -> Any:
    """Set one dotted key; a number chooses an entry of a list."""
    key, separator, text = entry.partition("=")
    if not separator or not key:
        raise InputError(
            f"the override {brief(entry)} has no value; write key=value, for instance train.epochs=20."
        )
    value = parse_yaml(text, f"the value of {brief(entry)}")
    head, _, rest = key.partition(".")
    place = f"{before}{head}"
    if isinstance(values, list | tuple):
        if not head.isdigit() or int(head) >= len(values):
            last = f"{before}{len(values) - 1}"
            raise InputError(f"{place}: expected the number of an entry, {before}0 to {last}.")
        changed = list(values)
        below, index = values[int(head)], int(head)
    else:
        named = {} if values is None else _named(values)
        if not isinstance(named, Mapping):
            raise InputError(
                f"{place}: {before.rstrip('.')} is {brief(values)}, which has no keys of its own."
            )
        changed: Any = dict(named)
        below, index = changed.get(head), head
    changed[index] = _override(below, f"{rest}={text}", f"{place}.") if rest else value
    return changed
