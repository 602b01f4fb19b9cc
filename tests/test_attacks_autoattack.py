"""AutoAttack behind our interface against the library's own run, image by image."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from pyautoattack import AutoAttack as Library
from pyautoattack import checks as library_checks
from torch import Tensor, nn

from warplca.attacks import ThreatModel, run_attack
from warplca.attacks.autoattack import AutoAttack, tiles_fit
from warplca.configs.errors import InputError

NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def network(classes: int = 10, size: tuple[int, int] = (10, 10)) -> nn.Module:
    torch.manual_seed(5)
    conv = nn.Conv2d(3, 12, 3, stride=2)
    features = 12 * ((size[0] - 3) // 2 + 1) * ((size[1] - 3) // 2 + 1)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(features, classes)).eval()


def task(model: nn.Module, count: int = 8, size: tuple[int, int] = (10, 10)) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(dim=1)
    labels[::6] = logits[::6].argmin(dim=1)
    return images, labels


def library_run(model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, **settings) -> Tensor:
    """Broken images by the library alone, with the classes that this network has."""
    library = Library(model, norm=NAMES[threat.norm], eps=threat.epsilon, seed=3, **settings)  # pyright: ignore[reportArgumentType]
    library.square.n_queries = 100
    library.apgd_targeted.n_target_classes = library.fab.n_target_classes = 3
    _, predictions = library.run_standard_evaluation(images, labels, batch_size=5)
    return predictions != labels


@pytest.mark.parametrize(
    ("norm", "epsilon"),
    [
        ("linf", 0.025),
        pytest.param("l2", 0.3, marks=pytest.mark.slow),
        pytest.param("l1", 3.0, marks=pytest.mark.slow),
    ],
)
def test_standard_run_equals_the_library_image_by_image(norm: str, epsilon: float) -> None:
    model = network(classes=4)
    images, labels = task(model)
    threat = ThreatModel(norm, epsilon)  # pyright: ignore[reportArgumentType]
    ours = AutoAttack(square_queries=100)(model, images, labels, threat, seed=3, batch_size=5)
    expected = library_run(model, images, labels, threat)
    assert ours.success.tolist() == expected.tolist()
    assert 2 < int(ours.success.sum()) < 8


def test_a_part_has_the_restarts_of_the_standard_run() -> None:
    model = network()
    images, labels = task(model, count=6)
    result = run_attack(model, images, labels, "apgd-ce", "linf 1e-6")
    correct = int(result.correct.sum())
    assert result.gradients == correct * 101
    targeted = run_attack(model, images, labels, "apgd-t", "linf 1e-6")
    assert targeted.gradients == correct * 101 * 9


def test_a_random_model_gets_the_rand_version() -> None:
    model = network(classes=4)
    images, labels = task(model, count=3)
    result = run_attack(
        lambda x: model(x) + 0.001 * torch.randn(len(x), 4), images, labels, "autoattack", "linf 0.3"
    )
    assert "AutoAttack's rand version was used instead of standard." in result.notes


def test_few_classes_are_a_named_downgrade() -> None:
    model = network(classes=3)
    images, labels = task(model)
    result = AutoAttack(square_queries=20)(model, images, labels, ThreatModel("linf", 0.02))
    assert result.notes[0] == "apgd-t was left out: it needs 4 classes, the model has 3."
    with pytest.raises(InputError, match="apgd-t needs 4 classes, the model has 3; use 'apgd-ce'"):
        run_attack(model, images, labels, "apgd-t", "linf 0.02")
    five = network(classes=5)
    assert run_attack(five, *task(five), "apgd-t", "linf 0.02").notes == ()


@pytest.mark.parametrize("size", [(4, 9), (12, 12), (13, 10), (10, 17), (32, 32)])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_square_runs_on_every_size(size: tuple[int, int], norm: str) -> None:
    model = network(size=size)
    images, labels = task(model, count=4, size=size)
    threat = ThreatModel(norm, {"l2": 4.0, "l1": 60.0}[norm])  # pyright: ignore[reportArgumentType]
    result = AutoAttack(part="square", square_queries=60)(model, images, labels, threat)
    assert result.queries > 3
    assert int(result.success.sum()) > int((~result.correct).sum())


def test_sizes_that_the_library_tiles_are_left_to_it() -> None:
    assert tiles_fit(32, 32)
    assert tiles_fit(10, 10)
    assert not tiles_fit(12, 12)
    assert not tiles_fit(4, 40)


def test_library_warnings_become_notes_and_leave_no_trace() -> None:
    images, labels = task(network())
    probabilities = nn.Sequential(network(), nn.Softmax(dim=1)).eval()
    tracer = sys.gettrace()
    result = run_attack(probabilities, images, labels, "apgd-ce", "linf 0.01")
    assert any("output is a probability distribution" in note for note in result.notes)
    assert not any("flags_doc" in note for note in result.notes)
    assert sys.gettrace() is tracer
    assert logging.getLogger("auto-attack").handlers == []


def test_a_dynamic_defence_does_not_mark_the_next_model() -> None:
    model = network()
    images, labels = task(model)

    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                torch.autograd.grad(model(leaf).sum(), leaf)
            return model(x)

    first = run_attack(Dynamic().eval(), images, labels, "apgd-ce", "linf 0.01")
    assert any("dynamic defense" in note for note in first.notes)
    assert sum(library_checks.funcs.values()) > 0
    assert run_attack(model, images, labels, "apgd-ce", "linf 0.01").notes == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": "standart"}, "unknown AutoAttack version 'standart'.*did you mean 'standard'"),
        ({"part": "apgd"}, "unknown AutoAttack part 'apgd'"),
        ({"square_queries": 0}, "square_queries=0"),
    ],
)
def test_unknown_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AutoAttack(**settings)
