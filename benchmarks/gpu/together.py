"""Run commands of warplca and scripts of ``benchmarks/`` one after the other in one process: it imports once.

    python benchmarks/gpu/together.py train --config quick94 --out runs/quick-0 -- field.py runs/quick-0 --data ...

Commands are separated by ``--``; a word that ends in .py names a script. One that fails lets the next one run.
"""

from __future__ import annotations

import runpy
import sys
from itertools import groupby
from pathlib import Path

from warplca.cli.main import main

SCRIPTS = Path(__file__).parents[1]
INTERRUPTED = 130


def run(words: list[str]) -> int:
    """Run one command and return its exit code."""
    if not words[0].endswith(".py"):
        return main(words)
    sys.argv = [str(SCRIPTS / words[0]), *words[1:]]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:  # noqa: BLE001 - the next command is to run
        print(f"{words[0]}: {type(error).__name__}: {error}")
        return 1
    return 0


def together(words: list[str]) -> int:
    """Run all commands and return the largest exit code; none is begun after one that was asked to stop."""
    worst = 0
    for separator, command in groupby(words, "--".__eq__):
        if not separator:
            code = run(list(command))
            if code == INTERRUPTED:
                return code
            worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPTS))
    sys.exit(together(sys.argv[1:]))
