"""Fine-tuning starts from the trained weights, says what it could not take, and resumes bit for bit."""

import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from stripes import config, section, stripes

from warplca.configs import InputError
from warplca.models import build_classifier, create_classifier, save_checkpoint
from warplca.train import Interrupted, train
from warplca.train.initial import start_from

IMAGES = section("warp-lca", output="reconstruction")


def trained(frontend=None, classes=10):
    torch.manual_seed(1)
    return create_classifier("resnet10_slim", frontend, classes)


def test_a_checkpoint_gives_its_backbone_to_any_front_end_of_images(tmp_path, caplog):
    model = trained()
    save_checkpoint(model, tmp_path / "bare")
    torch.manual_seed(2)
    tuned = create_classifier("resnet10_slim", IMAGES, 10)
    with caplog.at_level(logging.WARNING):
        start_from(tuned, str(tmp_path / "bare"))
    assert not caplog.records
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            tuned.backbone.state_dict().values(), model.backbone.state_dict().values(), strict=True
        )
    )


def test_a_strangers_file_is_taken_whatever_wrapped_it_and_other_shapes_are_named(tmp_path, caplog):
    state = {
        f"module.model.{name}": value.contiguous()
        for name, value in trained(classes=7).backbone.state_dict().items()
    }
    save_file(state, tmp_path / "w.safetensors")
    model = create_classifier("resnet10_slim", None, 10)
    head = model.backbone.fc.weight.clone()
    with caplog.at_level(logging.WARNING):
        first = start_from(model, str(tmp_path / "w.safetensors"))
    assert "fc.weight, fc.bias start at random" in caplog.text
    assert torch.equal(model.backbone.fc.weight, head)
    assert torch.equal(model.backbone.conv1.weight, state["module.model.conv1.weight"])
    assert first == start_from(
        create_classifier("resnet10_slim", IMAGES, 10), str(tmp_path / "w.safetensors")
    )


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "other.safetensors")
    model = create_classifier("resnet10_slim", None, 10)
    with pytest.raises(
        InputError, match=r"fit 0% of the backbone 'resnet10_slim'; 'conv1.weight' is the first"
    ):
        start_from(model, str(tmp_path / "other.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"bad.safetensors cannot be read as safetensors"):
        start_from(model, str(tmp_path / "bad.safetensors"))


def test_a_run_begins_there_and_continues_bit_for_bit(tmp_path):
    bare, folder = config("none").model, tmp_path / "bare"
    torch.manual_seed(1)
    start = build_classifier(replace(bare, num_classes=2))
    save_checkpoint(start, folder)
    run = config("warp-lca", epochs=2, batch_size=32, init=str(folder), learning_rate=1e-9)
    whole = train(run, stripes(80), tmp_path / "whole", progress=False)
    for name, value in start.backbone.named_parameters():
        if name != "conv1.0.weight" and value.shape == whole.backbone.get_parameter(name).shape:
            torch.testing.assert_close(whole.backbone.get_parameter(name), value, atol=1e-5, rtol=0)
    with pytest.raises(Interrupted):
        train(run, stripes(80), tmp_path / "parts", progress=False, stop_after=3)
    parts = train(run, stripes(80), tmp_path / "parts", progress=False)
    pairs = zip(whole.state_dict().values(), parts.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with torch.no_grad():
        start.backbone.fc.bias.add_(1.0)
    save_checkpoint(start, folder)
    with pytest.raises(InputError, match=r"another run|other"):
        train(run, stripes(80), tmp_path / "parts", progress=False)
