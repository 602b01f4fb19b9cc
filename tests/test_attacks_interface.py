"""What the shared interface promises for every attack: checks, counts, seeds, and a clean scene."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from warplca.attacks import ATTACKS, ThreatModel, as_attack, run_attack
from warplca.attacks.adaptive.ensemble import ADAPTIVE
from warplca.attacks.checks import chance_note
from warplca.attacks.gradient_descent import FGSM, PGD
from warplca.attacks.interface import BatchwiseAttack
from warplca.attacks.threat import BallError
from warplca.configs.errors import InputError

SIZE = (3, 9, 13)


def pictures(count: int) -> Tensor:
    """Blocky images of varied colour, so that a random network tells them apart."""
    coarse = torch.rand(count, 3, 3, 4, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, SIZE[1:])


def small_network(classes: int = 5) -> nn.Module:
    torch.manual_seed(7)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten())
    head = nn.Linear(72, classes)
    network = nn.Sequential(features, head).eval()
    with torch.no_grad():
        head.bias -= network(pictures(64)).mean(dim=0)
    return network


def images_and_labels(model: nn.Module, count: int = 8, wrong: int = 1) -> tuple[Tensor, Tensor]:
    images = pictures(count)
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(dim=1)
    labels[:wrong] = logits[:wrong].argmin(dim=1)
    return images, labels


BLACK_BOXES = {"square", "square-20k", "boundary", "hopskipjump"}


def test_every_attack_says_its_kind() -> None:
    kinds = {name: as_attack(name).kind for name in ATTACKS}
    assert {name for name, kind in kinds.items() if kind == "adaptive attacks"} == {*ADAPTIVE, "adaptive"}
    assert {name for name, kind in kinds.items() if kind == "black-box attacks"} == BLACK_BOXES
    assert {name for name, kind in kinds.items() if kind == "random search"} == {"noise"}
    plain = {name for name, kind in kinds.items() if kind == "plain gradients"}
    assert {"fgsm", "margin", "autoattack", "deepfool", "carlini-wagner", "brendel-bethge"} <= plain
    assert plain == set(ATTACKS) - {*ADAPTIVE, "adaptive", "noise"} - BLACK_BOXES


def quick(name: str):
    """The registered attack with little enough work for a test of its contract."""
    attack = as_attack(name)
    shorter = {
        "square_queries": 40,
        "steps": 8,
        "restarts": 2,
        "searches": 2,
        "evaluations": 10,
        "repeats": 5,
    }
    known = {field.name for field in dataclasses.fields(attack)}
    return dataclasses.replace(attack, **{k: v for k, v in shorter.items() if k in known})


ADV_LIB = ("adv_lib", "adversarial-library")
OPTIONAL = {"brendel-bethge": ("numba", "numba"), "fmn": ADV_LIB, "ddn": ADV_LIB}
"""Packages, and what messages call them, of the attacks that need one."""


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(
            name, norm, marks=pytest.mark.slow if name == "autoattack-rand" and norm != "linf" else ()
        )
        for name in sorted(set(ATTACKS) - set(ADAPTIVE) - {"adaptive"})
        for norm in ("linf", "l2", "l1")
    ],
)
def test_every_attack_keeps_its_promises(name: str, norm: str) -> None:
    attack = quick(name)
    threat = ThreatModel(norm, {"linf": 0.15, "l2": 2.0, "l1": 20.0}[norm])
    model = small_network()
    images, labels = images_and_labels(model, count=5)
    if norm not in attack.norms:
        with pytest.raises(InputError, match=f"not '{norm}'"):
            attack(model, images, labels, threat)
        return
    package, called = OPTIONAL.get(name, ("torch", ""))
    if importlib.util.find_spec(package) is None:
        with pytest.raises(InputError, match=f"needs {called}, which is not installed.*install it with"):
            attack(model, images, labels, threat)
        return
    result = attack(model, images, labels, threat, batch_size=3)
    assert float(threat.distance(result.adversarial, images).max()) <= threat.epsilon + 1e-6
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    assert not result.correct[0]
    assert result.correct[1:].all()
    assert torch.equal(result.adversarial[0], images[0])
    with torch.no_grad():
        assert torch.equal(model(result.adversarial).argmax(dim=1), result.predictions)
    assert torch.equal(result.success, result.predictions != labels)
    assert result.robust_accuracy == pytest.approx(1 - result.success.float().mean().item())
    assert (result.gradients > 0) == attack.uses_gradients
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "square"])
def test_equal_seeds_repeat_and_leave_the_generators_alone(name: str) -> None:
    model = small_network()
    images, labels = images_and_labels(model)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    first, again, other = (
        run_attack(model, images, labels, quick(name), "linf 0.3", seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(first.adversarial, again.adversarial)
    assert (first.queries, first.gradients) == (again.queries, again.gradients)
    assert not torch.equal(first.adversarial, other.adversarial)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)


class StrictModel(nn.Module):
    """Refuses pixels outside [0, 1], as this package's classifiers do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()

    def forward(self, images: Tensor) -> Tensor:
        assert images.min() >= 0
        assert images.max() <= 1
        return self.network(images)


