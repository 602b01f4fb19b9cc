"""Training: learns, resumes bit for bit, explains mistakes."""

import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch
from stripes import TIMES, config, section, stripes

from warplca.configs import InputError, TrainConfig
from warplca.configs.rates import rate_factor, set_rates
from warplca.data import ImageDataset, save_npz
from warplca.models import load_checkpoint
from warplca.train import Interrupted, train
from warplca.train.optim import make_optimiser
from warplca.train.sampling import Placement, place


@pytest.mark.parametrize("frontend", [None, "conv", "lca", "warp-lca"])
def test_every_arm_learns_an_easy_task(frontend, tmp_path):
    model = train(config(frontend, epochs=6), stripes(), tmp_path, progress=False)
    images, labels = stripes(40, seed=1).tensors()
    assert (model(images).argmax(1) == labels).float().mean() >= 0.9
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert list(curves["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert curves["val_accuracy"].iloc[-1] >= 0.8
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "frontend",
    ["warp-lca", [section("warp-lca", output="reconstruction"), "equaliser"]],
    ids=["code", "equalised"],
)
@pytest.mark.parametrize("stop_after", [1, 7, 10])
def test_a_stopped_run_continues_to_bit_identical_weights(stop_after, frontend, tmp_path):
    recipe = config(frontend, training={"frozen_epochs": 1})
    whole = train(recipe, stripes(), tmp_path / "whole", progress=False)
    with pytest.raises(Interrupted, match=f"stopped at step {stop_after} of 15"):
        train(recipe, stripes(), tmp_path / "parts", progress=False, stop_after=stop_after)
    parts = train(recipe, stripes(), tmp_path / "parts", progress=False)
    for (name, left), right in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    left, right = (pd.read_csv(tmp_path / run / "curves.csv") for run in ("whole", "parts"))
    pd.testing.assert_frame_equal(left.drop(columns=TIMES), right.drop(columns=TIMES))


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(config(), stripes(), tmp_path, progress=False)
    written = (tmp_path / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    again = train(config(), stripes(), tmp_path, progress=False)
    assert (tmp_path / "checkpoint" / "model.safetensors").stat().st_mtime_ns == written
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param((), id="alone"),
        pytest.param(
            ("train.augment.policy=randaugment", "train.augment.workers=2"),
            marks=pytest.mark.slow,
            id="group with workers",
        ),
    ],
)
def test_sigterm_saves_the_state_and_the_same_command_continues(tmp_path, workers):
    data = tmp_path / "stripes.npz"
    save_npz(data, stripes(), stripes(8, seed=1))
    command = [
        sys.executable, "-m", "warplca.cli.main", "train", "--config", "conv", "--data", str(data),
        "--out", str(tmp_path / "run"), "train.epochs=40", "train.batch_size=16", "train.validation_images=16",
        "model.num_classes=2", *workers,
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    seen = ""
    while "loss" not in seen and process.poll() is None:
        seen += process.stderr.read(1)
    os.killpg(process.pid, signal.SIGTERM)  # as launchers and schedulers do
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in rest
    assert "Traceback" not in rest
    done = len(pd.read_csv(tmp_path / "run" / "curves.csv"))
    assert done < 40
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert list(pd.read_csv(tmp_path / "run" / "curves.csv")["epoch"]) == list(range(1, 41))


def test_a_run_trained_anew_replaces_its_checkpoint(tmp_path):
    train(config("conv", epochs=1), stripes(), tmp_path, progress=False)
    shutil.rmtree(tmp_path / "states")
    model = train(config("conv", epochs=1, seed=5), stripes(), tmp_path, progress=False)
    again = load_checkpoint(tmp_path / "checkpoint").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_the_frozen_phase_leaves_the_frontend_alone(tmp_path):
    recipe = config(training={"frozen_epochs": 3})
    torch.manual_seed(recipe.train.seed)
    from warplca.models import build_classifier

    start = build_classifier(recipe.model).frontend
    model = train(recipe, stripes(), tmp_path, progress=False)
    assert start is not None
    assert model.frontend is not None
    for (name, before), after in zip(start.named_parameters(), model.frontend.parameters(), strict=True):
        assert torch.equal(before, after), name


def test_mistakes_are_explained(tmp_path):
    train(config(None, epochs=1), stripes(), tmp_path, progress=False)
    with pytest.raises(
        InputError, match=r"holds a run with another configuration \(different: train; train.epochs\)"
    ):
        train(config(None, epochs=2), stripes(), tmp_path, progress=False)
    three = ImageDataset("three", stripes().images, stripes().labels, ("a", "b", "c"))
    with pytest.raises(InputError, match="three has 3 classes, the model has num_classes 2"):
        train(config(), three, tmp_path / "other", progress=False)
    with pytest.raises(
        InputError, match="stripes has images of 16 x 16 pixels, too small for crop_padding 16"
    ):
        train(config(crop_padding=16), stripes(), tmp_path / "other", progress=False)
    for state in (tmp_path / "states").iterdir():
        state.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"the saved states in .* cannot be read \(step-.*\); delete them"):
        train(config(None, epochs=1), stripes(), tmp_path, progress=False)


def test_crops_and_flips_are_shifts_of_the_padded_image():
    images = torch.arange(2 * 3 * 7 * 9).reshape(2, 3, 7, 9).float()
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
    generator = torch.Generator().manual_seed(3)
    result = place(images, Placement.draw(2, generator, padding=2, flip=True), padding=2)
    for image, frame in zip(result, padded, strict=True):
        candidates = [frame[:, y : y + 7, x : x + 9] for y in range(5) for x in range(5)]
        assert any(torch.equal(image, c) or torch.equal(image, c.flip(-1)) for c in candidates)
    same = place(images, Placement.draw(2, generator, padding=0, flip=False), padding=0)
    assert torch.equal(same, images)


def test_learning_rate_rises_to_one_and_falls_to_zero():
    factors = [rate_factor(step, 100, 0.25) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[24] == factors[25] == pytest.approx(1.0)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 0.01
    once = [rate_factor(step, 100, 0.25, single_peak=True) for step in range(100)]
    assert once[0] == pytest.approx(1 / 26)
    assert once[24] == pytest.approx(25 / 26)
    assert once[25:] == factors[25:]
    assert rate_factor(50, 100, TrainConfig(schedule="cosine").warmup or 0.0) == pytest.approx(0.5)


def test_rates_are_shares_of_the_peaks_of_their_groups():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimiser = torch.optim.SGD([{"params": weights[:1], "lr": 2.0}, {"params": weights[1:], "lr": 0.5}])
    for factor in (0.25, 1.0):
        set_rates(optimiser, factor)
        assert [group["lr"] for group in optimiser.param_groups] == [2.0 * factor, 0.5 * factor]


def test_atoms_and_biases_are_not_decayed():
    from warplca.frontend.sparse.settings import WarpLCATraining
    from warplca.models import create_classifier

    model = create_classifier("resnet10_slim", {"name": "warp-lca", "features": 8, "kernel_size": 5})
    recipe = TrainConfig(learning_rate=0.2, weight_decay=1e-3)
    groups = make_optimiser(model, recipe, (WarpLCATraining(rate=0.1),)).param_groups
    decayed, plain, frontend = groups
    assert decayed["weight_decay"] == 1e-3
    assert all(p.ndim > 1 for p in decayed["params"])
    assert plain["weight_decay"] == frontend["weight_decay"] == 0.0
    assert frontend["lr"] == pytest.approx(0.02)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
