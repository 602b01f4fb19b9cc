"""Files are replaced whole, by one writer, and only where warplca wrote what was there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from stripes import config, stripes

from warplca.configs import InputError, atomic
from warplca.configs.atomic import file_written_whole, folder_written_whole, only_one, recover
from warplca.data import download_cifar_c, write_corruptions
from warplca.data.download import Archive
from warplca.train import train
from warplca.train.folder import is_finished

HOLD = "import sys, time\nfrom pathlib import Path\nfrom warplca.configs.atomic import only_one, file_written_whole\n"


def ours(path: Path) -> bool:
    return path.name.startswith("ours") or (path / "mark").exists()


def holding(body: str, folder: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of something in a folder."""
    script = f"{HOLD}with {body}:\n    print('held', flush=True)\n    time.sleep(600)\n"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_only_what_is_ours_or_empty_is_replaced(tmp_path: Path) -> None:
    for name in ("full", "link", "file", "ours-file"):
        (tmp_path / name).mkdir() if name == "full" else (tmp_path / name).write_text("mine")
    (tmp_path / "full" / "notes").write_text("mine")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    for name in ("full", "link", "file"):
        for write in (file_written_whole, folder_written_whole):
            with (
                pytest.raises(InputError, match="was not written by warplca"),
                write(tmp_path / name, ours=ours),
            ):
                pytest.fail("the block was run")
    assert (tmp_path / "full" / "notes").read_text() == (tmp_path / "file").read_text() == "mine"
    with file_written_whole(tmp_path / "ours-file", ours=ours) as target:
        target.write_text("new")
    assert (tmp_path / "ours-file").read_text() == "new"
    (tmp_path / "empty").mkdir()
    for text in ("first", "second"):
        with folder_written_whole(tmp_path / "empty", ours=ours) as folder:
            (folder / "mark").write_text(text)
        assert (tmp_path / "empty" / "mark").read_text() == text
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_the_umask_is_obeyed(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with file_written_whole(tmp_path / "file") as target:
            target.write_text("x")
        with folder_written_whole(tmp_path / "folder", ours=ours) as folder:
            (folder / "mark").write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_never_lacks_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    place = tmp_path / "c[1]*"
    place.mkdir()
    (place / "mark").write_text("old")
    if not exchanges:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    renamed = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if Path(target) == place:
            raise KeyboardInterrupt  # stands for a kill: nothing of the program runs after it
        return renamed(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    if exchanges:
        with folder_written_whole(place, ours=ours) as folder:
            (folder / "mark").write_text("new")
        assert (place / "mark").read_text() == "new"  # no rename took part
        return
    with pytest.raises(KeyboardInterrupt), folder_written_whole(place, ours=ours) as folder:
        (folder / "mark").write_text("new")
    assert not place.exists()
    monkeypatch.setattr(Path, "rename", renamed)
    recover(place)
    assert (place / "mark").read_text() == "old"


def test_parts_of_killed_writers_are_swept_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    process = holding("file_written_whole(Path(sys.argv[1]) / 'x')", tmp_path)
    (living,) = tmp_path.glob(".x.*.part")
    try:
        with file_written_whole(tmp_path / "x") as target:
            target.write_text("mine")
        assert living.exists()
    finally:
        process.kill()
        process.communicate()
    assert living.exists()
    with file_written_whole(tmp_path / "x") as target:
        target.write_text("again")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_second_run_in_a_folder_is_refused_and_a_killed_one_leaves_it_free(tmp_path: Path) -> None:
    process = holding("only_one(Path(sys.argv[1]))", tmp_path)
    try:
        with pytest.raises(InputError, match=f"another process is writing to {tmp_path}"):
            train(config("conv", epochs=1), stripes(), tmp_path, progress=False)
    finally:
        process.kill()
        process.communicate()
    with only_one(tmp_path):
        pass


def test_finished_corruptions_may_be_asked_for_while_another_process_writes(tmp_path: Path) -> None:
    images = stripes()
    write_corruptions(images, tmp_path, names=["fog"], severities=[2])
    process = holding("only_one(Path(sys.argv[1]))", tmp_path)
    try:
        write_corruptions(images, tmp_path, names=["fog"], severities=[2])
        with pytest.raises(InputError, match=f"another process is writing to {tmp_path}"):
            write_corruptions(images, tmp_path, names=["fog", "contrast"], severities=[2])
    finally:
        process.kill()
        process.communicate()


def test_a_second_download_into_a_folder_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    process = holding("only_one(Path(sys.argv[1]))", tmp_path)
    (tmp_path / "CIFAR-10-C.tar.part").write_bytes(b"half")
    try:
        with pytest.raises(InputError, match=f"another process is writing to {tmp_path}"):
            download_cifar_c(tmp_path, archive=Archive("http://127.0.0.1:9/x", 4, ""))
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / "CIFAR-10-C.tar.part").read_bytes() == b"half"


def test_training_leaves_a_folder_of_the_users_alone(tmp_path: Path) -> None:
    for name, text in (("checkpoint/mine.txt", "mine"), ("run.json", "{}"), ("curves.csv", "a,b\n")):
        place = tmp_path / Path(name).parts[0].replace(".", "-")
        (place / name).parent.mkdir(parents=True)
        (place / name).write_text(text)
        with pytest.raises(InputError, match="was not written by warplca"):
            train(config("conv", epochs=1), stripes(), place, progress=False)
        assert [path.read_text() for path in place.rglob("*") if path.is_file()] == [text]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "SHA256SUMS"])
def test_a_damaged_checkpoint_of_a_finished_run_is_made_again(tmp_path: Path, name: str) -> None:
    run = config("conv", epochs=1)
    train(run, stripes(), tmp_path, progress=False)
    file = tmp_path / "checkpoint" / name
    weights = load_file(tmp_path / "checkpoint" / "model.safetensors")
    whole = {key: value.clone() for key, value in weights.items()}  # not mapped to the file that is damaged
    file.write_bytes(file.read_bytes()[:-3])
    assert not is_finished(tmp_path)
    train(run, stripes(), tmp_path, progress=False)
    assert is_finished(tmp_path)
    again = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert all(value.equal(again[key]) for key, value in whole.items())


def test_a_changed_header_of_a_state_is_noticed(tmp_path: Path) -> None:
    run = config("conv", epochs=1)
    train(run, stripes(), tmp_path, progress=False)
    (state,) = (tmp_path / "states").glob("step-*.safetensors")
    from safetensors import safe_open

    with safe_open(state, "pt") as file:
        about = json.loads(file.metadata()["warplca"])
    about["curves"][0]["train_loss"] = 0.0
    save_file(load_file(state), state, {"warplca": json.dumps(about)})
    with pytest.raises(InputError, match="cannot be read"):
        train(run, stripes(), tmp_path, progress=False)
