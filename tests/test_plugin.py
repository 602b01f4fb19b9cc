"""Does a front-end help a classifier: both rows, one sentence; and hardening from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from warplca.configs import InputError
from warplca.configs.plan import EvaluationPlan
from warplca.data import load_dataset
from warplca.eval import compare
from warplca.models import create_classifier, load_checkpoint
from warplca.pipeline.plugin import advice, evaluate_plug_in, save_hardened, timm_classifier

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
    options = {"name": "m", "results": tmp_path / "r.sqlite", "progress": False}
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
    with pytest.raises(InputError, match="no front-end can be written into an exported file"):
        save_hardened(torch.nn.Identity(), "contrast", tmp_path / "x")
