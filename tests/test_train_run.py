"""A run that goes wrong: NaN, damaged states; what its folder tells."""

import json
import types

import pandas as pd
import pytest
import torch
from stripes import TIMES, config, same_weights, states, stripes

from warplca.configs import InputError
from warplca.train import Interrupted, StandardLoss, train
from warplca.train import loop as loop_module
from warplca.train.losses import LossResult
from warplca.train.processes import make_accelerator
from warplca.train.record import Meter, means
from warplca.train.state import identity


def test_a_loss_that_is_not_finite_stops_names_its_step_and_keeps_the_good_state(tmp_path, monkeypatch):
    calls = []

    def sometimes(self, model, batch):
        logits, figures = self.classify(model, batch.images)
        calls.append(1)
        loss = self.cross_entropy(logits, batch.labels)
        return LossResult(loss * (float("nan") if len(calls) == 8 else 1.0), logits.detach(), figures)

    monkeypatch.setattr(StandardLoss, "__call__", sometimes)
    with pytest.raises(InputError, match=r"the loss was not finite at step 8; lower train.learning_rate"):
        train(config("conv", save_minutes=1e-9), stripes(), tmp_path, progress=False)
    # Step 10, where the figures were read, is past the mistake; the states before it are good.
    assert states(tmp_path) == ["step-000000006.safetensors", "step-000000007.safetensors"]


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    from warplca.train.step import Stepper

    step = Stepper.__call__

    def broken(self, number, share):
        figures = step(self, number, share)
        if number == 6:
            with torch.no_grad():
                next(iter(self.objective.parameters())).fill_(float("inf"))
        return figures

    monkeypatch.setattr(Stepper, "__call__", broken)
    with pytest.raises(InputError, match="the weights are not finite after step 7"):
        train(config(None, save_minutes=1e-9), stripes(), tmp_path, progress=False)
    assert states(tmp_path)[-1] == "step-000000006.safetensors"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_newest_state_is_passed_over_for_the_one_before(tmp_path, caplog, damage):
    run = config("conv", save_minutes=1e-9)
    whole = train(run, stripes(), tmp_path / "whole", progress=False)
    with pytest.raises(Interrupted):
        train(run, stripes(), tmp_path / "parts", progress=False, stop_after=9)
    newest = tmp_path / "parts" / "states" / states(tmp_path / "parts")[-1]
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[-100] ^= 1
    newest.write_bytes(content if damage == "flipped" else content[: len(content) // 2 * (damage != "empty")])
    parts = train(run, stripes(), tmp_path / "parts", progress=False)
    assert (
        "the saved state step-000000009.safetensors is truncated or damaged; going on from the one before, at step 8"
        in caplog.text
    )
    assert same_weights(whole, parts)


def test_kept_states_are_bounded_and_leftovers_of_a_kill_go(tmp_path):
    run = config("conv", save_minutes=1e-9, keep_states=3)
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / ".step-000000001.safetensors.abc.part").write_bytes(b"half")
    train(run, stripes(), tmp_path, progress=False)
    assert states(tmp_path) == [f"step-{step:09d}.safetensors" for step in (13, 14, 15)]


def test_operation_may_change_between_sessions_but_the_recipe_may_not(tmp_path):
    with pytest.raises(Interrupted):
        train(config("conv"), stripes(), tmp_path, progress=False, stop_after=3)
    with pytest.raises(InputError, match=r"another configuration \(different: train; train.loss\)"):
        train(config("conv", loss={"name": "pgd"}), stripes(), tmp_path, progress=False)
    with pytest.raises(InputError, match=r"another configuration \(different: model; model.frontend\)"):
        train(config("lca"), stripes(), tmp_path, progress=False)
    with pytest.raises(InputError, match=r"another configuration \(different: dataset\)"):
        train(config("conv"), stripes(seed=1), tmp_path, progress=False)
    train(config("conv", keep_states=5, save_minutes=1.0, log_steps=3), stripes(), tmp_path, progress=False)


def test_a_run_of_a_version_that_knew_fewer_settings_goes_on_where_they_are_at_their_defaults(
    tmp_path, monkeypatch
):
    def older(about):
        known = identity(about)
        del known["model"]["stem_stride"], known["train"]["augment"]["noise"]
        del known["model"]["frontend"]["stride"]
        return known

    with monkeypatch.context() as patched:
        patched.setattr(loop_module, "identity", older)
        with pytest.raises(Interrupted):
            train(config("conv"), stripes(), tmp_path, progress=False, stop_after=3)
    with pytest.raises(InputError, match=r"another configuration \(different: train; train.frontend\)"):
        train(config("conv", training={"rate": 2.0}), stripes(), tmp_path, progress=False)
    train(config("conv"), stripes(), tmp_path, progress=False)


def test_the_folder_tells_configuration_versions_revision_and_sessions(tmp_path):
    with pytest.raises(Interrupted):
        train(config("conv", seed=7), stripes(), tmp_path, progress=False, stop_after=4)
    train(config("conv", seed=7), stripes(), tmp_path, progress=False)
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["config"]["train"]["seed"] == 7
    assert about["dataset"] == stripes().fingerprint
    assert about["images"] == 80
    assert [session["from_step"] for session in about["sessions"]] == [0, 4]
    session = about["sessions"][0]
    assert session["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"revision", "python", "platform", "started", "processes", "device"} <= set(session)
    rows = pd.read_csv(tmp_path / "curves.csv")
    assert {"epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", *TIMES} <= set(rows)
    assert rows["data_share"].between(0.0, 1.0).all()


def test_tensorboard_shows_every_epoch_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(Interrupted):  # in the second epoch; a kill may lose more than that
        train(config("conv"), stripes(), tmp_path, progress=False, stop_after=8)
    train(config("conv"), stripes(), tmp_path, progress=False)
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    accuracy = pd.read_csv(tmp_path / "curves.csv")["val_accuracy"]
    assert [event.step for event in shown.Scalars("val_accuracy")] == [1, 2, 3]
    assert [event.value for event in shown.Scalars("val_accuracy")] == pytest.approx(accuracy.tolist())


def test_the_meter_adds_up_and_remembers_the_first_bad_step():
    meter = Meter(make_accelerator("no", all_parameters_learn=True), {"loss": 1.0, "images": 4.0}, 10)
    meter.add({"loss": torch.tensor(2.0), "images": 3.0})
    assert meter.read() == {"loss": 3.0, "images": 7.0}
    for loss in (1.0, float("inf"), float("nan"), 1.0):
        meter.add({"loss": torch.tensor(loss), "images": 3.0})
    with pytest.raises(InputError, match="not finite at step 13;"):
        meter.read()


def test_accumulated_parts_make_the_same_step(tmp_path):
    """Without batch norm the gradient of a batch is the mean over its parts, also where they differ in size."""
    norm = {"norm_layer": "groupnorm1"}
    recipe = {"options": norm, "batch_size": 15, "epochs": 1}
    recipe["training"] = {"distillation": 0.0}  # it looks at a few images of each part
    whole = train(config("warp-lca", **recipe), stripes(), tmp_path / "1", progress=False)
    parts = train(
        config("warp-lca", **recipe, accumulation=4),
        stripes(),
        tmp_path / "4",
        progress=False,
    )
    for left, right in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        assert torch.allclose(left, right, atol=1e-4)
    left, right = (pd.read_csv(tmp_path / name / "curves.csv") for name in "14")
    assert left["train_loss"][0] == pytest.approx(right["train_loss"][0], abs=1e-5)
    assert left["train_accuracy"][0] == right["train_accuracy"][0]


LOSSES = {"standard": {"name": "standard"}, "pgd": {"name": "pgd", "threat": "linf 0.01", "steps": 2}}


@pytest.mark.parametrize("loss", ["standard", pytest.param("pgd", marks=pytest.mark.slow)])
def test_bfloat16_learns(tmp_path, loss):
    run = config("warp-lca", precision="bf16", loss=LOSSES[loss])
    train(run, stripes(), tmp_path, progress=False)
    assert pd.read_csv(tmp_path / "curves.csv")["train_loss"].is_monotonic_decreasing


def test_images_a_second_are_those_of_all_processes_together():
    meters = []
    for main in (True, False):
        accelerator = types.SimpleNamespace(device=torch.device("cpu"), num_processes=1, is_main_process=main)
        meter = Meter(accelerator, {}, 0)
        meter.ticked -= 2.0
        meter.add({"loss": torch.tensor(1.0), "images": 30, "correct": 3})
        meter.add_seconds(1.0)
        meters.append(meter.read())
    together = means({name: meters[0][name] + meters[1][name] for name in meters[0]})  # as reduce adds them
    assert together["images_per_second"] == pytest.approx(60 / 2.0, rel=0.05)
    assert together["data_share"] == pytest.approx(0.5, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("frontend", ["warp-lca", "conv"])
def test_compiled_training_gives_the_same_curve(tmp_path, frontend):
    recipe = {"epochs": 2, "training": {"frozen_epochs": 1}, "learning_rate": 0.02}
    torch.compiler.reset()
    plain = train(config(frontend, **recipe), stripes(), tmp_path / "plain", progress=False)
    compiled = train(
        config(frontend, compile=True, **recipe), stripes(), tmp_path / "compiled", progress=False
    )
    curves = [pd.read_csv(tmp_path / run / "curves.csv").drop(columns=TIMES) for run in ("plain", "compiled")]
    pd.testing.assert_frame_equal(*curves, check_exact=False, rtol=0, atol=1e-3)
    for name, value in plain.state_dict().items():
        assert (value - compiled.state_dict()[name]).abs().max() < 1e-3, name
