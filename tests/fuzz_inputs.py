"""Sound inputs, and seeded ways to break copies of them; `fuzz.py` runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image

from warplca.cli.main import main
from warplca.configs.integrity import write_manifest
from warplca.data import ImageDataset, save_npz
from warplca.models import create_classifier, export_onnx, save_checkpoint

ODD: tuple[object, ...] = (
    *(
        None,
        True,
        -1,
        0,
        10**9,
        2**70,
        0.5,
        -0.0,
        float("nan"),
        float("inf"),
        "",
        " ",
        "x",
        "\x1b[31m",
        "../../etc/passwd",
    ),
    *(
        [],
        [[]],
        {},
        {"name": "conv"},
        {"": 1},
        [1, 2, 3],
        "\udc80",
        "a\nb",
        "é" * 300,
        ["a", "a"],
        {"x": {"y": []}},
    ),
)
NAMES = ("ant", "bee")
OUT_OF_RANGE = (
    "train.weight_decay=-1; train.clip_norm=-1; train.learning_rate=-0.1; train.learning_rate=.nan; train.loss={a: 1}; "
    "train.learning_rate=.inf; train.augment.noise=.inf; train.sgd_momentum=1.5; train.crop_padding=-1; train.seed=-1; "
    "train.validation_images=-1; train.save_minutes=-1; train.weight_decay=.nan; train.frontend.rate=.nan; =; train; "
    "train.loss={name: pgd, threat: linf 8}; train.loss={name: pgd, threat: linf 1e9}; train..epochs=1; "
    "train.batch_size=0; train.loss={name: pgd, beta: 2}; model.num_classes=1; "
    "model.frontend={name: lca, iterations: 0}; train.epochs=0; model.frontend={name: conv, features: -1}; "
    "model.backbone=vit_tiny_patch16_224; model.backbone_options={depth: -3}"
)
FILES = ("checkpoint_path", "pretrained_cfg", "cache_dir", "pretrained")


@dataclass(frozen=True)
class Case:
    """One input: what it is, the command, and whether it must be refused (None: either is right)."""

    kind: str
    command: list[str]
    refused: bool | None = None


class Fuzz:
    """Sound inputs in a folder, and ways to break copies of them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.draw = root, random.Random(seed)
        torch.manual_seed(0)
        model = create_classifier(
            "resnet10_slim", {"name": "conv", "features": 4, "kernel_size": 5}, 2
        ).eval()
        pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        data = ImageDataset("tiny", pixels, np.arange(8) % 2, NAMES)
        save_npz(root / "tiny.npz", data, data)
        save_checkpoint(model, root / "good", class_names=NAMES, source=str(root / "tiny.npz"))
        export_onnx(model, root / "good.onnx", data.tensors()[0])
        Image.fromarray(pixels[0]).save(root / "good.png")
        for seed_ in ("1", "2"):
            run = [
                "evaluate",
                "--checkpoint",
                str(root / "good"),
                "--plan",
                "clean",
                "--results",
                str(root / "r.sqlite"),
            ]
            quietly([*run, "--name", f"m{seed_}", "--model-seed", seed_])

    def bytes_of(self, name: str) -> bytes:
        """A file's bytes, broken in one way or another."""
        data = bytearray((self.root / name).read_bytes())
        way = self.draw.randrange(5)
        if way == 0:
            return bytes(data[: self.draw.randrange(len(data))])
        if way == 1:
            return self.draw.randbytes(self.draw.randrange(200))
        if way == 2:
            place = self.draw.randrange(len(data))
            return bytes(data[:place] + self.draw.randbytes(self.draw.randrange(1, 40)) + data[place:])
        for _ in range(self.draw.randrange(1, 8)):
            data[self.draw.randrange(min(len(data), 200) if way == 3 else len(data))] = self.draw.randrange(
                256
            )
        return bytes(data)

    def broken(self, name: str) -> Path:
        """A broken copy of a file."""
        path = self.root / f"broken-{name}"
        path.write_bytes(self.bytes_of(name))
        return path

    def picture(self) -> Case:
        """A picture in some format and kind of pixel, mostly broken."""
        kind = self.draw.choice(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
        modes = {
            "PNG": ["L", "LA", "P", "RGBA", "1", "I;16"],
            "TIFF": ["L", "F", "I", "CMYK", "I;16"],
            "GIF": ["P", "L"],
        }
        source = Image.open(self.root / "good.png")
        mode = self.draw.choice([*modes.get(kind, []), "RGB"])
        source = source.convert("L").convert(mode) if mode in ("I", "F", "I;16") else source.convert(mode)
        buffer = io.BytesIO()
        source.save(buffer, kind)
        (self.root / "whole").write_bytes(buffer.getvalue())
        path = self.root / f"picture.{kind.lower()}"
        path.write_bytes(self.bytes_of("whole") if self.draw.random() < 0.8 else buffer.getvalue())
        command = self.draw.choice(["predict", "denoise"]) if kind in ("PNG", "JPEG") else "predict"
        if command == "denoise":
            more = ["--out", str(self.root / "denoised"), "--overwrite", "--iterations", "1"]
            return Case("picture", ["denoise", str(path), *more])
        return Case("picture", ["predict", str(path), "--checkpoint", str(self.root / "good")])

    def data(self) -> Case:
        """A broken data set file, or one with arrays of other types and shapes."""
        evaluate = ["evaluate", "--checkpoint", str(self.root / "good"), "--plan", "clean"]
        evaluate += ["--results", str(self.root / "d.sqlite"), "--replace", "--data"]
        if self.draw.random() < 0.4:
            return Case("npz", [*evaluate, str(self.broken("tiny.npz"))])
        with np.load(self.root / "tiny.npz") as file:
            arrays = {name: file[name] for name in file.files}
        name = self.draw.choice([name for name in arrays if not name.startswith("train")])
        changes: list[Callable[[np.ndarray], np.ndarray]] = [
            lambda a: a[:0],
            lambda a: a.ravel()[1:],
            lambda a: a[None],
            lambda a: a[:3],
            lambda a: np.array(7),
            lambda a: np.full(a.shape, np.nan),
            lambda a: a.astype("S"),
        ]
        arrays[name] = self.draw.choice(changes)(arrays[name])
        np.savez(self.root / "odd.npz", **arrays)
        return Case(
            "npz arrays", [*evaluate, str(self.root / "odd.npz")], refused=name != "class_names" or None
        )

    def checkpoint(self) -> Case:
        """A checkpoint with one value of its description replaced, or one of its files broken."""
        folder = self.root / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.root / "good", folder)
        signed = self.draw.random() < 0.8
        if self.draw.random() < 0.3:
            name = self.draw.choice(["model.safetensors", "config.json", "SHA256SUMS"])
            (folder / name).write_bytes(self.bytes_of(f"good/{name}"))
            signed = signed and name != "SHA256SUMS"
        else:
            config = json.loads((folder / "config.json").read_text())
            place = self.draw.choice(list(places(config)))
            inner = config
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = self.draw.choice(ODD)
            (folder / "config.json").write_text(json.dumps(config))
        if signed:
            write_manifest(folder, ("model.safetensors", "config.json"))
        command = self.draw.choice(["info", "predict"])
        if command == "info":
            return Case("checkpoint", ["info", str(folder)])
        return Case("checkpoint", ["predict", str(self.root / "good.png"), "--checkpoint", str(folder)])

    def onnx(self) -> Case:
        """A broken ONNX file, or one that says odd things of itself."""
        path = self.root / "bad.onnx"
        if self.draw.random() < 0.6:
            path.write_bytes(self.bytes_of("good.onnx"))
        else:
            model = onnx.load(str(self.root / "good.onnx"))
            entry = next(entry for entry in model.metadata_props if entry.key == "warplca")
            description = json.loads(entry.value)
            description[self.draw.choice([*description])] = self.draw.choice(ODD)
            entry.value = self.draw.choice([json.dumps(description), "{", "[]", "null", "\x00"])
            onnx.save(model, str(path))
        return Case("onnx", ["predict", str(self.root / "good.png"), "--checkpoint", str(path)])

    def store(self) -> Case:
        """A results store with a broken byte, or a value of another type in a row."""
        path = self.root / "bad.sqlite"
        if self.draw.random() < 0.5:
            path.write_bytes(self.bytes_of("r.sqlite"))
        else:
            shutil.copy(self.root / "r.sqlite", path)
            with contextlib.closing(sqlite3.connect(path)) as database, database:
                table = self.draw.choice(["cells", "image_sets"])
                columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                value = self.draw.choice(["x", -3, 2.5, b"x", b"\x78\x9c", 2**40, "\x1b[2J"])
                with contextlib.suppress(sqlite3.Error):
                    database.execute(f"UPDATE {table} SET {self.draw.choice(columns)} = ?", (value,))
        report = ["--report", str(self.root / "r.html")] if self.draw.random() < 0.1 else []
        return Case("store", ["compare", "--results", str(path), "--baseline", "m1", *report])

    def configuration(self) -> Case:
        """A configuration that is broken YAML, or whose keys and values are odd; never one that trains."""
        path = self.root / "c.yaml"
        text = self.draw.choice(
            [
                "a: &a [x, x]\n"
                + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwx")),
                "train: {epochs: 1}\ntrain: {epochs: 2}\n",
                "model: &m {backbone_options: *m}\n",
                "[" * 3000,
                "\x00",
                "- 1\n",
                "? [a]\n: b\n",
                "base: c.yaml\n",
                "!!python/object/apply:os.system [ls]\n",
                "train: 2026-13-45\n",
                f"model: {{backbone_options: {{{self.draw.choice(FILES)}: /x}}}}\n",
            ]
        )
        path.write_text(text)
        return Case("yaml", ["train", "--config", str(path), *self.train()], refused=True)

    def setting(self) -> Case:
        """One setting out of range on the command line."""
        wrong = self.draw.choice([*OUT_OF_RANGE.split("; "), f"train.epochs={{a: {self.draw.random()}}}"])
        return Case("setting", ["train", "--config", "conv", *self.train(), wrong], refused=True)

    def train(self) -> list[str]:
        """The rest of a command that trains."""
        return [
            "--data",
            str(self.root / "tiny.npz"),
            "--out",
            str(self.root / f"run{self.draw.random()}"),
            "train.validation_images=0",
        ]

    def arguments(self) -> Case:
        """Odd words in the place of names, files and numbers."""
        word = self.draw.choice(
            [
                "",
                " ",
                "\x1b]0;x\x07",
                "-1",
                "nan",
                "\udc80",
                "/dev/zero",
                "/",
                ".",
                "x" * 5000,
                "~",
                "a\nb",
                "%s{}",
            ]
        )
        good, picture = str(self.root / "good"), str(self.root / "good.png")
        if self.draw.random() < 0.1:
            word = str(self.root / "pipe")
            Path(word).exists() or os.mkfifo(word)
        command = self.draw.choice(
            [
                ["predict", word, "--checkpoint", good],
                ["predict", picture, "--checkpoint", word],
                ["info", word],
                ["evaluate", "--checkpoint", good, "--plan", "clean", "--data", word],
                ["evaluate", "--checkpoint", word],
                ["compare", "--results", word, "--baseline", "m1"],
                ["compare", "--results", str(self.root / "r.sqlite"), "--baseline", word],
                ["denoise", word, "--out", str(self.root / "o")],
                ["denoise", picture, "--out", str(self.root / "o"), "--frontend", word],
                ["train", "--config", word, *self.train()],
                ["corrupt", "--data", word, "--out", str(self.root / "c")],
                ["predict", picture, "--checkpoint", good, "--top", word],
                [word],
                ["prime", "--data", word, "--out", str(self.root / "p")],
                ["train", "--config", "conv", "--data", word, "--out", str(self.root / "t")],
            ]
        )
        return Case("argument", command, refused=True if word == "" else None)

    def cases(self, count: int) -> Iterator[Case]:
        """So many inputs of all kinds."""
        kinds = [
            self.picture,
            self.data,
            self.checkpoint,
            self.onnx,
            self.store,
            self.configuration,
            self.setting,
            self.arguments,
        ]
        for number in range(count):
            yield kinds[number % len(kinds)]()


def quietly(command: list[str]) -> tuple[int, str]:
    """Run a command; return its exit code and what it says of a mistake."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            return main(command), said.getvalue()
        except SystemExit as stop:
            return int(stop.code or 0), said.getvalue()


def places(config: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in nested mappings and lists."""
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places(value, (*before, key))
