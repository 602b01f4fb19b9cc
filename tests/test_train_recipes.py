"""Recipes from preset to trained network: averages, selection, front-end schedules."""

import itertools

import pandas as pd
import pytest
import torch
from stripes import TIMES, config, stripes

from warplca.configs import InputError, RunConfig, TrainConfig, from_dict, load_config, preset_names
from warplca.configs.load import registered_name, to_plain
from warplca.configs.recipe import AverageConfig
from warplca.frontend.sparse.settings import LCATraining, WarpLCATraining
from warplca.frontend.sparse.spectrum import spectral_bound
from warplca.models import build_classifier, create_classifier, save_checkpoint
from warplca.train import Interrupted, build_loss, optim, train
from warplca.train.optim import WeightAverage
from warplca.train.perturb import cross_entropy_ascent
from warplca.train.processes import make_accelerator
from warplca.train.sampling import StepOrder
from warplca.train.source import BatchSource
from warplca.train.validate import Validator, best_epoch, overfitted, stop_reason

ARMS = ("none", "conv", "lca", "warp-lca")
BACKBONES = ("resnet10-slim", "resnet18", "wide-resnet50-2", "wrn-16-4", "wrn-28-10")
SCHEDULES = ("frozen", "fine-tuned", "scratch", "annealed", "denoising", "equalised")
RECIPES = tuple(sorted(set(preset_names("train")) - {*ARMS, *BACKBONES, *SCHEDULES, "quick94"}))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_its_four_arms(backbone):
    for arm in ARMS:
        run = load_config(RunConfig, f"{arm}+{backbone}", "train")
        assert run.model.frontend_name == arm
        assert run.model.backbone == backbone.replace("-", "_")
        frozen = getattr(run.frontend_training[0], "frozen_epochs", 0)
        assert frozen < run.train.epochs


def test_recipes_and_schedules_lay_over_any_arm_and_keep_the_rest():
    for arm, recipe in [*itertools.product(ARMS, RECIPES), *itertools.product(["warp-lca"], SCHEDULES)]:
        plain = load_config(RunConfig, arm, "train")
        run = load_config(RunConfig, f"{arm}+{recipe}", "train")
        build_loss(run.train)
        assert run.model.backbone == plain.model.backbone
        assert run.train.batch_size == plain.train.batch_size
    for arm, recipe in itertools.product(
        ("none", "conv"), ("annealed", "denoising", "fine-tuned", "scratch")
    ):
        with pytest.raises(InputError, match=f"front-end {arm}"):
            load_config(RunConfig, f"{arm}+{recipe}", "train")
    run = load_config(RunConfig, "warp-lca+trades-l2+ema", "train", ["train.loss.beta=3"])
    assert (registered_name(run.train.loss), run.train.loss.threat, run.train.loss.beta) == (
        "trades",
        "l2 0.5",
        3,
    )
    assert run.train.loss.steps == 10  # from its base
    assert run.train.average.kind == "ema"


def test_steps_of_attacks_follow_the_radius_whatever_is_combined():
    def attack(presets, *changes):
        return build_loss(load_config(RunConfig, presets, "train", list(changes)).train).attack

    for recipe in ("pgd-linf", "trades", "mart"):
        assert attack(f"warp-lca+{recipe}").step_size == pytest.approx(2 / 255)
        assert attack(f"warp-lca+{recipe}", "train.loss.threat=l2 0.5").step_size == pytest.approx(0.125)
    assert attack("conv+pgd-linf+fast").step_size == pytest.approx(10 / 255)


def test_small_l2_balls_are_around_what_an_augmentation_makes():
    """Kireev et al. 2022: one step of radius 0.1, here on the images of AugMix or PRIME."""
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", num_classes=2)
    for presets, policy in (("none+augmix-jsd+l2-at", "augmix"), ("none+prime-augment+l2-at", "prime")):
        recipe = load_config(RunConfig, presets, "train").train
        assert recipe.augment.policy == policy
        (share,) = BatchSource(stripes(40), recipe, StepOrder(40, 40, 0), torch.device("cpu")).shares(0, 1)
        plain = load_config(RunConfig, "none", "train").train
        (other,) = BatchSource(stripes(40), plain, StepOrder(40, 40, 0), torch.device("cpu")).shares(0, 1)
        attack = build_loss(recipe).attack
        assert (str(attack.threat), attack.steps, attack.start) == ("l2 0.1", 1, "ball")
        images, labels = share.batch.images, share.batch.labels
        attacked = attack(model, images, cross_entropy_ascent(model, labels))
        lengths = (attacked - images).flatten(1).norm(dim=1)
        assert lengths.max() <= 0.1 + 1e-5
        assert lengths.median() > 0.08  # less where pixels are clipped
        assert (images - other.batch.images).flatten(1).norm(dim=1).median() > 0.5


