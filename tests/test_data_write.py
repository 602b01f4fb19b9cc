"""Files of corrupted images: the official layout, written whole or not at all, resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from warplca.configs.errors import InputError
from warplca.data import ImageDataset, corrupt, load_dataset, write_corruptions
from warplca.data.corruptions import write

NAMES = ("fog", "contrast")


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return load_dataset("cifar10-subset", "test").subset(range(300))


@pytest.fixture
def folder(dataset: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written")
    write_corruptions(dataset, path, names=NAMES, severities=(2, 5), seed=7)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_layout_is_the_official_one(dataset: ImageDataset, folder: Path):
    assert {path.name for path in folder.iterdir()} == {
        "fog.npy",
        "contrast.npy",
        "labels.npy",
        "corruptions.json",
    }
    fog = np.load(folder / "fog.npy", allow_pickle=False)
    assert fog.shape == (600, 32, 32, 3)
    for block, severity in enumerate((2, 5)):
        expected = corrupt(dataset.images, "fog", severity=severity, seed=7, indices=dataset.indices)
        assert np.array_equal(fog[300 * block : 300 * (block + 1)], expected)
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.tile(dataset.labels, 2))


def test_header_has_the_official_length_so_that_checksums_can_agree(folder: Path):
    assert (folder / "fog.npy").stat().st_size == 600 * 32 * 32 * 3 + 128


def test_a_second_run_leaves_finished_files_alone(dataset: ImageDataset, folder: Path):
    before = (folder / "fog.npy").stat().st_mtime_ns
    paths = write_corruptions(dataset, folder, names=[*NAMES, "pixelate"], severities=(2, 5), seed=7)
    assert (folder / "fog.npy").stat().st_mtime_ns == before
    assert [path.name for path in paths] == ["fog.npy", "contrast.npy", "pixelate.npy"]
    assert paths[2].exists()


def test_damaged_and_interrupted_files_are_made_again(dataset: ImageDataset, folder: Path):
    whole = contents(folder)
    (folder / "fog.npy").write_bytes(whole["fog.npy"][:5000])
    manifest = json.loads(whole["corruptions.json"])
    del manifest["files"]["contrast"]
    (folder / "corruptions.json").write_text(json.dumps(manifest))
    (folder / ".fog.npy.123.part").write_bytes(b"left over")
    write_corruptions(dataset, folder, names=NAMES, severities=(2, 5), seed=7)
    again = contents(folder)
    assert {name: again[name] for name in again if name != "corruptions.json"} == {
        name: whole[name] for name in whole if name != "corruptions.json"
    }
    assert json.loads(again["corruptions.json"]) == json.loads(whole["corruptions.json"])


def test_an_interrupt_leaves_no_half_file(
    dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def interrupted(task: write.Task) -> np.ndarray:
        calls.append(task)
        if len(calls) == 6:  # two chunks a severity: within the second file
            raise KeyboardInterrupt
        return np.zeros_like(task[0])

    monkeypatch.setattr(write, "_corrupt_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_corruptions(dataset, tmp_path, names=NAMES, severities=(2, 5))
    assert {path.name for path in tmp_path.iterdir()} == {"fog.npy", "labels.npy", "corruptions.json"}


def test_workers_do_not_change_the_files(dataset: ImageDataset, folder: Path, tmp_path: Path):
    write_corruptions(dataset, tmp_path, names=NAMES, severities=(2, 5), seed=7, workers=2)
    assert contents(tmp_path) == contents(folder)


@pytest.mark.slow
def test_twenty_random_kills_and_the_same_files(dataset: ImageDataset, folder: Path, tmp_path: Path):
    script = (
        "from warplca.data import *\n"
        "dataset = load_dataset('cifar10-subset', 'test').subset(range(300))\n"
        "print('ready', flush=True)\n"
        f"write_corruptions(dataset, {str(tmp_path)!r}, names={NAMES!r}, severities=(2, 5), seed=7)\n"
    )
    moments = random.Random(0)
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as run:
            assert run.stdout is not None
            run.stdout.readline()
            time.sleep(moments.uniform(0, 0.3))
            os.kill(run.pid, signal.SIGKILL)
        for path in tmp_path.glob("*.npy"):
            assert path.read_bytes() == (folder / path.name).read_bytes()
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert contents(tmp_path) == contents(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "with seed 7; asked for 8"),
        ({"severities": (1,)}, r"with severities \(2, 5\); asked for \(1,\)"),
        ({"scale": "imagenet"}, "with scale cifar; asked for imagenet"),
        ({"names": ["fogg"]}, "did you mean 'fog'"),
        ({"severities": (6,)}, "the severity is 6"),
        ({"severities": ()}, "no severity was given"),
        ({"workers": 0}, "asked for 0 workers"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_changes(
    dataset: ImageDataset, folder: Path, change: dict, message: str
):
    before = contents(folder)
    with pytest.raises(InputError, match=message):
        write_corruptions(dataset, folder, **({"names": NAMES, "severities": (2, 5), "seed": 7} | change))
    assert contents(folder) == before


def test_files_of_others_are_never_overwritten(dataset: ImageDataset, tmp_path: Path):
    np.save(tmp_path / "fog.npy", np.zeros(3))
    with pytest.raises(
        InputError, match=r"holds fog\.npy but no corruptions\.json, so warplca did not make it"
    ):
        write_corruptions(dataset, tmp_path, names=["contrast"])
    assert [path.name for path in tmp_path.iterdir()] == ["fog.npy"]


def test_a_dead_worker_is_explained(dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def die(self: object, function: object, tasks: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(ProcessPoolExecutor, "map", die)
    with pytest.raises(InputError, match=r"a worker process died.*run again with workers=1"):
        write_corruptions(dataset, tmp_path, names=["fog"], workers=2)
    assert not list(tmp_path.glob("*fog*"))


def test_an_absent_package_is_noticed_before_anything_is_written(
    dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="spatter"):
        write_corruptions(dataset, tmp_path / "out", names=["fog", "spatter"])
    assert not (tmp_path / "out").exists()
