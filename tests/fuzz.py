"""Hostile and broken inputs through the command line, seeded: ``python tests/fuzz.py --inputs 1000 --seed 0``.

Every input must end in success or in one sentence with exit code 2, within seconds and 2 GB; those that are known to be
bad must be refused.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fuzz_inputs import Case, Fuzz, quietly

SECONDS, STANDSTILL, BYTES = 20, 180, 2 * 2**30


def faults(case: Case, most: int = BYTES) -> list[str]:
    """What is wrong with how an input ended, the memory that the process ever took included; empty if nothing."""
    started = time.process_time()  # of this process: others share the machine
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(STANDSTILL)
    try:
        code, said = quietly(case.command)
    except BaseException as error:  # noqa: BLE001 - whatever comes out of `main` is a fault
        return [f"{type(error).__name__}: {error}"]
    finally:
        signal.alarm(0)
    lines = [line for line in said.splitlines() if line.startswith("warplca: ")]
    found = []
    if code not in (0, 2) or "Traceback" in said or (code == 2 and not lines):
        found.append(f"exit code {code}: {said[-300:]}")
    if case.refused and code == 0:
        found.append("was accepted")
    if "\x1b" in said.replace("\x1b[A", ""):
        found.append("a terminal escape came through")
    if (seconds := time.process_time() - started) > SECONDS:
        found.append(f"took {seconds:.0f} s")
    if peak() > most:
        found.append("took more than 2 GB")
    return found


def peak() -> int:
    """Bytes of memory that this process took at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _too_long(number: int, frame: object) -> None:
    raise KeyboardInterrupt(f"not done after {STANDSTILL} s")


def run(
    count: int, seed: int, root: Path, *, say: Callable[[str], object] = lambda text: None
) -> tuple[Counter[str], list[str]]:
    """Try so many inputs; return how many there were of each kind, and what went wrong, which ``say`` hears at once."""
    fuzz = Fuzz(root, seed)
    most = max(BYTES, peak())  # what other tests of this process took is not the inputs' fault
    tried: Counter[str] = Counter()
    wrong = []
    for case in fuzz.cases(count):
        tried[case.kind] += 1
        for fault in faults(case, most):
            wrong.append(f"{case.kind}: {' '.join(case.command)[:300]!r}: {fault}")
            say(wrong[-1])
    return tried, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tried, wrong = run(
            options.inputs, options.seed, Path(folder), say=lambda text: print(text, flush=True)
        )
    print(f"{sum(tried.values())} inputs, {dict(tried)}, {len(wrong)} wrong")
    sys.exit(bool(wrong))
