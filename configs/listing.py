"""Every key of a configuration with its type, default and meaning, as ``warplca config`` lists them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .extensions import FRONTENDS, Registry
from .load import default_of, is_required, to_plain

WIDTH = 110
_ENTRY = re.compile(r"^    (\w+)(?: \([^)]*\))?: (.*)$")


@dataclass(frozen=True)
class Key:
    """A key that can be typed.

    Attributes:
        name: Dotted, as on the command line.
        type: Type of its values, as text.
        default: In YAML's spelling; empty where a value is needed.
        meaning: A sentence or two.
        of: The front-ends or losses that have it; empty where every configuration has it.
    """

    name: str
    type: str
    default: str
    meaning: str
    of: tuple[str, ...] = ()

    def to_text(self) -> str:
        """As lines for a terminal: the key as it may be typed, then its meaning."""
        given = f"{self.name}={self.default}" if self.default else self.name
        whose = f"; of {', '.join(self.of)}" if self.of else ""
        meaning = textwrap.wrap(self.meaning, WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
        return "\n".join([f"{given}  ({self.type}{whose})", *meaning])


def list_keys(cls: type, prefix: str = "") -> list[Key]:
    """List the keys of a configuration's class, those of every registered front-end and loss included.

    A key of the same default, type and meaning in several of them is listed once, with their names.
    """
    found: dict[Key, tuple[str, ...]] = {}
    for key in _keys(cls, prefix):
        plain = dataclasses.replace(key, of=())
        found[plain] = tuple(dict.fromkeys((*found.get(plain, ()), *key.of)))
    return [dataclasses.replace(key, of=of) for key, of in found.items()]


def _keys(cls: type, prefix: str, of: tuple[str, ...] = ()) -> Iterator[Key]:
    hints, meanings = typing.get_type_hints(cls), _meanings(cls)
    for field in dataclasses.fields(cls):
        name = f"{prefix}{field.name}"
        hint, registry = hints[field.name], field.metadata.get("registry")
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _keys(hint, f"{name}.", of)
            continue
        kind = f"name of a {registry.kind}, or a section" if registry else _spelled(hint)
        yield Key(
            name,
            kind,
            "" if is_required(field) else as_yaml(default_of(field)),
            meanings.get(field.name, ""),
            of,
        )
        if registry:
            yield from _sections(registry, name)
        elif name == "train.frontend":
            for frontend, known in FRONTENDS.items().items():
                yield from _keys(known.Training, f"{name}.", (frontend,))


def _sections(registry: Registry, prefix: str) -> Iterator[Key]:
    for name, cls in registry.items().items():
        yield from _keys(cls.Settings, f"{prefix}.", (name,))


def _meanings(cls: type) -> dict[str, str]:
    """Return the meaning of each attribute from the docstrings of a class and its bases."""
    meanings: dict[str, str] = {}
    for above in reversed(cls.__mro__):
        name = None
        for line in inspect.cleandoc(above.__doc__ or "").partition("Attributes:\n")[2].splitlines():
            entry = _ENTRY.match(line)
            if entry:
                name = entry[1]
                meanings[name] = entry[2]
            elif name and line.startswith("        "):
                meanings[name] += f" {line.strip()}"
            else:
                name = None
    return meanings


def _spelled(hint: Any) -> str:
    """A type in words, e.g. ``"number or null"``."""
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_spelled(member) for member in arguments)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin is dict:
        return "keys with values"
    if origin is not None:
        inner = dict.fromkeys(_spelled(member) for member in arguments if member is not ...)
        return f"list of {', '.join(inner)}"
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def as_yaml(value: Any) -> str:
    """A plain value as it would be typed behind ``key=``."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, tuple | list):
        return f"[{','.join(as_yaml(part) for part in value)}]"
    plain = to_plain(value)
    if isinstance(plain, dict):
        return f"{{{', '.join(f'{key}: {as_yaml(part)}' for key, part in plain.items())}}}"
    return str(plain)


def matching(keys: Iterable[Key], wanted: str | None) -> list[Key]:
    """The keys whose name holds a text; all where it is None."""
    return [key for key in keys if wanted is None or wanted in key.name or wanted in key.of]
