"""Pictures of a comparison's report: atoms, example images with reconstruction and code."""

from __future__ import annotations

import platform

import numpy as np
import torch

from ..attacks import as_suite, run_attack
from ..attacks.interface import PLAIN_GRADIENTS
from ..configs import ComparisonConfig, EvaluationPlan
from ..configs.extensions import FRONTENDS
from ..data import CORRUPTION_GROUPS, ImageDataset, corrupt
from ..eval import Example, corruption_example, difference_picture
from ..frontend.pretrained import open_primed
from ..models import Classifier

Picture = np.ndarray


def collect_atoms(models: dict[str, Classifier]) -> dict[str, Picture]:
    """Return the dictionary (M, C, k, k) of every arm that has one."""
    found = {arm: model.frontend.atoms() for arm, model in models.items()}
    return {arm: atoms.detach().cpu().numpy() for arm, atoms in found.items() if atoms is not None}


def collect_examples(
    models: dict[str, Classifier], test: ImageDataset, plan: EvaluationPlan, *, count: int = 4
) -> list[Example]:
    """Return rows of pictures for a few test images of different classes.

    Each row shows the image, one corruption of the plan, one adversarial image against the last arm that knows the
    image with the difference times ten, for every LCA arm the reconstruction from its code and where the code is
    active, and what an equaliser makes of either.
    """
    _, first = np.unique(test.labels, return_index=True)
    chosen = test.subset(first[:: max(1, len(first) // count)][:count])
    rows = [
        Example(
            f"{test.class_names[int(chosen.labels[i])].capitalize()} (image {chosen.indices[i]})",
            [*_disturbed(models, chosen.subset([i]), plan), *_coded(models, chosen.subset([i]))],
        )
        for i in range(len(chosen))
    ]
    singles = [name for name in plan.corruptions if "+" not in name and name not in CORRUPTION_GROUPS]
    if singles:
        severity = max(plan.severities)
        rows.append(corruption_example(test, int(first[-1]), singles, severity=severity, seed=plan.seed))
    return rows


def _disturbed(
    models: dict[str, Classifier], one: ImageDataset, plan: EvaluationPlan
) -> list[tuple[str, Picture]]:
    clean = one.images[0] / 255.0
    answers = _answers(models, one, one.images[:])
    pictures = [(f"clean\n{_marked(answers, one)}", clean)]
    if plan.corruptions and plan.corruptions[0] not in CORRUPTION_GROUPS:
        name, severity = plan.corruptions[0].split("+")[0], max(plan.severities)
        corrupted = corrupt(one.images[:], name, severity=severity, seed=plan.seed, indices=one.indices)
        said = _marked(_answers(models, one, corrupted), one)
        pictures.append((f"{name.replace('_', ' ')} {severity}\n{said}", corrupted[0] / 255.0))
    known = [arm for arm, answer in answers.items() if answer == _class(one, one.labels[0])]
    if plan.attacks and known:
        pictures += _attacked(known[-1], models[known[-1]], one, plan)
    return pictures


def _attacked(
    arm: str, model: Classifier, one: ImageDataset, plan: EvaluationPlan
) -> list[tuple[str, Picture]]:
    """Return an image after the plan's last attack on an arm that classifies it rightly, and the difference."""
    setting = plan.attacks[-1]
    suite = as_suite(setting.attack)
    kinds = {attack.kind for attack in suite.attacks.values()}
    # A suite, or an attack that may not apply to this arm, is shown by a plain one.
    attack = setting.attack if not suite.checked and kinds == {PLAIN_GRADIENTS} else "pgd-10"
    images, labels = one.tensors(device=_device(model))
    result = run_attack(model, images, labels, attack, setting.threat, seed=plan.seed)
    adversarial = _picture(result.adversarial[0])
    answer = _class(one, int(result.predictions[0]))
    outcome = f"succeeded\n✗ {answer}: {arm}" if bool(result.success[0]) else f"failed\n✓ {arm}"
    return [
        (f"{attack} on {arm}, {setting.threat}: {outcome}", adversarial),
        ("what the attack changed, times 10", difference_picture(one.images[0] / 255.0, adversarial)),
    ]


def _class(dataset: ImageDataset, index: int) -> str:
    return dataset.class_names[int(index)]


@torch.no_grad()
def _answers(models: dict[str, Classifier], one: ImageDataset, images: np.ndarray) -> dict[str, str]:
    """Return the class that each model predicts for an image, (1, H, W, C) as bytes."""
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
    return {arm: _class(one, int(model(pixels.to(_device(model))).argmax())) for arm, model in models.items()}


def _marked(answers: dict[str, str], one: ImageDataset) -> str:
    """Return lines that name the models that are right, and each wrong answer with the models that gave it."""
    truth = _class(one, one.labels[0])
    lines = []
    for answer in sorted(set(answers.values()), key=lambda answer: (answer != truth, answer)):
        arms = ", ".join(arm for arm, given in answers.items() if given == answer)
        lines.append(f"✓ {arms}" if answer == truth else f"✗ {answer}: {arms}")
    return "\n".join(lines)


@torch.no_grad()
def _coded(models: dict[str, Classifier], one: ImageDataset) -> list[tuple[str, Picture]]:
    """Return the pictures that each arm's front-end makes of the image."""
    pictures: list[tuple[str, Picture]] = []
    for arm, model in models.items():
        seen, _ = one.tensors(device=_device(model))
        for name, found in model.frontend.encode(seen).pictures().items():
            picture = found[0].cpu()
            pictures.append(
                (f"{arm}: {name}", picture.numpy() if picture.ndim == 2 else _picture(picture.clamp(0, 1)))
            )
    return pictures


def cycles_fact(config: ComparisonConfig) -> str:
    """Say how many cycles each arm of an iterative front-end runs, and what that means where they are equal."""
    cycles = {
        arm: section.iterations
        for arm in config.arms
        for section in config.run(arm, config.seeds[0]).model.frontend
        if hasattr(section, "iterations")
    }
    text = ", ".join(f"{arm} {count}" for arm, count in cycles.items()) or "no LCA arm"
    if len(cycles) > 1 and len(set(cycles.values())) == 1:
        text += " (equal cycles: plain LCA, from a cold start at eta = 1/L, needs hundreds to settle)"
    return text


def primed_fact(config: ComparisonConfig) -> str:
    """Say which arms start from weights that were learned on other images than theirs."""
    parts = []
    for arm in config.arms:
        for section in config.run(arm, config.seeds[0]).model.frontend:
            name = getattr(section, "weights", None) if FRONTENDS.of(section).origin else None
            if name:
                facts = open_primed(name).facts
                images, data = facts.get("images", "some"), facts.get("data", "another set")
                parts.append(f"{arm}: {name}, primed on {images} unlabelled images of {data}")
    return "; ".join(parts) + " (arms not named here never saw these)" if parts else "none"


def environment_facts(
    config: ComparisonConfig, test: ImageDataset, chosen: str, seconds: float
) -> dict[str, str]:
    """Return what a reader must know of the run: data, seeds, recipe, versions, time."""
    recipe = config.train
    return {
        "Data": f"{test.name}: {len(test)} test images; {config.data} for training",
        "Backbone": config.model.backbone,
        "Recipe": f"{recipe.epochs} epochs, batch {recipe.batch_size}, peak learning rate {recipe.learning_rate}",
        "Cycles": cycles_fact(config),
        "Primed front-ends": primed_fact(config),
        "Exported": f"{chosen}, chosen on {recipe.validation_images} validation images, not on the test images",
        "Time": f"{seconds:.0f} s in this call",
        "Machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"),
    }


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _picture(image: torch.Tensor) -> Picture:
    """Turn (C, H, W) into (H, W, C)."""
    return image.detach().cpu().permute(1, 2, 0).numpy()