def test_a_frozen_front_end_is_frozen_for_as_long_as_training_takes():
    for presets in ("warp-lca+frozen+wrn-16-4", "warp-lca+wrn-16-4+frozen"):
        run = load_config(RunConfig, presets, "train")
        assert run.frontend_training[0].frozen_epochs is None
        assert run.train.epochs == 60
    layer = build_classifier(config("lca").model).frontend
    for epoch in (0.0, 3.5, 6.9):
        layer.at(epoch, 7, LCATraining(frozen_epochs=None))
        assert not layer.dictionary.weight.requires_grad
    with pytest.raises(
        InputError, match=r"train.epochs is 7 and train.frontend.frozen_epochs 9, more than there are; add"
    ):
        config("lca", epochs=7, training={"frozen_epochs": 9})


def test_a_file_may_begin_with_its_base(tmp_path):
    (tmp_path / "first.yaml").write_text("base: [warp-lca, pgd-linf]\ntrain: {loss: {steps: 3}}\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\ntrain: {epochs: 25}\n")
    run = load_config(RunConfig, tmp_path / "second.yaml", "train")
    assert (run.model.frontend_name, registered_name(run.train.loss), run.train.loss.steps, run.train.epochs) == (
        "warp-lca", "pgd", 3, 25,
    )  # fmt: skip
    (tmp_path / "first.yaml").write_text("base: second.yaml\n")
    with pytest.raises(InputError, match=r"second.yaml is its own base: second.yaml -> first.yaml"):
        load_config(RunConfig, tmp_path / "second.yaml", "train")
    with pytest.raises(InputError, match="unknown train preset 'tradse'; did you mean 'trades'"):
        load_config(RunConfig, "warp-lca+tradse", "train")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match=r"list.yaml: the file is \[1\]; expected keys with values"):
        load_config(RunConfig, tmp_path / "list.yaml", "train")


def test_recipes_that_need_held_out_images_say_so():
    for values in ({"select": {"keep": "best"}}, {"select": {"patience": 2}}, {"loss": {"name": "fast"}}):
        with pytest.raises(InputError, match=r"set train.validation_images above 0"):
            from_dict(TrainConfig, values, where="test")
    with pytest.raises(InputError, match="set train.augment.policy: augmix"):
        from_dict(TrainConfig, {"loss": {"name": "jsd"}}, where="test")


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith(("-l2", "-augment", "pgd-awp")) else ())
        for name in RECIPES
        if name not in ("standard", "early-stop")
    ],
)
def test_every_recipe_trains_and_continues_bit_for_bit(recipe, tmp_path):
    section = load_config(
        RunConfig, recipe, "train", ["train.loss.threat=linf 0.02"] if recipe in ("pgd-linf", "fast") else []
    ).train
    values = {
        "loss": to_plain(section.loss) | ({"steps": 2} if hasattr(section.loss, "steps") else {}),
        "augment": vars(section.augment) | {"workers": 0},
        "average": vars(section.average),
        "select": vars(section.select) | ({"robust_images": 8} if section.measures_robustness else {}),
        "label_smoothing": section.label_smoothing,
        "epochs": 2,
        "batch_size": 32,
    }
    if section.loss_class.has_teacher:
        save_checkpoint(build_classifier(config("none").model), tmp_path / "teacher")
        values["init"] = str(tmp_path / "teacher")
    run = config("warp-lca", **values)
    whole = train(run, stripes(80), tmp_path / "whole", progress=False)
    with pytest.raises(Interrupted):
        train(run, stripes(80), tmp_path / "parts", progress=False, stop_after=3)
    parts = train(run, stripes(80), tmp_path / "parts", progress=False)
    for (name, left), right in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    left, right = (pd.read_csv(tmp_path / folder / "curves.csv") for folder in ("whole", "parts"))
    pd.testing.assert_frame_equal(left.drop(columns=TIMES), right.drop(columns=TIMES), check_exact=True)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_follow_their_recurrence(kind):
    torch.manual_seed(0)
    model = create_classifier(
        "resnet10_slim", {"name": "lca", "features": 4, "kernel_size": 3, "iterations": 1}
    )
    memory = {"decay": 0.9} if kind == "ema" else {"start": 0.5}
    average = WeightAverage(model, AverageConfig(kind, **memory), total_steps=8)
    atoms = model.frontend.dictionary.weight
    history = [atoms.detach().clone()]
    for step in range(1, 9):
        with torch.no_grad():
            atoms.add_(torch.randn_like(atoms))
        history.append(atoms.detach().clone())
        average.update(model, step)
    if kind == "ema":
        expected = history[1]
        for value in history[2:]:
            expected = 0.9 * expected + 0.1 * value
    else:
        expected = torch.stack(history[4:]).mean(0)  # the weights where it begins count
    averaged = average.model([torch.rand(2, 3, 16, 16)])
    assert torch.allclose(averaged.frontend.dictionary.weight, expected, atol=1e-6)
    bound = averaged.frontend.dictionary.lipschitz.clone()
    averaged.frontend.dictionary.refresh()
    assert torch.equal(bound, averaged.frontend.dictionary.lipschitz)
    assert not averaged.training


