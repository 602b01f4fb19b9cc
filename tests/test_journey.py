"""Data of other people's through every command with the defaults, and two of everything in one store."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warplca.cli.main import main
from warplca.data import load_dataset
from warplca.models import load_checkpoint

QUICK = ("train.epochs=1", "train.validation_images=0", "train.batch_size=12", "model.backbone=resnet10_slim")
PLAN = ("corruptions=[]", "attacks=[]")


def folder(root: Path, names: tuple[str, ...], *, grey: bool, side: int = 64, seed: int = 0) -> Path:
    """A folder of pictures whose class is plain to see: stripes of another width for each class."""
    draw = np.random.default_rng(seed)
    for split, count in (("train", 9), ("val", 5)):
        for label, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                wave = np.sin(np.arange(side) * np.pi / (3 + 4 * label) + draw.uniform(0, 6))
                pixels = np.repeat((127 + 90 * wave)[:, None], side, 1) + draw.normal(0, 8, (side, side))
                values = pixels.clip(0, 255).astype(np.uint8)
                shown = values if grey else np.repeat(values[..., None], 3, axis=2)
                Image.fromarray(shown).save(root / split / name / f"{number}.png")
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def rows(store: Path) -> set[tuple[object, ...]]:
    with sqlite3.connect(store) as database:
        return set(
            database.execute("SELECT model, model_seed, dataset, condition, fingerprint, correct FROM cells")
        )


@pytest.mark.parametrize(
    ("names", "grey"),
    [
        pytest.param(("zebra", "ant"), True, id="two grey"),
        pytest.param(("c10", "c2", "c1"), False, id="three", marks=pytest.mark.slow),
    ],
)
def test_foreign_data_pass_through_every_command_with_the_defaults(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    names: tuple[str, ...],
    grey: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = folder(tmp_path / "mine", names, grey=grey)
    for seed, config in ((0, "conv"), (1, "none")):
        run(
            capsys,
            "train",
            "--config",
            config,
            "--data",
            data,
            "--out",
            f"runs/{config}",
            *QUICK,
            f"train.seed={seed}",
        )
        out = run(capsys, "evaluate", "--checkpoint", f"runs/{config}/checkpoint", "--plan", "clean")
        assert f"data:        {data}" in out
        assert f"under the name '{config}'" in out
    checkpoint = json.loads(Path("runs/conv/checkpoint/config.json").read_text())
    assert checkpoint["warplca"]["class_names"] == sorted(names)
    assert checkpoint["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert "conv" in run(capsys, "compare", "--baseline", "none", "--report", "report.html")
    assert {(row[0], row[1]) for row in rows(tmp_path / "results.sqlite")} == {("conv", 0), ("none", 1)}
    exported = run(
        capsys,
        "export",
        "--checkpoint",
        "runs/conv/checkpoint",
        "--out",
        "model.onnx",
        "--results",
        "results.sqlite",
    )
    assert f"checked against PyTorch on {5 * len(names)} images" in exported
    picture = next((data / "val" / names[0]).iterdir())
    answers = [
        run(capsys, "predict", picture, "--checkpoint", source).split(": ", 1)[1].split(",")[0].rsplit(" ", 1)
        for source in ("runs/conv/checkpoint", "model.onnx")
    ]
    assert answers[0][0] == answers[1][0]
    assert answers[0][0] in names
    permuted = tmp_path / "permuted.npz"
    test = load_dataset(data, "test")
    order = np.roll(np.arange(len(names)), 1)  # another order of the same names: class i is now called last
    np.savez(
        permuted,
        test_images=test.images,
        test_labels=np.argsort(order)[test.labels],
        class_names=np.array(test.class_names)[order],
    )
    run(capsys, "evaluate", "--checkpoint", "runs/conv/checkpoint", "--plan", "clean", "--data", permuted)
    correct = {row[2]: row[5] for row in rows(tmp_path / "results.sqlite") if row[0] == "conv"}
    assert correct["permuted-test"] == correct["mine-test"]
    for wrong, message in (
        ("cifar10-subset", "images of 32 x 32 pixels, and the checkpoint is for 64 x 64"),
    ):
        assert (
            main(["evaluate", "--checkpoint", "runs/conv/checkpoint", "--plan", "clean", "--data", wrong])
            == 2
        )
        assert message in capsys.readouterr().err
    for name in names:  # the checkpoint's own data are gone, and nothing here fits it
        (data / "train" / name).rename(data / f"gone-{name}")
    data.rename(tmp_path / "elsewhere")
    assert main(["evaluate", "--checkpoint", "runs/conv/checkpoint", "--plan", "clean"]) == 2
    assert "the data that the checkpoint was trained on are not to be had" in capsys.readouterr().err


def test_two_of_everything_and_nothing_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("ant", "bee")
    one = folder(tmp_path / "one", names, grey=False, side=32)
    two = folder(tmp_path / "two", names, grey=False, side=32, seed=1)
    seen: set[tuple[object, ...]] = set()
    for out, seed in (("a", 0), ("a2", 1), ("b", 0)):
        config = "conv" if out == "b" else "none"
        run(capsys, "train", "--config", config, "--data", one, "--out", out, *QUICK, f"train.seed={seed}")
        name = ("--name", "method") if out != "b" else ()
        for data in (one, two):
            run(
                capsys,
                "evaluate",
                "--checkpoint",
                f"{out}/checkpoint",
                "--data",
                data,
                "--plan",
                "clean",
                *name,
            )
            found = rows(tmp_path / "results.sqlite")
            assert found > seen
            seen = found
    assert len(seen) == 6
    run(capsys, "compare", "--baseline", "method", "--dataset", "one-test", "--report", "r.html")
    again = ("evaluate", "--checkpoint", "b/checkpoint", "--data", one, "--plan", "clean", "--name", "method")
    assert main([str(part) for part in again]) == 2
    assert "of another network under the name 'method' with training seed 0" in capsys.readouterr().err
    run(capsys, "export", "--checkpoint", "b/checkpoint", "--format", "safetensors", "--out", "copy")
    assert rows(tmp_path / "results.sqlite") == seen
    run(capsys, *again, "--replace")
    assert rows(tmp_path / "results.sqlite") < seen | {
        ("method", 0, "one-test", "clean", *row[4:]) for row in seen
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for refused in (
        ("export", "--checkpoint", "b/checkpoint", "--format", "safetensors", "--out", "notes"),
        ("export", "--checkpoint", "b/checkpoint", "--format", "safetensors", "--out", "b/checkpoint"),
        ("export", "--checkpoint", "b/checkpoint", "--out", "one/val/ant/0.png"),
        ("export", "--checkpoint", "b/checkpoint", "--out", "b/checkpoint/m.onnx"),
        ("compare", "--baseline", "method", "--dataset", "one-test", "--report", "results.sqlite"),
        ("compare", "--baseline", "method", "--dataset", "one-test", "--report", "a/run.json"),
        ("train", "--data", str(one), "--out", "b", "--config", "none", *QUICK),
        ("prime", "--data", str(one), "--out", "notes"),
    ):
        assert main(list(refused)) == 2, refused
    assert {path: path.read_bytes() for path in before} == before
    assert load_checkpoint("b/checkpoint").num_classes == 2