@pytest.mark.parametrize(
    "name", ["pgd", "noise", "boundary", "square", "deepfool", "smoothed", "estimated", "adaptive"]
)
def test_no_attack_shows_the_model_pixels_outside_the_range(name: str) -> None:
    model, attack = StrictModel().eval(), quick(name)
    norm = "linf" if "linf" in attack.norms else "l2"
    images = pictures(
        3
    ).round()  # black and white pixels: every step in one of two directions leaves the range
    result = attack(model, images, model(images).argmax(dim=1), ThreatModel(norm, 0.05))
    assert result.adversarial.min() >= 0


def test_counts_are_exact() -> None:
    model = small_network()
    images, labels = images_and_labels(model, count=8, wrong=2)
    assert as_attack("fgsm")(model, images, labels, ThreatModel("linf", 0.01)).queries == 6
    result = PGD(steps=7)(model, images, labels, ThreatModel("linf", 1e-6), batch_size=4)
    assert (result.queries, result.gradients) == (42, 42)
    restarted = PGD(steps=7, restarts=3)(model, images, labels, ThreatModel("linf", 1e-6), batch_size=4)
    assert (restarted.queries, restarted.gradients) == (6 * (3 * 7 + 2), 126)


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "fab-t"])
def test_non_contiguous_images_and_channels_last_gradients_give_the_same_result(name: str) -> None:
    model = small_network()
    images, labels = images_and_labels(model)
    strided = images.contiguous(memory_format=torch.channels_last)
    assert not strided.is_contiguous()
    expected = run_attack(model, images, labels, quick(name), "l2 2")
    layout = nn.Sequential(_ChannelsLast(), model).eval()
    for network, inputs in ((model, strided), (layout, images)):
        result = run_attack(network, inputs, labels, quick(name), "l2 2")
        torch.testing.assert_close(result.adversarial, expected.adversarial, rtol=0, atol=1e-4)


