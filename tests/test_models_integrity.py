"""Checkpoint folders are verified, and pickles are never opened."""

import hashlib
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from warplca.configs import InputError
from warplca.models import Classifier, create_classifier, load_checkpoint, save_checkpoint


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(create_classifier("resnet10_slim", {"name": "conv", "features": 8}, 10), tmp_path / "c")
    return tmp_path / "c"


def test_the_payload_works(tmp_path):
    target = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(target)))  # noqa: S301 - shows that the tests below could fail
    assert target.exists()


def loaders():
    return [
        load_checkpoint,
        Classifier.from_pretrained,
        lambda folder: timm.create_model(f"local-dir:{folder}", pretrained=True),
    ]


@pytest.mark.parametrize("load", loaders(), ids=["load_checkpoint", "from_pretrained", "timm"])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(
            (name, form)
            for name in ("pytorch_model.bin", "model.pth", "x.txt")
            for form in ("pickle", "torch")
        ),
        ("state.pkl", "protocol 0"),  # text: known by its name only
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_pickle_in_the_folder_is_refused_and_never_executed(folder, load, name, form, alone):
    target = folder.parent / "executed"
    if form == "torch":
        torch.save({"x": Payload(target)}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Payload(target), protocol=0 if form == "protocol 0" else 4))
    if alone:
        (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"is a pickle, which can run any program .* was not opened"):
        load(folder)
    assert not target.exists()


def test_a_pickle_in_the_place_of_the_weights_is_refused(folder):
    target = folder.parent / "executed"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(target)))
    with pytest.raises(InputError, match="is a pickle"):
        load_checkpoint(folder)
    with pytest.raises(InputError, match="is a pickle"):
        load_checkpoint(folder / "model.safetensors")
    assert not target.exists()


def test_the_manifest_is_the_one_of_coreutils(folder):
    lines = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert lines == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "config.json")
    }
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_one_changed_byte_is_noticed(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(bytes(data))
    for load in loaders()[:2]:
        with pytest.raises(InputError, match=rf"{name} is not the file that was saved"):
            load(folder)


def test_timm_notices_changed_weights(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-2] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(InputError, match="is not the file that was saved"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)


def test_a_missing_file_and_a_damaged_manifest_are_explained(folder):
    (folder / "model.safetensors").rename(folder / "elsewhere")
    with pytest.raises(InputError, match=r"holds no model\.safetensors; copy the whole"):
        load_checkpoint(folder)
    (folder / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(InputError, match="SHA256SUMS is damaged: 'nonsense'"):
        load_checkpoint(folder)
    (folder / "SHA256SUMS").write_text("0" * 64 + "  ../../etc/passwd\n")
    with pytest.raises(InputError, match="SHA256SUMS is damaged"):
        load_checkpoint(folder)


def test_the_card_may_be_edited_and_an_old_folder_warns(folder, caplog):
    (folder / "README.md").write_text("My notes.")
    load_checkpoint(folder)
    assert not caplog.records
    (folder / "SHA256SUMS").unlink()
    load_checkpoint(folder)
    assert "used unverified" in caplog.text


def test_loading_takes_under_a_second(tmp_path):
    import time

    save_checkpoint(create_classifier("resnet18", "warp-lca"), tmp_path / "c")
    load_checkpoint(tmp_path / "c")
    seconds = []
    for _ in range(3):
        start = time.process_time()
        load_checkpoint(tmp_path / "c")
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 1.0
