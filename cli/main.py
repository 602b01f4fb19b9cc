"""Entry point of the `warplca` command: parse, dispatch, turn mistakes into one sentence."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from ..configs.notices import Notices, log_warnings
from ..configs.progress import quiet
from .screen import print_error

# A file, not the screen: a traceback is for the bug report, not for the user.
ERROR_LOG = "warplca-error.log"
USAGE, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 a mistake of the user's, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names that this terminal's encoding lacks are spelled out
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, handlers=[Notices()])
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it would log every retry, with its address
    with warnings.catch_warnings():
        log_warnings()
        return _guarded(arguments)


def _guarded(arguments: list[str]) -> int:
    """Run a command and turn whatever goes wrong into one sentence and an exit code."""
    from ..configs.errors import InputError

    try:
        return _dispatch(arguments)
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(
            f"{error.filename or 'a file'}: {error.strerror or error}; nothing already written is lost."
        )
    except MemoryError:
        return _fail("out of memory; take less at once, or another machine. Nothing already written is lost.")
    except KeyboardInterrupt:
        return _fail("stopped; the same command goes on where it stopped.", INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback on the screen
        return _unexpected(error)


def _dispatch(arguments: list[str]) -> int:
    from .parser import build_parser, parse

    if not arguments:
        build_parser().print_help()
        return 0
    namespace = parse(arguments)  # help and mistakes end here, before torch is loaded
    from ..configs.extensions import import_file
    from ..train.processes import Interrupted
    from . import commands

    try:
        with quiet(namespace.quiet):
            for file in getattr(namespace, "imports", ()):
                import_file(file)
            return commands.RUN[namespace.command](namespace)
    except Interrupted as stop:
        return _fail(f"{stop}; the same command goes on from there.", INTERRUPTED)


def _fail(message: str, code: int = USAGE) -> int:
    print_error(message)
    return code


def _unexpected(error: Exception) -> int:
    log = Path.cwd() / ERROR_LOG
    try:
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        where = f"details are in {log}"
    except OSError:
        where = "its details could not be written to this folder"
    return _fail(
        f"unexpected {type(error).__name__} ({str(error).splitlines()[0] if str(error) else 'no text'}): "
        f"this is a bug, please report it; {where}.",
        1,
    )


if __name__ == "__main__":
    raise SystemExit(main())
