"""Work on a GPU that is lent for a while: rows with limits, a log, pieces; and the whole of it on the CPU, tiny."""

import json
import signal
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from stripes import stripes

from warplca.cli.parser import parse
from warplca.configs import InputError, RunConfig, load_config
from warplca.data import load_dataset, save_npz

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu"
sys.path.insert(0, str(GPU))

from pieces import cut, joined, pack_data, packed, unpack_data, unpacked  # noqa: E402
from run import Session, read_rows  # noqa: E402


def test_images_are_packed_without_loss(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    assert np.array_equal(unpacked(packed(images), 5, 7, 9), images)
    photographs = load_dataset("cifar10-subset", "test").images[:200]
    data = packed(photographs)
    assert np.array_equal(unpacked(data, *photographs.shape[:3]), photographs)
    assert len(data) < 0.65 * photographs.nbytes
    save_npz(tmp_path / "d.npz", stripes(40), stripes(8, seed=1))
    written = pack_data(tmp_path / "d.npz", tmp_path / "pieces", 0.01)
    assert len(written) > 2
    assert max(path.stat().st_size for path in written) <= 0.01 * 2**20
    unpack_data(tmp_path / "pieces", tmp_path / "again.npz")
    for split in ("train", "test"):
        one, other = (load_dataset(str(tmp_path / name), split) for name in ("d.npz", "again.npz"))
        assert one.fingerprint == other.fingerprint


def test_pieces_that_are_missing_or_damaged_are_refused(tmp_path):
    cut(b"0123456789" * 1000, tmp_path, 0.004)
    assert joined(tmp_path) == b"0123456789" * 1000
    (tmp_path / "piece-001").write_bytes(b"x" * 4000)
    with pytest.raises(InputError, match="are damaged; bring them again"):
        joined(tmp_path)
    (tmp_path / "piece-001").unlink()
    with pytest.raises(InputError, match="piece-001 is missing; bring all pieces"):
        joined(tmp_path)


def command(*words: object) -> list[str]:
    return [sys.executable, str(GPU / "run.py"), *map(str, words)]


def log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


ROWS = """
marks: {{arm: [a, b]}}
rows:
  - name: write-{{arm}}
    minutes: 1
    command: ["{python}", -c, "open(r'{{out}}/{{arm}}.txt', 'w').write('{{arm}}' * 3000)"]
  - {{name: fails, minutes: 1, command: ["{python}", -c, "raise SystemExit(3)"]}}
  - {{name: hangs, minutes: 0.02, command: ["{python}", -c, "import time; time.sleep(60)"]}}
  - {{name: missing, minutes: 1, command: [no-such-program]}}
  - {{name: last, minutes: 1, command: ["{python}", -c, "pass"]}}
"""


def test_a_row_that_fails_or_hangs_lets_the_next_one_run_and_all_is_brought_back(tmp_path):
    rows = tmp_path / "rows.yaml"
    rows.write_text(ROWS.format(python=sys.executable))
    words = {"out": str(tmp_path / "out")}
    session = Session(tmp_path / "out", 1.0, words)
    session.complete(read_rows(str(rows), None))
    codes = {entry["row"]: entry["code"] for entry in log(tmp_path / "out")}
    assert codes == {"write-a": 0, "write-b": 0, "fails": 3, "hangs": -15, "missing": None, "last": 0}
    assert {entry["note"] for entry in log(tmp_path / "out")} >= {"out of time"}
    assert session.finished() == {"write-a", "write-b", "last"}
    session.pack(0.01, ["**/*"])
    assert max(path.stat().st_size for path in (tmp_path / "out" / "pieces").iterdir()) <= 0.01 * 2**20
    assert b"aaa" in joined(tmp_path / "out" / "pieces")
    late = Session(tmp_path / "late", 0.0, words)
    late.complete(read_rows(str(rows), ["last"]))
    assert log(tmp_path / "late")[0]["note"].startswith("not started: no time left")
    with pytest.raises(InputError, match=r"--only names 'lost'; the rows are: write-a, write-b, fails"):
        read_rows(str(rows), ["lost"])
    with pytest.raises(InputError, match="expected a readable YAML file, or one of: arms, dry, field"):
        read_rows("none", None)
    assert [row.name for row in read_rows("arms", None)][:2] == ["train-none", "train-warp-lca"]


TOGETHER = """
marks: {{seed: ["0", "1"]}}
rows:
  - name: read-{{seed}}
    minutes: 1
    after: ["write-{{seed}}"]
    command: ["{python}", -c, "assert open(r'{{out}}/{{seed}}').read() == 'x'"]
  - name: write-{{seed}}
    minutes: 1
    command: ["{python}", -c, "import time; time.sleep(1); open(r'{{out}}/{{seed}}', 'w').write('x')"]
  - {{name: fails, minutes: 1, command: ["{python}", -c, "raise SystemExit(3)"]}}
  - {{name: never, minutes: 1, after: [fails], command: ["{python}", -c, "pass"]}}
"""


@pytest.mark.parametrize("rows", sorted(path.stem for path in (GPU / "rows").glob("*.yaml")))
def test_every_command_of_the_rows_is_one_that_the_command_line_takes(rows, monkeypatch):
    monkeypatch.chdir(GPU.parents[1])
    words = {name: f"x/{name}" for name in ("data", "out", "python")} | {
        "device": "cpu",
        "cores": "2",
        "here": str(GPU),
    }
    for row in read_rows(rows, None):
        parts = groupby((word.format(**words) for word in row.command[1:]), "--".__eq__)
        for command in (list(part) for separator, part in parts if not separator):
            while command[0] in ("-m", "warplca.cli.main", str(GPU / "together.py")):
                command = command[1:]
            if command[0].endswith(".py"):
                assert (GPU.parent / command[0]).is_file() or Path(command[0]).is_file(), row.name
            elif command[0] not in ("-c", "pytest"):
                taken = parse(command)
                if taken.command == "train":
                    load_config(RunConfig, taken.config, "train", taken.overrides)


def test_rows_run_together_each_after_those_that_it_needs(tmp_path):
    rows, out = tmp_path / "rows.yaml", tmp_path / "out"
    rows.write_text(TOGETHER.format(python=sys.executable))
    session = Session(out, 1.0, {"out": str(out)}, at_once=3)
    session.complete(read_rows(str(rows), None))
    codes = {entry["row"]: entry["code"] for entry in log(out)}
    assert codes == {"read-0": 0, "read-1": 0, "write-0": 0, "write-1": 0, "fails": 3, "never": None}
    session.pack(1.0, ["0", "*.jsonl"])
    assert {path.name for path in (out / "pieces").iterdir()} == {"piece-000", "pieces.json"}
    assert b"never" in joined(out / "pieces")


@pytest.mark.slow
def test_the_whole_session_runs_dry_on_the_cpu(tmp_path):
    data, out = tmp_path / "d.npz", tmp_path / "out"
    save_npz(data, stripes(300), stripes(40, seed=1))
    words = (
        "--rows",
        "dry",
        "--device",
        "cpu",
        "--data",
        data,
        "--out",
        out,
        "--minutes",
        15,
        "--piece-size",
        0.1,
    )
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False, cwd=GPU.parents[1])
    texts = {path.name: path.read_text()[-2000:] for path in (out / "outputs").iterdir()}
    assert done.returncode == 1, (done.stderr, texts)  # one row is there to fail
    codes = {entry["row"]: entry["code"] for entry in log(out)}
    assert codes == {"measured": 0, "train-none": 0, "fails": 3, "clean-none": 0}, texts
    figures = json.loads((out / "measured" / "rounding.json").read_text())["figures"]
    assert figures["float64"]["largest"] == 0.0
    brought = [
        sys.executable,
        str(GPU / "pieces.py"),
        "join",
        str(out / "pieces"),
        "--out",
        str(tmp_path / "back"),
    ]
    assert subprocess.run(brought, check=False).returncode == 0
    assert (tmp_path / "back" / "none" / "checkpoint" / "model.safetensors").is_file()
    assert (tmp_path / "back" / "results.sqlite").is_file()
    assert not (tmp_path / "back" / "none" / "states").exists()


@pytest.mark.slow
def test_sigterm_keeps_what_there_is(tmp_path):
    rows, out = tmp_path / "rows.yaml", tmp_path / "out"
    rows.write_text(ROWS.format(python=sys.executable).replace("minutes: 0.02", "minutes: 5"))
    process = subprocess.Popen(command("--rows", rows, "--out", out), stdout=subprocess.DEVNULL)
    while not (out / "outputs" / "hangs.txt").exists():
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    entries = {entry["row"]: entry for entry in log(out)}
    assert entries["hangs"]["note"] == "stopped"
    assert entries["last"]["note"] == "not started: no time left"
    assert b"aaa" in joined(out / "pieces")
