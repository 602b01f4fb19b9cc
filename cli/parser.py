"""The command line's parser: errors in one sentence, with the nearest right name."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..configs.untrusted import plain
from .arguments import COMMANDS
from .options import quiet

USAGE = 2


class Parser(argparse.ArgumentParser):
    """Errors in one sentence, with the nearest right name."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where help is, and exit with code 2."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            names = re.findall(r"[\w.-]+", choice[2])
            message = f"{choice[1]!r} is not one of: {', '.join(names)};"
            exit_with_hint(message, choice[1], names)
        exit_with_hint(f"{message}; see `{self.prog} --help`.", "", [])


def exit_with_hint(message: str, wrong: str, known: Sequence[str]) -> NoReturn:
    """Print one sentence on stderr, with the nearest right name if there is one, and exit with code 2."""
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.4)
    hint = f" did you mean {near[0]!r}?" if near else ""
    print(plain(f"warplca: {message}{hint}"), file=sys.stderr)
    raise SystemExit(USAGE)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; an unknown option is named together with the nearest of its command's."""
    parser = build_parser()
    if "--print-config" in arguments:  # which needs no more than the configuration
        for command in _subparsers(parser).choices.values():
            for action in command._actions:
                action.required = False
    namespace, unknown = parser.parse_known_args(arguments)
    # argparse takes positional arguments in one run only: changes may stand before and after options.
    late = [entry for entry in unknown if "=" in entry and not entry.startswith("-")]
    if late == unknown and hasattr(namespace, "overrides"):
        namespace.overrides += late
        unknown = []
    empty = next(
        (
            name
            for name, value in vars(namespace).items()
            if value == "" or (isinstance(value, list) and "" in value)
        ),
        None,
    )
    if empty is not None:
        exit_with_hint(f"--{empty.replace('_', '-')} is empty; give a value, or leave it out.", "", [])
    if unknown:
        options = _subparsers(parser).choices[namespace.command]._option_string_actions
        exit_with_hint(f"`{namespace.command}` does not know {unknown[0]!r};", unknown[0], list(options))
    return namespace


def _subparsers(parser: argparse.ArgumentParser) -> argparse._SubParsersAction:
    return next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="warplca",
        description="Sparse-coding front-ends (WARP-LCA) for robust image classifiers: prime, train, measure, export.",
        epilog="Start with: warplca quickstart",
    )
    parser.add_argument("--version", action="version", version=f"warplca {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for add in COMMANDS:
        add(commands)
    for command in commands.choices.values():
        quiet(command)
    return parser
