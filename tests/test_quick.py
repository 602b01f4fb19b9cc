"""The quick network and its recipe: whitening, timm's interface, rates of biases, flips in turn, what a run tells."""

import os

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from stripes import config, stripes

import warplca.models  # noqa: F401 - registers the networks with timm
from warplca.configs import InputError, RunConfig, load_config
from warplca.data import ImageDataset, load_dataset
from warplca.frontend.conv import ConvFrontend
from warplca.models import create_classifier, load_checkpoint
from warplca.train import train
from warplca.train.display import crowded, duration
from warplca.train.optim import make_optimiser
from warplca.train.processes import chosen_precision
from warplca.train.sampling import mirrored_in_turn

TINY = {"widths": (8, 12, 16), "depth": 2}


def test_the_first_layer_whitens_patches_and_learns_no_more():
    images = load_dataset("cifar10-subset", "train").tensors(range(500))[0]
    network = timm.create_model("quick_resnet", **TINY)
    network.start_from_images(images)
    with torch.no_grad():
        seen = network.whitening(images)
    rows = seen.transpose(0, 1).flatten(1)
    covariance = torch.cov(rows[:12])
    variances = torch.linalg.eigvalsh(torch.cov(F.unfold(images, 2).transpose(1, 2).flatten(0, 1).T))
    expected = torch.diag(variances / (variances + 5e-4))
    assert torch.allclose(covariance, expected, atol=0.02)
    assert rows.mean(1).abs().max() < 0.01
    assert torch.allclose(rows[:12], -rows[12:], atol=1e-4)
    assert not network.whitening.weight.requires_grad


def test_groups_start_as_the_identity_on_their_first_channels():
    network = timm.create_model("quick_resnet", widths=(32, 32, 32), depth=3).eval()
    for group in network.groups:
        for conv in group.convs:
            kept = min(conv.in_channels, conv.out_channels)
            x = torch.rand(1, conv.in_channels, 5, 7)
            with torch.no_grad():
                assert torch.allclose(conv(x)[:, :kept], x[:, :kept], atol=1e-6)


@pytest.mark.parametrize("name", ["quick_resnet", "quick_resnet_wide"])
@pytest.mark.parametrize("size", [(32, 32), (29, 41)])
def test_timm_may_ask_it_what_it_asks_its_own(name, size):
    network = timm.create_model(name, num_classes=7, **TINY).eval()
    x = torch.rand(2, 3, *size)
    features = network.forward_features(x)
    assert features.shape[1] == network.num_features
    assert torch.equal(network.forward_head(features), network(x))
    assert network(x).shape == (2, 7)
    network.reset_classifier(3)
    assert network(x).shape == (2, 3)
    assert network.get_classifier() is network.fc
    maps = timm.create_model(name, features_only=True, **TINY)(x)
    assert [m.shape[1] for m in maps] == [8, 12, 16]
    for level, found in zip(network.feature_info, maps, strict=True):
        assert abs(found.shape[2] - size[0] / level["reduction"]) <= 1.5