def test_the_average_is_what_is_saved(tmp_path):
    run = config("conv", average={"kind": "ema", "decay": 0.5}, epochs=1, schedule="cosine")
    averaged = train(run, stripes(), tmp_path / "a", progress=False).state_dict()
    plain = train(config("conv", epochs=1, schedule="cosine"), stripes(), tmp_path / "p", progress=False)
    assert not torch.equal(averaged["backbone.fc.weight"], plain.state_dict()["backbone.fc.weight"])
    again = train(run, stripes(), tmp_path / "a", progress=False).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in averaged.items())


def curves(robust, accuracy=None):
    return [
        {"val_robust": r, "val_accuracy": a}
        for r, a in zip(robust, accuracy or [0.5] * len(robust), strict=True)
    ]


def recipe(**values) -> TrainConfig:
    return from_dict(TrainConfig, {"validation_images": 8, **values}, where="test")


def test_the_best_epoch_is_the_most_accurate_and_then_the_first_of_the_highest():
    robust = recipe(select={"keep": "best", "by": "robust"}, loss="pgd")
    clean = recipe(select={"keep": "best"})
    rows = curves([0.1, 0.4, 0.4, 0.2], [0.5, 0.6, 0.6, 0.9])
    assert best_epoch(rows, robust) == 1
    assert best_epoch(rows, clean) == 3
    unprotected = curves([0.0, 0.0, 0.0], [0.5, 0.8, 0.8])
    assert best_epoch(unprotected, robust) == 1


def test_patience_counts_epochs_without_a_better_one():
    patient = recipe(select={"by": "robust", "patience": 2}, loss="pgd")
    assert stop_reason(curves([0.3, 0.4, 0.1]), patient) == ""
    assert stop_reason(curves([0.3, 0.4, 0.1, 0.4]), patient) == "no better epoch than 2 in the last 2"
    assert stop_reason(curves([0.3, 0.4, 0.1, 0.5]), patient) == ""


def test_catastrophic_overfitting_is_a_fall_beyond_the_limit():
    fast = recipe(loss={"name": "fast"}, select={"largest_drop": 0.2})
    assert not overfitted(curves([0.1, 0.4, 0.25]), fast)
    assert overfitted(curves([0.1, 0.45, 0.2]), fast)
    assert not overfitted(curves([0.1, 0.45, 0.2]), recipe(select={"by": "robust"}, loss="pgd"))
    assert overfitted(curves([0.1, 0.18, 0.04]), fast)  # less than 0.2, but nearly all of it
    assert not overfitted(curves([0.01, 0.04, 0.0]), fast)
    assert "fell from 45.0% in epoch 2 to 0.0%; the weights of epoch 2 are kept" in stop_reason(
        curves([0.1, 0.45, 0.0]), fast
    )


