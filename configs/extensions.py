"""Named kinds of one thing, open to users: the package's own, those of installed packages, and a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from .errors import InputError, unknown_name

T = TypeVar("T", bound=type)
PACKAGE = __name__.partition(".")[0]
imported_files: list[Path] = []
"""What :func:`import_file` imported, in order: worker processes import it as well."""


class Registry(Generic[T]):
    """Classes by name.

    Args:
        kind: Kind of class, for messages, e.g. ``"front-end"``.
        home: Folder of the package that registers the built-in ones; imported at the first look-up.
        group: Group of entry points by which installed packages add theirs; each names a class, or a module that
            registers some.
    """

    def __init__(self, kind: str, *, home: str, group: str) -> None:
        self.kind, self.home, self.group = kind, home, group
        self._classes: dict[str, T] = {}
        self._complete = False

    def add(self, name: str, item: T) -> None:
        """Register a class.

        Raises:
            InputError: If another class has this name.
        """
        known = self._classes.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (
            item.__module__,
            item.__qualname__,
        ):
            raise InputError(
                f"there is a {self.kind} {name!r} already, {known.__module__}.{known.__qualname__}; choose another "
                "name."
            )
        self._classes[name] = item

    def get(self, name: object, *, where: str = "") -> T:
        """Return the class of this name.

        Raises:
            InputError: If there is none.
        """
        self._load()
        if not isinstance(name, str) or name not in self._classes:
            raise InputError(
                f"{unknown_name(self.kind, name, self._classes, where=where)} One of your own is registered by "
                "importing its file first (on the command line: --import FILE.py)."
            )
        return self._classes[name]

    def name_of(self, settings: type) -> str | None:
        """Return the name of the class that has these ``Settings``; None if none has."""
        return next((name for name, cls in self.items().items() if cls.Settings is settings), None)

    def of(self, settings: object) -> T:
        """Return the class that such settings are of.

        Raises:
            InputError: If it is not registered.
        """
        name = self.name_of(type(settings))
        if name is None:
            raise InputError(
                f"{settings!r} are settings of no registered {self.kind}; register its class first."
            )
        return self._classes[name]

    def registered(self) -> dict[str, T]:
        """Return the classes that are registered so far, without looking for more."""
        return dict(self._classes)

    def items(self) -> dict[str, T]:
        """Return all classes by name."""
        self._load()
        return dict(self._classes)

    def _load(self) -> None:
        if self._complete:
            return
        self._complete = True  # while the package's own register, which looks them up
        importlib.import_module(f"{PACKAGE}.{self.home}")
        for point in entry_points(group=self.group):
            try:
                found = point.load()
            except Exception as error:
                self._complete = False
                raise InputError(
                    f"the installed {self.kind} {point.name!r} ({point.value}) cannot be imported: "
                    f"{type(error).__name__}: {error}; mend or uninstall it."
                ) from error
            if isinstance(found, type):
                self.add(point.name, found)  # type: ignore[arg-type]


FRONTENDS: Registry = Registry("front-end", home="frontend", group="warplca.frontends")
LOSSES: Registry = Registry("loss", home="train", group="warplca.losses")
REGISTRIES = (FRONTENDS, LOSSES)


def import_file(path: str | Path) -> None:
    """Import a user's Python file, which may register classes of its own.

    Raises:
        InputError: If there is no such file, or it raises an error; the message says which.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(
            f"--import {path}: there is no such file; name the Python file that registers your classes."
        )
    if path.suffix != ".py":
        raise InputError(f"--import {path}: expected a Python file, FILE.py.")
    if path in imported_files:
        return
    name = path.stem
    if name in sys.modules:
        raise InputError(f"--import {path}: a module {name!r} is imported already; rename the file.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # under its own name, so that worker processes find its classes
    try:
        spec.loader.exec_module(module)
    except InputError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"--import {path}: {type(error).__name__}: {error}") from error
    imported_files.append(path)