def test_behind_a_code_nothing_is_whitened_and_the_first_group_keeps_the_size():
    model = create_classifier("quick_resnet", "conv", num_classes=3, backbone_options=TINY).eval()
    assert not model.backbone.whitens
    assert model.backbone.groups[0](model.backbone.whitening(torch.rand(1, 64, 16, 16))).shape[2:] == (15, 15)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_biases_have_a_rate_of_their_own():
    model = create_classifier("quick_resnet", "none", num_classes=2, backbone_options=TINY)
    run = config(learning_rate=0.5, bias_rate=64.0, weight_decay=0.1)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in make_optimiser(model, run.train).param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == ((32.0, 0.0) if parameter.ndim == 1 else (0.5, 0.1)), name


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 7), st.integers(0, 3))
def test_each_image_is_mirrored_in_every_other_epoch(images, epoch, seed):
    chosen = torch.randperm(images)
    now, then = (mirrored_in_turn(chosen, e, images, seed) for e in (epoch, epoch + 1))
    assert now.shape == (images, 1)
    assert torch.equal(now, ~then)
    assert torch.equal(now, mirrored_in_turn(chosen, epoch + 2, images, seed))
    some = mirrored_in_turn(chosen[: images // 2], epoch, images, seed)
    assert torch.equal(some, now[: images // 2])


def quick(**train_keys) -> RunConfig:
    keys = {"train.epochs": 2, "train.batch_size": 16, "train.validation_images": 0, "model.num_classes": 2}
    keys |= {f"train.{name}": value for name, value in train_keys.items()}
    words = [f"{name}={value}" for name, value in keys.items()]
    return load_config(RunConfig, "quick94", "train", [*words, "model.backbone_options={widths: [8, 8, 8]}"])


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, precision):
    from warplca.train import Interrupted

    run, data = quick(precision=precision), stripes(48)
    whole = train(run, data, tmp_path / "whole", progress=False)
    with pytest.raises(Interrupted):
        train(run, data, tmp_path / "parts", progress=False, stop_after=4)
    again = train(run, data, tmp_path / "parts", progress=False)
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    loaded = load_checkpoint(tmp_path / "whole" / "checkpoint")
    images = data.tensors(range(4))[0]
    with torch.no_grad():
        assert torch.equal(loaded(images), whole(images))


def test_a_fine_tuned_network_keeps_its_first_layer(tmp_path):
    start = train(quick(epochs=1), stripes(48), tmp_path / "start", progress=False)
    rng = np.random.default_rng(0)  # of other statistics, so that whitening anew would show
    other = ImageDataset(
        "noise", rng.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8), np.arange(48) % 2, ("a", "b")
    )
    tuned = quick(epochs=1, init=tmp_path / "start" / "checkpoint", learning_rate=1e-6)
    weights = [start.backbone.whitening.weight]
    weights.append(train(tuned, other, tmp_path / "tuned", progress=False).backbone.whitening.weight)
    weights.append(train(quick(epochs=1), other, tmp_path / "anew", progress=False).backbone.whitening.weight)
    assert torch.allclose(weights[0], weights[1], atol=1e-3)
    assert not torch.allclose(weights[0], weights[2], atol=0.1)


def test_a_precision_that_is_left_to_the_machine_is_said(monkeypatch, caplog):
    assert chosen_precision("fp16", "cpu") == "fp16"
    for has, expected in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert chosen_precision("auto", "cpu") == expected
        assert f"train.precision is auto: {expected} on cpu" in caplog.text


def test_a_run_tells_how_long_it_takes_and_that_its_threads_wait():
    assert duration(0.5, 240) == "about 2.0 minutes left (240 steps of 0.5 s), validation not counted"
    assert duration(2.0, 7200).startswith("about 4.0 hours left")
    assert crowded(0.0, os.cpu_count()) == ""
    assert crowded(1000.0, 1) == ""
    assert "OMP_NUM_THREADS=1 may be several times faster" in crowded(1000.0, 2)


def test_the_duration_is_printed_after_eight_steps(tmp_path, capsys):
    train(quick(), stripes(96), tmp_path / "run", progress=True)
    lines = [
        line
        for line in capsys.readouterr().err.replace("\r", "\n").splitlines()
        if "train none: about" in line
    ]
    assert len(lines) == 1
    assert "(4 steps of" in lines[0]


def test_a_step_of_training_changes_images_alike_however_large_the_convolution():
    """The rate that suits a trained network behind it then suits the convolution, too."""

    def change(**size):
        torch.manual_seed(0)
        front = ConvFrontend(**size, output="reconstruction").train()
        images, target = torch.rand(4, 3, 25, 31), torch.randn(4, 3, 25, 31)
        (front(images) * target).sum().backward()
        with torch.no_grad():
            front.synthesis -= 0.1 * front.synthesis.grad
            return float((front(images) - images).norm())

    changes = [
        change(features=features, kernel_size=kernel, stride=stride)
        for features, kernel, stride in ((8, 5, 2), (64, 5, 2), (64, 9, 2), (64, 9, 1))
    ]
    assert max(changes) < 3.0 * min(changes), changes


@pytest.mark.parametrize(("kernel", "stride", "size"), [(9, 2, (32, 32)), (5, 1, (7, 13)), (4, 2, (9, 15))])
def test_a_convolution_that_hands_on_images_changes_nothing_at_first(kernel, stride, size):
    front = ConvFrontend(features=6, kernel_size=kernel, stride=stride, output="reconstruction").eval()
    images = torch.rand(2, 3, *size)
    assert front.hands_on == "images"
    assert torch.equal(front(images), images)
    # What it adds is the adjoint of the strided convolution with the scaled atoms, times the image's contrast.
    with torch.no_grad():
        front.synthesis.normal_()
        added = front(images) - images
        code = ConvFrontend(features=6, kernel_size=kernel, stride=stride).eval()
        code.load_state_dict({k: v for k, v in front.state_dict().items() if k != "synthesis"})
        features = code(images)
        left = (kernel - 1) // 2
        atoms = front.synthesis / (6 * (kernel / stride) ** 2) ** 0.5
        whole = F.conv_transpose2d(features, atoms, stride=stride)
        whole = whole[:, :, left : left + size[0], left : left + size[1]]
        whole = F.pad(whole, (0, size[1] - whole.shape[3], 0, size[0] - whole.shape[2]))
        contrast = (
            (images - images.mean((1, 2, 3), keepdim=True)).square().mean((1, 2, 3), keepdim=True).sqrt()
        )
        assert torch.allclose(added, whole * contrast, atol=1e-4)
    with pytest.raises(InputError, match="unknown output 'pictures' in ConvFrontend"):
        ConvFrontend(output="pictures")
