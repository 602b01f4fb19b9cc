"""What a step of training waits for and launches on an accelerator; ``test_device.py`` runs this with the checks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from device_checks import EIGENSOLVES, HERE, SMALL
from pretended_device import NAME, Watch, watched
from stripes import config, stripes

from warplca.configs import RunConfig, load_config, preset_names
from warplca.configs.device import unwatched
from warplca.models import build_classifier, create_classifier, save_checkpoint
from warplca.train.loop import TrainingRun
from warplca.train.perturb import InnerAttack, cross_entropy_ascent
from warplca.train.record import Meter

RECIPES: dict[str, dict] = {
    **{f"arm {arm}": {"frontend": arm} for arm in ("none", "conv", "lca", "warp-lca")},
    "pgd-linf": {
        "loss": {"name": "pgd", "threat": "linf 8/255", "steps": 2},
        "select": {"keep": "best", "by": "robust", "robust_images": 8},
    },
    "frozen": {"training": {"frozen_epochs": None}},
    "denoising": {
        "settings": {"adaptive_lam": 2.0, "output": "reconstruction"},
        "training": {"lam_spread": 2.0, "frozen_epochs": None},
    },
    "equaliser": {"frontend": ["equaliser", {"name": "conv", "features": 8, "kernel_size": 5}]},
    "implicit": {"frontend": "lca", "settings": {"gradient_mode": "implicit"}},
    "bf16": {"precision": "bf16"},
    "parts": {"accumulation": 2},
    "augmix": {"augment": {"policy": "augmix"}, "loss": {"name": "jsd"}},
    "prime": {"augment": {"policy": "prime"}, "loss": {"name": "jsd"}},
}
SHIPPED = sorted(
    set(preset_names("train"))
    - {
        "quick94",  # its network takes other options than TINY's
        "none",
        "conv",
        "lca",
        "warp-lca",
        "resnet10-slim",
        "resnet18",
        "wide-resnet50-2",
        "wrn-16-4",
        "wrn-28-10",
    }
)
"""Every recipe in the package that is no arm and no backbone: tried as they are by a slow check."""

TINY = (
    "model.backbone_options={channels: [8, 8, 16, 16], stem_width: 8}", "model.num_classes=2", "train.batch_size=16",
    "train.validation_images=16", "train.augment.workers=0",
)  # fmt: skip
CEILINGS = {"none": 450, "conv": 480, "lca": 570, "warp-lca": 960}
"""Operations launched in a step of the tiny network of each arm, optimiser included."""


def watched_step(run: RunConfig, folder: Path) -> tuple[TrainingRun, Watch]:
    """Return a run, and what its third step did."""
    made = TrainingRun(run, stripes(64), folder, progress=False, device=HERE)
    meter = Meter(made.accelerator, {}, 0)
    made.model.train()
    shares = made.source.shares(0, made.total_steps)
    for step in (1, 2):
        made.step(step, next(shares), meter)
    with watched() as watch:
        made.step(3, next(shares), meter)
    assert meter.read()["images"] > 0
    return made, watch


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_waits_for_nothing_but_the_spectrum_of_changed_atoms(recipe, tmp_path):
    check_step(config(**RECIPES[recipe]), tmp_path, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("preset", SHIPPED)
def test_so_does_a_step_of_every_recipe_in_the_package(preset, tmp_path):
    """As it is, with the primed front-end; only the backbone and the batch are tiny."""
    presets = "warp-lca+pgd-linf+early-stop" if preset == "early-stop" else f"warp-lca+{preset}"
    run = load_config(RunConfig, presets, "train", [*TINY])
    if hasattr(run.train.loss, "steps"):
        run = load_config(RunConfig, presets, "train", [*TINY, "train.loss.steps=2"])
    if run.train.loss_class.has_teacher:
        save_checkpoint(build_classifier(config("none").model), tmp_path / "teacher")
        words = [f"train.init={tmp_path / 'teacher'}", "model.frontend.output=reconstruction"]
        run = load_config(RunConfig, presets, "train", [*TINY, *words])
    check_step(run, tmp_path, preset)


def check_step(run: RunConfig, folder: Path, recipe: str) -> None:
    """Look for waits, low precision in linear algebra, and, in the four arms, too many launches."""
    made, watch = watched_step(run, folder)
    waits = Counter(name for name, _ in watch.waits)
    learns = any(
        name.endswith("dictionary.weight") for name, p in made.model.named_parameters() if p.requires_grad
    )
    looks = 10 if recipe == "implicit" else 0  # MINRES looks whether it may stop, every thirty iterations
    assert waits.pop("_local_scalar_dense", 0) <= looks, watch.waits
    assert set(waits) <= (EIGENSOLVES if learns else set()), watch.waits
    assert sum(waits.values()) <= 3 or HERE.type == "cuda", (
        watch.waits
    )  # once a change, however many forward passes
    assert not watch.low
    if recipe.startswith("arm ") and HERE.type == NAME:
        assert watch.launched <= CEILINGS[recipe.removeprefix("arm ")]


def test_cycles_add_few_launches_to_a_forward_pass():
    """In multiples of the bare network's; guarded cycles judge each image, see docs/performance.md."""
    image = torch.rand(1, 3, 32, 32).to(HERE)

    def launched(section):
        model = create_classifier("resnet18", section).to(HERE).eval()
        with torch.no_grad(), unwatched():
            model(image)  # what is kept between calls is made
            with watched() as watch:
                model(image)
        assert not watch.waits
        return watch.launched

    bare = launched(None)
    for arm, most in (("lca", 2.0), ("warp-lca", 4.7)):
        found = launched({"name": arm, "weights": "cifar10-64x9s2", "iterations": 10})
        assert found <= most * bare, (arm, found, bare)


@pytest.mark.skipif(HERE.type == "cuda", reason="cuDNN takes float16 where the CPU's kernels take minutes")
def test_the_inner_attack_solves_the_spectrum_once():
    model = create_classifier("resnet10_slim", {"name": "warp-lca", **SMALL, "iterations": 2}, num_classes=2)
    model = model.to(HERE).train()
    images, labels = stripes(8).tensors(device=HERE)
    from warplca.attacks import as_threat

    attack = InnerAttack(threat=as_threat("linf 8/255"), steps=5, step_size=0.01)
    model(images)
    with watched() as watch:
        attack(model, images, cross_entropy_ascent(model, labels))
    assert Counter(name for name, _ in watch.waits)["_linalg_eigh"] == 0


def test_so_does_a_step_of_the_quick_network(tmp_path):
    widths = [word.replace("channels: [8, 8, 16, 16], stem_width: 8", "widths: [8, 8, 8]") for word in TINY]
    check_step(load_config(RunConfig, "quick94", "train", widths), tmp_path, "quick94")
