"""The plug-in: front-ends before classifiers that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from warplca.attacks import run_attack
from warplca.attacks.checks import NotApplicable
from warplca.configs.errors import InputError
from warplca.data import corrupt, load_dataset
from warplca.frontend import Chain, ContrastLevelling, Equaliser, ImpulseRepair, WarpLCA, impulses
from warplca.frontend.gate import through_gate
from warplca.frontend.impulses import ordered
from warplca.frontend.tiles import spans
from warplca.models import (
    Hardened,
    create_classifier,
    export_onnx,
    harden,
    load_checkpoint,
    save_checkpoint,
    shipped_chains,
)
from warplca.models.harden import plug_in

SMALL = {"features": 6, "kernel_size": 3, "iterations": 2, "output": "reconstruction", "threshold": "soft"}


def pictures(count: int = 6, severity: int = 0, name: str = "impulse_noise") -> torch.Tensor:
    images = load_dataset("cifar10-subset", "test").images[:count]
    images = images if severity == 0 else corrupt(images, name, severity=severity, seed=0)
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def stranger() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    ).eval()


@given(st.floats(0, 1), st.floats(0, 0.4), st.floats(0.01, 0.5))
def test_the_gate_is_a_ramp_that_leaves_sound_images_bit_for_bit(
    damage: float, low: float, width: float
) -> None:
    images, restored = torch.rand(1, 3, 5, 7), torch.rand(1, 3, 5, 7)
    gate = (low, low + width)
    found = through_gate(images, restored, torch.tensor([damage]), gate)
    assert float(found.opening) == pytest.approx(min(max((damage - low) / width, 0), 1), abs=1e-4)
    if damage <= low:
        assert torch.equal(found.images, images)
    if damage > low + 1.01 * width:
        assert torch.equal(found.images, restored)
    assert torch.equal(through_gate(images, restored, found.damage, gate, "open").images, restored)
    assert torch.equal(through_gate(images, restored, found.damage, gate, "closed").images, images)
    smooth = through_gate(images, restored, found.damage, gate, "smooth")
    torch.testing.assert_close(smooth.images, found.images)


def test_a_smooth_gate_has_a_gradient_where_the_measured_one_is_shut() -> None:
    for mode, flat in (("measured", True), ("smooth", False)):
        damage = torch.tensor([0.01], requires_grad=True)
        through_gate(
            torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), damage, (0.02, 0.04), mode
        ).images.sum().backward()
        assert damage.grad is not None
        assert (float(damage.grad) == 0.0) is flat


def test_nine_values_are_sorted_whatever_they_are() -> None:
    every = torch.cartesian_prod(
        *[torch.tensor([0.0, 1.0])] * 9
    ).T  # what sorts zeros and ones sorts everything
    assert torch.equal(torch.stack(ordered(every.unbind())), every.sort(dim=0).values)


def test_impulses_are_replaced_by_the_median_of_their_sound_neighbours() -> None:
    flat = torch.full((1, 3, 7, 9), 0.4)
    hurt = flat.clone()
    hurt[0, 0, 3, 4], hurt[0, 1, 0, 0], hurt[0, 2, 3, 4], hurt[0, 2, 3, 5] = 1.0, 0.0, 0.0, 1.0
    encoding = ImpulseRepair(gate=None).encode(hurt)
    torch.testing.assert_close(encoding.output, flat)
    assert float(encoding.gated.damage) == pytest.approx(4 / hurt.numel())
    white = torch.ones(1, 3, 7, 9)  # saturated areas are no impulses
    assert torch.equal(ImpulseRepair(gate=None)(white), white)


def test_working_on_few_values_is_working_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = torch.cat([pictures(4, severity=3), random.round(), torch.ones(1, 3, 32, 32)]).requires_grad_()
    found = []
    for looks in (True, False):
        monkeypatch.setattr(impulses, "may_look", lambda _, looks=looks: looks)
        repaired, damage = ImpulseRepair().restore(x)
        (gradient,) = torch.autograd.grad((repaired * torch.linspace(0, 1, 32)).sum(), x)
        found.append((repaired, damage, gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2], found[1][2])


def test_impulse_noise_is_mended_and_clean_photographs_pass() -> None:
    repair, clean = ImpulseRepair(), pictures(32)
    hurt = pictures(32, severity=3)
    assert float((repair(hurt) - clean).square().mean()) < 0.1 * float((hurt - clean).square().mean())
    assert torch.equal(
        repair(clean)[repair.encode(clean).gated.opening == 0], clean[repair.encode(clean).gated.opening == 0]
    )
    assert float((repair.encode(clean).gated.opening == 0).float().mean()) > 0.9


def test_contrast_levelling_undoes_a_loss_of_contrast() -> None:
    x = pictures(16)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    levelling = ContrastLevelling(gate=None)
    pale = mean + 0.3 * (x - mean)
    values = levelling(pale).flatten(1)
    spread = values.quantile(0.99, dim=1) - values.quantile(0.01, dim=1)
    assert float((spread - 0.82).abs().max()) < 0.12
    torch.testing.assert_close(levelling(torch.full((2, 3, 8, 8), 0.5)), torch.full((2, 3, 8, 8), 0.5))


def test_an_equaliser_that_learned_hands_usual_spectra_on() -> None:
    equaliser = Equaliser().eval()
    equaliser.learn(pictures(200))
    blurred = pictures(20, severity=4, name="defocus_blur")
    before, after = (equaliser.encode(images).gated.damage.mean() for images in (blurred, equaliser(blurred)))
    assert float(after) < 0.6 * float(before)


def test_a_lca_behind_a_gate_hands_on_what_it_codes_well_enough_untouched() -> None:
    torch.manual_seed(0)
    layer = WarpLCA(**SMALL, lam=0.05).eval()
    images = torch.rand(3, 3, 9, 11)
    encoding = layer.encode(images)
    layer.gate = (0.5, 0.6)
    gated = layer.encode(images)
    error = (encoding.output - images).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(gated.figures()["damage"], error)
    assert torch.equal(gated.output[error < 0.5], images[error < 0.5])
    with pytest.raises(InputError, match="gate needs output: reconstruction"):
        WarpLCA(gate=(0.1, 0.2))
    with pytest.raises(InputError, match=r"gate is .0.2, 0.1.; give \[low, high\]"):
        ImpulseRepair(gate=[0.2, 0.1])


def test_a_stranger_is_called_on_what_the_front_end_hands_on(stranger: nn.Module) -> None:
    images = pictures(5, severity=3)
    hardened = harden(stranger, ["impulse-repair", "contrast"])
    assert isinstance(hardened, Hardened)
    chain = Chain([ImpulseRepair(), ContrastLevelling()])
    assert torch.equal(hardened(images), stranger(chain(images).clamp(0, 1)))
    assert hardened.model is stranger
    assert set(hardened.inspect(images).encoding.figures()) == {"damage", "gate", "damage 2", "gate 2"}
    assert torch.equal(
        harden(lambda x: stranger(x), "impulse-repair")(images), stranger(ImpulseRepair()(images))
    )


def test_our_classifier_is_ours_again_and_keeps_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", {"name": "conv", "features": 4, "kernel_size": 3}).eval()
    model.about["results"] = {"clean": 0.9}
    images = pictures(4, severity=3)
    hardened = harden(model, "impulse-repair")
    torch.testing.assert_close(hardened(images), model(ImpulseRepair()(images)))
    assert "results" not in hardened.about
    save_checkpoint(hardened, tmp_path / "x", image_size=(32, 32))
    again = load_checkpoint(tmp_path / "x")
    torch.testing.assert_close(again(images), hardened(images))
    for twice in (hardened, again, harden(lambda x: x.mean((2, 3)), "impulse-repair")):
        with pytest.raises(InputError, match="hardened already"):
            harden(twice, "contrast")


@pytest.mark.parametrize("attack", ["gates-smooth", "gates-open", "gates-closed"])
def test_gates_are_attacked_held_and_smooth(stranger: nn.Module, attack: str) -> None:
    images, labels = pictures(6, severity=2), torch.zeros(6, dtype=torch.int64)
    hardened = harden(stranger, {"name": "contrast", "gate": [0.0, 0.9]})
    labels = hardened(images).argmax(1)
    found = run_attack(hardened, images, labels, attack, "linf 8/255")
    assert torch.equal(found.predictions, hardened(found.adversarial).argmax(1))
    assert hardened.frontend.gate_mode == "measured"
    with pytest.raises(NotApplicable, match="no gated layer"):
        run_attack(harden(stranger, {"name": "contrast", "gate": None}), images, labels, attack, "linf 8/255")


def test_what_is_no_plug_in_is_refused_in_a_sentence(stranger: nn.Module) -> None:
    with pytest.raises(InputError, match="outputs features"):
        harden(stranger, "conv")
    with pytest.raises(InputError, match=r"unknown front-end 'impulse-repare'.*impulse-repair"):
        harden(stranger, "impulse-repare")
    with pytest.raises(InputError, match="give image_size"):
        harden(stranger)
    with pytest.raises(InputError, match="tile is 200, and no front-end here codes; leave it out"):
        harden(stranger, "impulse-repair", tile=200)
    with pytest.raises(InputError, match="tile is 64"):
        harden(stranger, "cifar10-64x9s2-restore", tile=64)
    with pytest.raises(InputError, match="outputs 3 channels, and the model takes 1"):
        harden(create_classifier("resnet10_slim", in_channels=1), "impulse-repair")


@pytest.mark.parametrize("name", shipped_chains())
def test_shipped_chains_build_and_work_at_odd_and_tiny_sizes(
    name: str, stranger: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    chain = plug_in(name)
    for size in ((37, 31), (5, 3)):
        with torch.no_grad():
            handed_on = chain(torch.rand(2, 3, *size))
        assert handed_on.shape == (2, 3, *size)
        assert torch.isfinite(handed_on).all()
    side = {"cifar10": 96, "photographs": 97}[name]
    chosen = harden(stranger, image_size=side)
    assert f"chosen by image size ({side} pixels): the chain {name!r}" in caplog.text
    assert chosen.frontend.sections == chain.sections


def test_tiles_are_the_whole_but_for_what_overlaps_do_not_carry() -> None:
    layer = WarpLCA.from_pretrained("cifar10-64x9s2-restore").double()
    noisy = pictures(60, severity=2, name="gaussian_noise").double()
    wall = torch.cat([torch.cat(list(row), dim=2) for row in noisy.reshape(10, 6, 3, 32, 32)], dim=1)[None]
    hardened = harden(lambda images: images.mean((2, 3)), layer, tile=192)
    assert layer.tile == 192
    with torch.no_grad():
        tiled = hardened.inspect(wall).encoding
        layer.tile = None
        whole = hardened.inspect(wall).encoding
    assert tiled.output.shape == wall.shape == (1, 3, 320, 192)
    assert [(s.start, s.stop) for s in spans(320, 192, 2)] == [(0, 194), (128, 320)]
    error = (tiled.output - whole.output).abs().amax(dim=(0, 1, 3))
    # Three cycles reach 38 pixels, so that only pixels in the overlap can tell.
    assert float(torch.cat([error[:128], error[194:]]).max()) < 1e-9
    assert float(error.max()) < 1e-3 < float((whole.output - wall).abs().mean())
    torch.testing.assert_close(
        tiled.figures()["active_fraction"], whole.figures()["active_fraction"], rtol=0.02, atol=0
    )


@pytest.mark.slow
def test_tiled_front_ends_are_exported(stranger: nn.Module, tmp_path: Path) -> None:
    hardened = harden(stranger, {"weights": "cifar10-64x9s2-restore", "gate": [0.012, 0.018]}, tile=128)
    images = torch.rand(2, 3, 140, 20, generator=torch.Generator().manual_seed(0))
    assert export_onnx(hardened, tmp_path / "m.onnx", images).max_difference < 1e-4
