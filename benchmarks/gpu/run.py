"""Work through a list of rows on a GPU that is lent for a while: each with its own time limit, nothing lost at the end.

    python benchmarks/gpu/run.py --rows first --minutes 9 --data cifar10.npz --out runs/gpu
    python benchmarks/gpu/run.py --rows my-rows.yaml --minutes 9 --device cpu --only train-none

Rows are in order of importance: ``name``, ``command`` (words; {data}, {out}, {device}, {cores}, {python} and {here} are
filled in), ``minutes`` and ``after``, the names of rows that must have ended well before it. A row whose name holds a
mark such as {arm} stands for one row of each of its values, which the file lists under ``marks``. With ``--at-once N``
the first N that may start run at the same time: small networks leave most of a GPU idle.
A row that fails or runs out of time lets the next one run; finished ones are not run again, so that the same command
goes on in a later call. ``log.jsonl`` has a line for each. At the end, and on SIGTERM, which is passed on to the rows,
what was written (all of it, or what ``--bring`` names) is cut into pieces of at most ``--piece-size`` MiB in
``OUT/pieces``; ``pieces.py join`` joins them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from pieces import archive, cut

from warplca.configs import InputError, from_dict

HERE = Path(__file__).parent
LOG, PIECES, OUTPUTS = "log.jsonl", "pieces", "outputs"
GRACE = 15.0  # seconds in which a row that is asked to stop saves its state
LEAST = 5.0  # seconds below which no row is started
PAUSE = 0.2  # seconds between looks at the rows
LEFT_OUT = ("states", PIECES, "corrupted")  # what going on elsewhere does not need


@dataclass(frozen=True)
class Row:
    """One command.

    Attributes:
        name: Name of the row; its output goes to ``outputs/NAME.txt``.
        command: The words.
        minutes: Its time limit.
        after: Rows that must have ended well before it.
    """

    name: str
    command: tuple[str, ...]
    minutes: float
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """A file of rows.

    Attributes:
        rows: In order of importance.
        marks: Values of marks such as {arm}: a row with a mark in its name stands for one row of each value.
    """

    rows: tuple[Row, ...]
    marks: dict[str, list[str]] = field(default_factory=dict)

    def each(self) -> list[Row]:
        """Return the rows, those with marks once for each value."""
        rows = list(self.rows)
        for mark, values in self.marks.items():
            rows = [one for row in rows for one in _each(row, f"{{{mark}}}", values)]
        return rows


def _each(row: Row, mark: str, values: list[str]) -> list[Row]:
    """Return a row once for each value of a mark in its name."""
    if mark not in row.name:
        return [row]
    made = []
    for value in values:
        name, *words = (text.replace(mark, value) for text in (row.name, *row.command))
        after = tuple(text.replace(mark, value) for text in row.after)
        made.append(Row(name, tuple(words), row.minutes, after))
    return made


def read_rows(source: str, only: list[str] | None) -> list[Row]:
    """Read the rows of a file, or of one of this folder's lists by its name."""
    path = HERE / "rows" / f"{source}.yaml"
    path = path if path.is_file() else Path(source)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        known = ", ".join(sorted(file.stem for file in (HERE / "rows").glob("*.yaml")))
        raise InputError(
            f"--rows is {source!r}; expected a readable YAML file, or one of: {known}."
        ) from error
    rows = from_dict(Rows, found, where=str(path)).each()
    names = [row.name for row in rows]
    for name in only or ():
        if name not in names:
            raise InputError(f"--only names {name!r}; the rows are: {', '.join(names)}.")
    return [row for row in rows if not only or row.name in only]


