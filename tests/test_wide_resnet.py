"""Wide residual networks: the published sizes, odd images, and what timm asks of a model."""

import pytest
import timm
import torch
from stripes import section

from warplca.configs import InputError
from warplca.models import create_classifier


@pytest.mark.parametrize(("name", "parameters"), [("wrn_16_4", 2_748_890), ("wrn_28_10", 36_479_194)])
def test_parameter_counts_are_the_published_ones(name, parameters):
    """RobustBench and the authors give 2.7 and 36.5 million; these are the exact counts of their code."""
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_it_takes_any_channels_classes_and_odd_sizes():
    model = timm.create_model("wrn_16_4", in_chans=5, num_classes=7).eval()
    images = torch.rand(2, 5, 37, 31)
    assert model(images).shape == (2, 7)
    assert model.forward_features(images).shape == (2, 256, 10, 8)
    model.reset_classifier(0)
    assert model(images).shape == (2, 256)


def test_features_have_the_strides_they_claim():
    model = timm.create_model("wrn_16_4", features_only=True)
    shapes = [tuple(level.shape[1:]) for level in model(torch.rand(1, 3, 32, 32))]
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
    assert model.feature_info.reduction() == [1, 2, 4]


def test_checkpointed_gradients_are_the_plain_ones():
    model = timm.create_model("wrn_16_4")
    images = torch.rand(2, 3, 16, 16)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_groups_share_a_layer_with_their_shortcut():
    """The sum of a block is the shortcut plus the branch: with a zero branch an equal-width block is the identity."""
    model = timm.create_model("wrn_16_4")
    block = model.layer1[1]
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 64, 5, 7)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("frontend", [None, "conv", "lca", "warp-lca"])
def test_every_arm_has_the_same_map(frontend):
    model = create_classifier("wrn_16_4", section(frontend))
    with torch.no_grad():
        images = model.eval().backbone_input(torch.rand(1, 3, 32, 32))
        assert model.backbone.forward_features(images).shape == (1, 256, 4, 4)


def test_a_small_stem_is_refused():
    with pytest.raises(InputError, match=r"not of timm's ResNet family; take stem: original"):
        create_classifier("wrn_16_4", None, stem="small")
