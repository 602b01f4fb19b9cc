"""Does a front-end help a classifier: both rows, one sentence; and hardening from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from stripes import QUIET

from warplca.cli.main import main
from warplca.configs import InputError
from warplca.configs.plan import EvaluationPlan
from warplca.data import load_dataset
from warplca.eval import Entry, ResultsStore, compare, evaluate
from warplca.eval.report.page import write_report
from warplca.eval.report.tables import gate_table
from warplca.eval.results.records import choose_images
from warplca.models import (
    create_classifier,
    export_onnx,
    export_program,
    harden,
    load_checkpoint,
    save_checkpoint,
)
from warplca.pipeline.plugin import (
    advice,
    evaluate_plug_in,
    open_classifier,
    own_classifier,
    save_hardened,
    timm_classifier,
)

PLAN = EvaluationPlan(corruptions=("impulse_noise",), severities=(5,), corruption_images=60, clean_images=60)


def rows(model: str, clean: float, noisy: float, images: int = 400) -> list[dict[str, object]]:
    found = []
    for condition, share in (("clean", clean), ("contrast", noisy)):
        predictions = (np.arange(images) >= share * images).astype(np.int16)
        row: dict[str, object] = dict.fromkeys(("threat", "verdict", "details", "notes"), "")
        row |= {"model": model, "model_seed": 0, "dataset": "d", "seed": 0, "fingerprint": model, "ece": 0.1}
        row |= {"kind": "clean" if condition == "clean" else "corruption", "condition": condition}
        row |= {"severity": 3 * (condition != "clean"), "source": "generator", "image_set": "s"}
        row |= {"images": images, "correct": int((predictions == 0).sum()), "status": "complete"}
        row |= {"accuracy": float((predictions == 0).mean()), "indices": np.arange(images)}
        row |= {"labels": np.zeros(images, np.int16), "predictions": predictions}
        found.append(row | {"confidences": np.full(images, 0.5, np.float32)})
    return found


@pytest.mark.parametrize(
    ("clean", "noisy", "words"),
    [
        (0.9, 0.8, "Use it: "),
        (0.9, 0.601, "No difference"),
        (0.8, 0.6, "Do not use it: "),
        (0.8, 0.8, "It depends"),
    ],
)
def test_the_advice_follows_the_tests(clean: float, noisy: float, words: str) -> None:
    frame = pd.DataFrame(rows("bare", 0.9, 0.6) + rows("bare + x", clean, noisy))
    assert advice(compare(frame, baseline="bare")).startswith(words)


def test_both_rows_are_measured_on_the_same_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim").eval()
    dataset = load_dataset("cifar10-subset", "test")
    options = {"name": Entry("m"), "results": tmp_path / "r.sqlite", "execution": QUIET}
    frame, found = evaluate_plug_in(model, dataset, PLAN, "impulse-repair", **options)
    assert list(frame["model"]) == ["m", "m", "m + impulse-repair", "m + impulse-repair"]
    assert found.baseline == "m"
    again, _ = evaluate_plug_in(model, dataset, PLAN, "contrast", **options)
    pd.testing.assert_frame_equal(again[again["model"] == "m"], frame[frame["model"] == "m"])


def test_a_timm_model_with_weights_of_a_file_is_hardened_and_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bare = create_classifier("resnet18", num_classes=7, stem="original").eval()
    save_file({k: v.contiguous() for k, v in bare.backbone.state_dict().items()}, tmp_path / "w.safetensors")
    model = timm_classifier(f"resnet18:{tmp_path / 'w.safetensors'}")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(images), bare(images))
    assert save_hardened(model, "contrast", tmp_path / "out") == "contrast + none"
    assert load_checkpoint(tmp_path / "out").config.hardened == 1
    with pytest.raises(InputError, match="unknown timm model 'resnet19'"):
        timm_classifier("resnet19")
    with pytest.raises(InputError, match="the weights of .* do not fit resnet34"):
        timm_classifier(f"resnet34:{tmp_path / 'w.safetensors'}")
    with pytest.raises(InputError, match="no front-end can be written into the exported file m.onnx"):
        own_classifier("m.onnx")


@pytest.mark.slow
def test_exported_files_are_hardened_as_black_boxes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    dataset = load_dataset("cifar10-subset", "test")
    images = dataset.tensors(range(60))[0]
    model = create_classifier("resnet10_slim").eval()
    export_program(model, tmp_path / "m.pt2", images[:8])
    export_onnx(model, tmp_path / "m.onnx", images[:8])
    frames = []
    for name in ("m.pt2", "m.onnx"):
        opened = open_classifier(tmp_path / name, trust=True)
        hardened = harden(opened, "impulse-repair")
        expected = harden(model, "impulse-repair")(images).detach()
        torch.testing.assert_close(hardened(images), expected, atol=1e-4, rtol=1e-4)
        frames.append(
            evaluate_plug_in(
                opened, dataset, PLAN, "impulse-repair", name=Entry("m"), results=tmp_path / f"{name}.db"
            )[0]
        )
    assert list(frames[0]["correct"]) == list(frames[1]["correct"])
    # Another network in the same file's place is another model, whose rows do not mix with those of the first.
    other = harden(lambda x: model(x).flip(1), "impulse-repair")
    with pytest.raises(InputError, match="of another network under the name 'm \\+ impulse-repair'"):
        evaluate(
            other, dataset, PLAN, name="m + impulse-repair", results=tmp_path / "m.onnx.db", execution=QUIET
        )
    arguments = [
        "evaluate",
        "--checkpoint",
        str(tmp_path / "m.pt2"),
        "--harden",
        "contrast",
        "--data",
        "cifar10-subset",
    ]
    assert main([*arguments, "--results", str(tmp_path / "r.sqlite")]) == 2
    assert "consent with --trust" in capsys.readouterr().err
    quick = ["clean_images=20", "corruptions=[contrast]", "severities=[5]", "corruption_images=20"]
    assert main([*arguments, "--trust", "--results", str(tmp_path / "r.sqlite"), *quick]) == 0
    assert "m.pt2 + contrast" in capsys.readouterr().out
    export_onnx(harden(model, "contrast"), tmp_path / "twice.onnx", images[:8])
    with pytest.raises(InputError, match="hardened already"):
        harden(open_classifier(tmp_path / "twice.onnx"), "contrast")


def test_the_report_says_how_many_images_each_gate_let_through(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dataset = load_dataset("cifar10-subset", "test")
    model, store = create_classifier("resnet10_slim").eval(), tmp_path / "r.sqlite"
    hardened = harden(model, ["impulse-repair", {"name": "contrast", "gate": [0.0, 0.1]}])
    plan = EvaluationPlan(
        corruptions=("impulse_noise",), severities=(5,), corruption_images=60, clean_images=60
    )
    evaluate(hardened, dataset, plan, name="h", results=store, execution=QUIET)
    rows = {row[1]: row[2:] for row in gate_table(compare(ResultsStore(store), baseline="h")).rows}
    positions = choose_images(dataset.labels, 60, plan.seed)
    clean = hardened.inspect(dataset.tensors(positions)[0]).encoding.figures()
    assert rows["clean"] == [
        f"{100 * float((clean[name] == 0).float().mean()):.1f}" for name in ("gate", "gate 2")
    ]
    assert rows["impulse noise 5"][0] == "0.0"
    write_report(tmp_path / "r.html", store, baseline="h")
    assert "Images that each gate let through untouched" in (tmp_path / "r.html").read_text(encoding="utf-8")
    evaluate(model, dataset, plan, name="bare", results=store, execution=QUIET)
    bare = compare(ResultsStore(store), baseline="bare")
    assert {row[0] for row in gate_table(bare).rows} == {"h"}


def test_predict_and_info_tell_what_the_gates_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    hardened = harden(
        create_classifier("resnet10_slim"), [{"name": "contrast", "gate": [0.3, 0.4]}, "impulse-repair"]
    )
    save_checkpoint(hardened, tmp_path / "h", image_size=(16, 20))
    images = load_dataset("cifar10-subset", "test").tensors([0])[0][..., :16, :20].contiguous()
    export_onnx(hardened, tmp_path / "h.onnx", images)
    Image.fromarray(np.full((16, 20, 3), 128, np.uint8)).save(tmp_path / "flat.png")
    for checkpoint in ("h", "h.onnx"):
        assert main(["predict", str(tmp_path / "flat.png"), "--checkpoint", str(tmp_path / checkpoint)]) == 0
        assert "; gate open at damage 1.0000; gate 2 shut at damage 0.0000" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "h")]) == 0
    printed = capsys.readouterr().out
    assert (
        "contrast begins to open at 0.3 and is open at 0.4: what the range of grey levels lacks of 1."
        in printed
    )
    assert "impulse-repair begins to open at 0.002" in printed
    assert "## Gates" in (tmp_path / "h" / "README.md").read_text(encoding="utf-8")