class _ChannelsLast(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def test_double_precision_goes_through_every_library() -> None:
    model = small_network().double()
    images, labels = images_and_labels(small_network())
    for name in ("pgd", "apgd-t", "square"):
        result = run_attack(model, images.double(), labels, quick(name), "linf 0.02")
        assert result.adversarial.dtype == torch.float64


def test_a_plain_function_can_be_attacked() -> None:
    network = small_network()
    images, labels = images_and_labels(network)
    as_function = run_attack(lambda x: network(x), images, labels, "fgsm", "linf 0.05")
    assert torch.equal(
        as_function.adversarial, FGSM()(network, images, labels, ThreatModel("linf", 0.05)).adversarial
    )


def test_a_random_model_is_noted() -> None:
    network = small_network()
    images, labels = images_and_labels(network)
    noisy = run_attack(
        lambda x: network(x) + 0.01 * torch.randn(len(x), 5), images, labels, "fgsm", "linf 0.05"
    )
    assert noisy.notes == ("The model is random: equal images gave different logits on two calls.",)
    assert run_attack(network, images, labels, "fgsm", "linf 0.05").notes == ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TooFar(BatchwiseAttack):
    def run_batch(self, model, images, labels, threat, *, seed):
        return images + 2 * threat.epsilon * (1 - 2 * (images > 0.5).float())


def test_a_new_attack_cannot_leave_the_ball() -> None:
    model = small_network()
    with pytest.raises(BallError, match="left its ball"):
        TooFar()(model, *images_and_labels(model), ThreatModel("linf", 0.1))


GOOD = images_and_labels(small_network())


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GOOD[0] * 255, GOOD[1], r"pixels range from .* to 25\d.*; expected \[0, 1\]"),
        ((GOOD[0] * 255).byte(), GOOD[1], "images are torch.uint8; expected a float32 or float64"),
        (GOOD[0].half(), GOOD[1], "images are torch.float16"),
        (GOOD[0].numpy(), GOOD[1], "images are ndarray"),
        (GOOD[0][0], GOOD[1], r"shape \(3, 9, 13\); expected \(N, C, H, W\)"),
        (GOOD[0][:0], GOOD[1][:0], "with N above 0"),
        (GOOD[0] * float("nan"), GOOD[1], "images hold NaN"),
        (GOOD[0], GOOD[1][:3], r"labels have shape \(3,\); expected \(8,\)"),
        (GOOD[0], GOOD[1].float(), "labels are torch.float32; expected a tensor of integer"),
        (GOOD[0], GOOD[1] + 3, "the model has 5 classes; expected 0 to 4"),
        (GOOD[0], GOOD[1] - 5, "labels range from -5 to -1"),
    ],
)
def test_unusable_data_is_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_attack(small_network(), images, labels, "fgsm", "linf 8/255")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.train(), r"training mode.*Call model.eval\(\)"),
        (lambda net: _one_part_training(net), "training"),
        (lambda net: lambda x: net(x) * float("nan"), "NaN or infinite logits for 8 of 8 images"),
        (lambda net: lambda x: net(x).detach(), "carry no gradient.*'square'"),
        (lambda net: lambda x: net(x)[:, 0], r"returned \(8,\); expected logits of shape \(8, classes\)"),
        (lambda net: lambda x: (net(x),), "returned tuple"),
    ],
)
def test_unusable_models_are_refused(change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_attack(change(small_network()), *GOOD, "pgd", "linf 8/255")


def _one_part_training(network: nn.Module) -> nn.Module:
    network[0].train()  # pyright: ignore[reportIndexIssue]
    return network


def test_a_model_at_chance_is_noted() -> None:
    network = small_network()
    images = pictures(40)
    with torch.no_grad():
        labels = (network(images).argmax(dim=1) + 1) % 5
    labels[:3] = network(images[:3]).argmax(dim=1)
    (note,) = run_attack(network, images, labels, "fgsm", "linf 0.01").notes
    assert note.startswith(
        "Only 3 of 40 clean images are classified rightly; guessing among 5 classes gets 8 on"
    )


@pytest.mark.parametrize(
    ("right", "count", "classes", "explained"),
    [(86, 180, 3, False), (9, 20, 3, True), (58, 100, 2, True), (59, 100, 2, False), (150, 1000, 10, False)],
)
def test_guessing_explains_what_the_binomial_test_says(
    right: int, count: int, classes: int, explained: bool
) -> None:
    share = 1 / classes
    tail = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(right, count + 1)]
    notes = chance_note(torch.arange(count) < right, classes)
    assert bool(notes) is explained is (sum(tail) >= 0.05)
    assert not explained or f"{right} or more with probability {sum(tail):.2g}:" in notes[0]


def test_progress_counts_images_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warplca.configs.progress.on_terminal", lambda: True)
    network = small_network()
    run_attack(network, *images_and_labels(network, 8, wrong=0), PGD(steps=5), "linf 0.01", progress=True)
    captured = capsys.readouterr()
    assert "40 images" in captured.err
    assert captured.out == ""


def test_a_model_without_gradient_can_still_be_attacked_by_queries() -> None:
    network = small_network()
    result = run_attack(lambda x: network(x).detach(), *GOOD, quick("square"), "linf 0.3")
    assert result.gradients == 0
    assert result.success.sum() > 1


def test_unknown_names_get_their_neighbour() -> None:
    with pytest.raises(InputError, match=r"unknown attack 'autoatack'.*did you mean 'autoattack'"):
        run_attack(small_network(), *GOOD, "autoatack", "linf 8/255")
    with pytest.raises(InputError, match="batch_size is 0"):
        run_attack(small_network(), *GOOD, "fgsm", "linf 8/255", batch_size=0)


def test_installed_packages_offer_attacks_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", "warplca.attacks.gradient_descent:FGSM", "warplca.attacks"),
        EntryPoint("no attack", "builtins:dict", "warplca.attacks"),
        EntryPoint("broken", "no_such_package:Attack", "warplca.attacks"),
    ]
    monkeypatch.setattr("warplca.attacks.registry.entry_points", lambda group: points)
    assert type(as_attack("mine")) is type(as_attack("fgsm"))
    with pytest.raises(InputError, match=r"the installed attack 'no attack' is \{\}; expected a"):
        as_attack("no attack")
    with pytest.raises(
        InputError, match="the installed attack 'broken' .* cannot be made: ModuleNotFoundError"
    ):
        as_attack("broken")
    with pytest.raises(InputError, match="unknown attack 'mime'; did you mean 'mine'"):
        as_attack("mime")