def test_fast_training_that_breaks_down_stops_and_returns_its_best_epoch(tmp_path, monkeypatch, caplog):
    robust = iter([0.3, 0.5, 0.0, 0.9])
    seen = []

    def measured(self, model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"val_loss": 1.0, "val_accuracy": 0.5, "val_robust": next(robust)}

    monkeypatch.setattr(Validator, "__call__", measured)
    run = config("conv", epochs=4, loss={"name": "fast", "threat": "linf 0.02"})
    model = train(run, stripes(), tmp_path, progress=False)
    assert "catastrophic overfitting: robust accuracy fell from 50.0% in epoch 2 to 0.0%" in caplog.text
    assert len(seen) == 3
    assert all(torch.equal(value, seen[1][name]) for name, value in model.state_dict().items())
    again = train(run, stripes(), tmp_path, progress=False)  # stopped early counts as finished
    assert len(seen) == 3
    assert all(torch.equal(value, seen[1][name]) for name, value in again.state_dict().items())


def test_validation_measures_the_attack_it_names(tmp_path):
    """On a network that is constant every attack is harmless; on a trained one a large ball leaves little."""
    run = config(
        "conv", select={"by": "robust", "robust_images": 8}, loss={"name": "pgd", "threat": "linf 0.3"}
    )
    validate = Validator(stripes(16), run.train, make_accelerator("no", all_parameters_learn=True))
    model = train(config("conv"), stripes(), tmp_path, progress=False)
    figures = validate(model)
    assert figures["val_accuracy"] >= 0.9
    assert figures["val_robust"] <= 0.5
    torch.nn.init.zeros_(model.backbone.fc.weight)
    with torch.no_grad():
        model.backbone.fc.bias.copy_(torch.tensor([1.0, 0.0]))
    figures = validate(model)
    assert figures["val_accuracy"] == figures["val_robust"] == 0.5


def test_lam_and_cycles_anneal_to_the_models_own():
    training = WarpLCATraining(frozen_epochs=1, lam_factor=4.0, first_iterations=6, anneal_share=0.5)
    layer = build_classifier(config("warp-lca").model).frontend
    images = torch.rand(2, 3, 16, 16)

    def seen():
        with torch.no_grad():
            encoding = layer.encode(images)
        return (encoding.lam, layer.margins(images).shape[1] - 1, layer.dictionary.weight.requires_grad)

    layer.train()
    steps = []
    for step in range(20):
        layer.at(step / 5, 4, training)
        steps.append(seen())
    assert steps[0] == (pytest.approx(0.8), 6, False)
    assert steps[5] == (pytest.approx(0.4), 4, True)
    assert steps[10] == steps[19] == (pytest.approx(0.2), 2, True)
    layer.at(0.0, 4, training)
    assert (layer.lam, layer.iterations, layer.settings.lam) == (0.2, 2, 0.2)  # its own settings stay
    layer.at(None, 4, training)
    assert seen()[:2] == (0.2, 2)
    layer.at(0.0, 4, training)
    layer.eval()
    assert seen()[:2] == (0.2, 2)


def test_an_annealed_run_returns_the_models_settings_and_continues(tmp_path):
    training = {"lam_factor": 3.0, "first_iterations": 1, "anneal_share": 1.0}
    run = config("warp-lca", training=training, epochs=2)
    whole = train(run, stripes(), tmp_path / "whole", progress=False)
    assert (whole.frontend.lam, whole.frontend.iterations) == (0.2, 2)
    with pytest.raises(Interrupted):
        train(run, stripes(), tmp_path / "parts", progress=False, stop_after=6)
    parts = train(run, stripes(), tmp_path / "parts", progress=False)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True)
    )


def test_a_learned_lam_is_not_annealed():
    small = {"name": "lca", "features": 4, "kernel_size": 3}
    model = create_classifier("resnet10_slim", {**small, "threshold": "soft", "learn_lam": True})
    with pytest.raises(InputError, match="lam is learned and annealed at once"):
        model.frontend.at(0.0, 2, LCATraining(lam_factor=2.0))
    with pytest.raises(InputError, match="lam is learned; it cannot be set as well"):
        model.frontend.lam = 0.5
    hard = create_classifier("resnet10_slim", small)
    with pytest.raises(InputError, match="lam is -1; give a number above 0"):
        hard.frontend.lam = -1


def test_batch_norm_after_swa_sees_the_averaged_atoms(tmp_path, monkeypatch):
    seen = []

    def looking(images, model):
        dictionary = model.frontend.dictionary
        seen.append(torch.equal(dictionary.lipschitz, spectral_bound(dictionary.atoms, dictionary.stride)))

    monkeypatch.setattr(optim, "update_bn", looking)
    train(
        config("warp-lca", epochs=2, average={"kind": "swa", "start": 0.2}),
        stripes(),
        tmp_path,
        progress=False,
    )
    assert seen
    assert all(seen)