class Session:
    """The time that there is, and what was done in it.

    Args:
        out: Folder of everything.
        minutes: Time for all rows.
        words: What is filled into commands.
        at_once: Rows that run at the same time.
    """

    def __init__(self, out: Path, minutes: float, words: dict[str, str], at_once: int = 1) -> None:
        self.out, self.words, self.at_once = out, words, at_once
        self.end = time.monotonic() + 60.0 * minutes
        self.running: dict[subprocess.Popen[bytes], tuple[Row, float]] = {}
        self.stopped = False
        (out / OUTPUTS).mkdir(parents=True, exist_ok=True)

    def finished(self) -> set[str]:
        """Return the names of rows that ended well, in this call or an earlier one."""
        path = self.out / LOG
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith("}")]  # a cut-off last line is none
        return {entry["row"] for entry in entries if entry["code"] == 0}

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Ask the rows to stop, and start no other."""
        self.stopped = True
        for process in self.running:
            process.terminate()

    def complete(self, rows: list[Row]) -> None:
        """Run the rows that are not finished, each as soon as it may, and log how they ended."""
        waiting = [row for row in rows if row.name not in self.finished()]
        while waiting or self.running:
            self._collect()
            over = self.stopped or self.end - time.monotonic() < LEAST
            done = self.finished()
            ready = [row for row in waiting if over or set(row.after) <= done]
            if not ready and not self.running:  # what they wait for has failed
                ready, over = waiting, True
            for row in ready if over else ready[: self.at_once - len(self.running)]:
                waiting.remove(row)
                if over:
                    self._log(row, None, 0.0, "not started: no time left, or a row before it failed")
                else:
                    self._start(row)
            time.sleep(PAUSE)

    def _start(self, row: Row) -> None:
        command = [word.format(**self.words) for word in row.command]
        with (self.out / OUTPUTS / f"{row.name}.txt").open("ab") as output:
            try:
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            except OSError as error:
                self._log(row, None, 0.0, f"not started: {error}")
                return
        self.running[process] = row, time.monotonic()

    def _collect(self) -> None:
        """Log the rows that have ended, and end those that are out of time."""
        if time.monotonic() >= self.end:  # all of them at once, before the first one is waited for
            for process in self.running:
                process.terminate()
        for process, (row, started) in list(self.running.items()):
            seconds, note = time.monotonic() - started, ""
            if process.poll() is None:
                if time.monotonic() < self.end and seconds < 60.0 * row.minutes:
                    continue
                note = "out of time"
                self._end(process)
            del self.running[process]
            self._log(row, process.returncode, seconds, "stopped" if self.stopped else note)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _log(self, row: Row, code: int | None, seconds: float, note: str) -> None:
        entry: dict[str, Any] = {"row": row.name, "code": code, "seconds": round(seconds, 1), "note": note}
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)

    def pack(self, megabytes: float, patterns: list[str]) -> None:
        """Cut the files of these patterns into pieces."""
        found = {path for pattern in patterns for path in self.out.glob(pattern) if path.is_file()}
        names = sorted(
            str(path.relative_to(self.out))
            for path in found
            if not set(path.relative_to(self.out).parts) & set(LEFT_OUT)
        )
        for old in (self.out / PIECES).glob("*"):
            old.unlink()
        cut(archive(self.out, names), self.out / PIECES, megabytes)


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", default="first", help="a YAML file, or a list by name (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", help="only these rows")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all rows (default: %(default)s)")
    parser.add_argument(
        "--piece-size", type=float, default=16.0, help="MiB of a piece (default: %(default)s)"
    )
    parser.add_argument("--at-once", type=int, default=1, help="rows at the same time (default: %(default)s)")
    parser.add_argument(
        "--bring", nargs="+", default=["**/*"], help="patterns of files to pack (default: %(default)s)"
    )
    parser.add_argument("--data", default="cifar10-subset", help="as `warplca train` takes it")
    parser.add_argument("--device", default="cuda", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="(default: %(default)s)")
    return parser


def main() -> int:
    """Run the rows."""
    args = options().parse_args()
    words = {"data": args.data, "out": str(args.out), "device": args.device}
    words |= {"python": sys.executable, "here": str(HERE), "cores": str(max((os.cpu_count() or 1) - 2, 1))}
    try:
        rows = read_rows(args.rows, args.only)
        session = Session(args.out, args.minutes, words, args.at_once)
        signal.signal(signal.SIGTERM, session.stop)
        signal.signal(signal.SIGINT, session.stop)
        os.environ.setdefault("PYTHONUNBUFFERED", "1")
        try:
            session.complete(rows)
        finally:
            session.pack(args.piece_size, args.bring)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if {row.name for row in rows} <= session.finished() else 1


if __name__ == "__main__":
    sys.exit(main())
