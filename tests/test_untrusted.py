"""Files of others: refused in a sentence before they are read, run or given memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fuzz_inputs import ODD, places
from safetensors.torch import load_file, save_file

from warplca.cli.main import main
from warplca.configs import InputError, ModelConfig, RunConfig, from_dict
from warplca.configs.integrity import is_pickle, write_manifest
from warplca.configs.untrusted import parse_json, parse_yaml, read_text
from warplca.data import load_dataset
from warplca.frontend import WarpLCA
from warplca.frontend.pretrained import open_primed, save_frontend
from warplca.models import create_classifier, load_checkpoint, open_predictor, save_checkpoint
from warplca.models.card import model_card, summary
from warplca.models.card_checks import described
from warplca.models.export.program import load_program


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = create_classifier("resnet10_slim", {"name": "conv", "features": 8, "kernel_size": 5}, 2)
    save_checkpoint(model, tmp_path / "c", class_names=("ant", "bee"))
    return tmp_path / "c"


def changed(folder: Path, *keys: str, value: object) -> None:
    """Change a value of the description and sign it anew, as whoever made the file would."""
    config = inner = json.loads((folder / "config.json").read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    write_manifest(folder, ("model.safetensors", "config.json"))


def in_npy(data: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([data], dtype=object), allow_pickle=True)
    return buffer.getvalue()


PACKED = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "plain": bytes,
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("packed", PACKED)
def test_pickles_of_every_protocol_and_packing_are_known(tmp_path: Path, protocol: int, packed: str) -> None:
    (tmp_path / "weights.bin").write_bytes(
        PACKED[packed](pickle.dumps(Payload(tmp_path / "x"), protocol=protocol))
    )
    assert is_pickle(tmp_path / "weights.bin")


@pytest.mark.parametrize("place", ["extra/deep/x.dat", "x.npy"])
def test_pickles_in_folders_and_arrays_are_refused(folder: Path, place: str) -> None:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    payload = Payload(folder.parent / "executed")
    (folder / place).write_bytes(in_npy(payload) if place.endswith("npy") else pickle.dumps(payload))
    with pytest.raises(InputError, match="is a pickle"):
        load_checkpoint(folder)
    assert not (folder.parent / "executed").exists()


@pytest.mark.parametrize("text", ["condition,a\nfoo\n", "Notes.", "# Read me\n", "{}", "", "I am\n", "c\n\n"])
def test_text_is_no_pickle(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    assert not is_pickle(tmp_path / "x.txt")


def test_safetensors_of_every_header_length_are_no_pickles(tmp_path: Path) -> None:
    for length in range(0, 700):
        save_file({"w": torch.zeros(1)}, tmp_path / "m.safetensors", {"x": "y" * length})
        assert not is_pickle(tmp_path / "m.safetensors"), length


@pytest.mark.parametrize("listed", ["", "model.safetensors", "config.json"])
def test_a_manifest_must_list_weights_and_description(folder: Path, listed: str) -> None:
    write_manifest(folder, [listed] if listed else [])
    with pytest.raises(InputError, match=r"SHA256SUMS does not list"):
        load_checkpoint(folder)


def test_primed_frontends_have_manifests_that_are_checked(tmp_path: Path) -> None:
    save_frontend(WarpLCA(features=4, kernel_size=5).eval(), tmp_path / "f", card="")
    open_primed(tmp_path / "f")
    with (tmp_path / "f" / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(InputError, match=r"config\.json is not the file that was saved"):
        open_primed(tmp_path / "f")


@pytest.mark.parametrize(
    "name", ["checkpoint_path", "pretrained_cfg", "pretrained", "cache_dir", "pretrained_cfg_overlay"]
)
def test_options_that_reach_files_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"backbone_options has '{name}'"):
        ModelConfig(backbone_options={name: "/tmp/x"})
    changed(folder, "warplca", "model", "backbone_options", value={name: "/tmp/x"})
    with pytest.raises(InputError, match=f"backbone_options has '{name}'"):
        load_checkpoint(folder)


def test_no_archive_is_opened_without_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "m.pt2")
    monkeypatch.setattr(torch.export, "load", lambda *a, **k: pytest.fail("torch saw it"))
    monkeypatch.setattr(torch._C, "PyTorchFileReader", lambda *a: pytest.fail("torch saw it"))
    with pytest.raises(InputError, match="it was not opened.*consent with --trust"):
        load_program(tmp_path / "m.pt2")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("pretrained_cfg", "input_size"), [3, 0, 32], "input_size is"),
        (("num_classes",), "two", "num_classes"),
        (("warplca", "class_names"), ["ant", "ant"], "comes twice"),
        (("warplca", "class_names"), ["ant", "\x1b[2J"], "control characters"),
        (("warplca", "evidence"), {"cells": [{"kind": 1}]}, "no measured cell"),
        (("warplca", "model"), [], "model is"),
        (("pretrained_cfg", "crop_mode"), "squash", "prepares images in a way"),
        (
            ("warplca", "model", "backbone_options"),
            {"channels": [10**6] * 4},
            "far larger than|cannot be built",
        ),
        (
            ("warplca", "model", "frontend"),
            {"name": "lca", "features": 10**8},
            "far larger than|cannot be built",
        ),
    ],
)
def test_descriptions_are_checked_before_they_are_used(
    folder: Path, keys: tuple[str, ...], value: object, message: str
) -> None:
    changed(folder, *keys, value=value)
    with pytest.raises(InputError, match=message):
        load_checkpoint(folder)


CELLS = [
    {"kind": "clean", "condition": "clean", "accuracy": 0.5, "low": 0.4, "high": 0.6, "images": 9},
    {"kind": "attack", "condition": "pgd", "threat": "linf 8/255", "accuracy": 0.1, "images": 9},
    {"kind": "corruption", "condition": "fog", "severity": 3, "accuracy": 0.3, "images": 9},
    {"kind": "corruption", "condition": "fog", "severity": 5, "accuracy": 0.2, "images": 9},
]


def test_a_description_with_any_odd_value_is_shown_or_refused() -> None:
    whole = {
        "num_classes": 2,
        "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0},
        "warplca": {
            **{
                "format": 2,
                "version": "1",
                "torch": "2",
                "timm": "1",
                "parameters": 7,
                "class_names": ["a", "b"],
            },
            **{"source": "x", "training": {"seed": 0}, "results": {"clean": "50 %"}},
            "model": {"backbone": "r", "frontend": [{"name": "conv", "features": 4}, {"name": "none"}]},
            "evidence": {"cells": CELLS, "settings": {"seeds": "0"}, "verdict": {"fgsm": "trusted"}},
        },
    }
    shown = refused = 0
    for place in places(whole):
        for odd in (*ODD, 10**400, -5, 7.5, [CELLS[0]], CELLS[0], [{**CELLS[2], "severity": None}]):
            config = inner = json.loads(json.dumps(whole))
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = odd
            try:
                card = described(parse_json(json.dumps(config), "x"), Path("x"))
                assert summary(card)
                assert "evidence" not in place or model_card(card).encode()
                shown += 1
            except InputError:
                refused += 1
    assert min(shown, refused) > 300


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["backbone.fc.weight"][0, 0] = torch.nan
    save_file(state, folder / "model.safetensors")
    write_manifest(folder, ("model.safetensors", "config.json"))
    with pytest.raises(InputError, match=r"not finite, first in 'backbone\.fc\.weight'"):
        load_checkpoint(folder)


def test_yaml_and_json_are_bounded(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrs"))
    for text, message in (
        (bomb, "grows beyond"),
        ("a: &a [*a]", "repeats a part inside itself"),
        ("train: {a: 1, a: 2}", "has the key 'a' twice"),
        ("[" * 5000, "is not valid YAML"),
        ("a: \x00", "is not valid YAML"),
    ):
        with pytest.raises(InputError, match=message):
            parse_yaml(text, "x.yaml")
    with pytest.raises(InputError, match="no valid JSON"):
        parse_json("[" * 100_000, "x.json")
    assert parse_yaml("base: &b {a: 1}\nx: {<<: *b, c: 2}", "x.yaml")["x"] == {"a": 1, "c": 2}
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="is a pipe"):
        read_text(tmp_path / "pipe")
    for kind in ("loop", "absent", "\0"):
        with pytest.raises(InputError, match="cannot be read|there is no"):
            read_text(tmp_path / kind)


def test_an_archive_that_grows_is_not_unpacked(tmp_path: Path) -> None:
    zeros = np.zeros((40_000, 32, 32, 3), np.uint8)
    names = np.array(["a", "b"])
    np.savez_compressed(
        tmp_path / "bomb.npz", test_images=zeros, test_labels=np.zeros(40_000, int), class_names=names
    )
    with pytest.raises(InputError, match=r"grows from .* to 117 MB; it was not unpacked"):
        load_dataset(tmp_path / "bomb.npz", "test")


@pytest.mark.parametrize("kind", ["loop", "giant", "elsewhere"])
def test_onnx_files_that_cannot_end_or_reach_out_are_refused(tmp_path: Path, kind: str) -> None:
    helper, numbers = onnx.helper, onnx.TensorProto
    image = helper.make_tensor_value_info("images", numbers.FLOAT, ["n", 3, 8, 8])
    tensor = helper.make_tensor("w", numbers.FLOAT, [0], [])
    if kind == "giant":
        tensor.dims[:] = [2**40]
    if kind == "elsewhere":
        tensor.data_location = numbers.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
    node = helper.make_node("Loop" if kind == "loop" else "Identity", ["images"], ["y"])
    graph = helper.make_graph(
        [node], "g", [image], [helper.make_tensor_value_info("y", numbers.FLOAT, None)], [tensor]
    )
    (tmp_path / "x.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    messages = {
        "loop": "operator Loop, which may never end",
        "giant": "of shape",
        "elsewhere": "weights in other files",
    }
    with pytest.raises(InputError, match=messages[kind]):
        open_predictor(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    "setting",
    [
        "weight_decay=-1",
        "clip_norm=-1",
        "learning_rate=.nan",
        "augment={noise: .inf}",
        "seed=-1",
        "save_minutes=.nan",
    ],
)
def test_settings_out_of_range_are_refused(setting: str) -> None:
    key, _, value = setting.partition("=")
    with pytest.raises(InputError, match=key if "{" not in value else "noise"):
        from_dict(RunConfig, {"train": {key: parse_yaml(value, "x")}}, where="x")


def test_escapes_and_names_beyond_the_terminal_are_spelled_out(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "\x1b[2Jx"]) == 2
    assert "\x1b" not in capfd.readouterr().err
    command = [
        sys.executable,
        "-c",
        "import sys; from warplca.cli.main import main; sys.exit(main(sys.argv[1:]))",
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command += ["compare", "--baseline", "x", "--results", "ä\u2603"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "\\u2603" in done.stderr


@pytest.mark.parametrize("option", ["--data", "--out", "--config"])
def test_an_empty_option_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--data", "x", "--out", "y", option, ""])
    assert stop.value.code == 2
    assert f"{option} is empty" in capsys.readouterr().err
