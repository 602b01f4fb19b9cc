"""The attack inside adversarial training: whose gradient it takes, and what it leaves as it is."""

import pytest
import torch

from warplca.attacks import ThreatModel
from warplca.configs import InputError
from warplca.models import create_classifier
from warplca.train import InnerAttack
from warplca.train.perturb import cross_entropy_ascent, frozen_statistics


@pytest.mark.parametrize("mode", ["unroll", "implicit"])
def test_attacks_use_the_gradient_mode_of_choice_and_leave_the_layers_own(mode):
    model = create_classifier(
        "resnet10_slim",
        {"name": "lca", "features": 8, "kernel_size": 5, "iterations": 3, "gradient_mode": "detach"},
    )
    seen = []
    encode = model.frontend.encode
    model.frontend.encode = lambda images: (seen.append(model.frontend.gradient_mode), encode(images))[1]
    attack = InnerAttack(threat=ThreatModel("linf", 0.1), steps=2, step_size=0.05, gradient_mode=mode)
    images, labels = torch.rand(2, 3, 16, 16), torch.tensor([1, 2])
    attacked = attack(model.train(), images, cross_entropy_ascent(model, labels))
    assert set(seen) == {mode}
    assert model.frontend.gradient_mode == "detach"
    assert not torch.equal(attacked, images)
    blind = InnerAttack(threat=ThreatModel("linf", 0.1), steps=2, step_size=0.05)
    with pytest.raises(
        InputError, match='gradient_mode is "detach": no attack can see through the front-end'
    ):
        blind(model, images, cross_entropy_ascent(model, labels))


def test_attacks_leave_running_statistics_alone():
    model = create_classifier("resnet10_slim", {"name": "conv", "features": 8}).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attack = InnerAttack(threat=ThreatModel("linf", 0.1), steps=3, step_size=0.05)
    attack(model, torch.rand(4, 3, 16, 16), cross_entropy_ascent(model, torch.arange(4)))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    with frozen_statistics(model):
        assert not model.backbone.bn1.training
        assert model.training


def test_timms_functional_dropout_keeps_still_too():
    model = create_classifier("resnet10_slim", None, backbone_options={"drop_rate": 0.5}).train()
    images = torch.rand(4, 3, 16, 16)
    assert not torch.equal(model(images), model(images))
    with frozen_statistics(model):
        assert torch.equal(model(images), model(images))
    assert all(part.training for part in model.modules())
