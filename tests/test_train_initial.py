"""Fine-tuning starts from the trained weights, at rates by layer and beside a teacher, and resumes bit for bit."""

import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from stripes import config, section, stripes

from warplca.configs import InputError
from warplca.models import build_classifier, create_classifier, save_checkpoint
from warplca.train import Batch, DistillationLoss, Interrupted, train
from warplca.train.distillation import load_teacher
from warplca.train.initial import start_from
from warplca.train.optim import make_optimiser
from warplca.train.sampling import StepOrder
from warplca.train.source import BatchSource

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


def test_each_layer_learns_at_its_share_of_the_next_ones_rate():
    options = {"widths": (8, 12, 16), "depth": 2}
    model = create_classifier("quick_resnet", IMAGES, num_classes=3, backbone_options=options)
    run = config(learning_rate=0.5, bias_rate=4.0, layer_decay=0.5)
    training = run.frontend_training
    rates = {
        parameter: group["lr"]
        for group in make_optimiser(model, run.train, training).param_groups
        for parameter in group["params"]
    }
    depth = {"whitening": 4, "groups.0": 3, "groups.1": 2, "groups.2": 1, "fc": 0}
    for name, parameter in model.backbone.named_parameters():
        layer = next(part for part in depth if name.startswith(part))
        expected = 0.5 * 0.5 ** depth[layer] * (4.0 if parameter.ndim == 1 else 1.0)
        assert rates[parameter] == pytest.approx(expected) or not parameter.requires_grad, name
    for parameter in model.frontend.parameters():
        assert rates[parameter] == pytest.approx(0.5 * training[0].rate)


def test_a_backbone_without_layers_is_refused_rates_by_layer():
    model = create_classifier("resnet10_slim", None, 3)
    model.backbone.group_matcher = lambda coarse=False: {"stem": r"."}
    make_optimiser(model, config().train)
    with pytest.raises(
        InputError, match=r"train.layer_decay is 0.5, and the backbone 'resnet10_slim' does not"
    ):
        make_optimiser(model, config(layer_decay=0.5).train)
    with pytest.raises(InputError, match="layer_decay is 1.5; give a number from 0 to 1"):
        config(layer_decay=1.5)


def test_the_loss_is_hintons_and_nothing_where_the_teacher_agrees():
    """Hinton et al. 2015: soft targets at temperature T, whose gradient is scaled by T squared."""
    teacher, student = trained().eval(), create_classifier("resnet10_slim", None, 10).eval()
    batch = Batch(torch.rand(4, 3, 19, 14), torch.tensor([1, 2, 9, 0]), clean=torch.rand(4, 3, 19, 14))
    loss = DistillationLoss(teacher=teacher, weight=0.3, temperature=3.0)(student, batch)
    logits, answers = student(batch.images).detach(), teacher(batch.clean).detach()
    p, q = (answers / 3).softmax(1), (logits / 3).softmax(1)
    expected = 0.7 * F.cross_entropy(logits, batch.labels) + 0.3 * 9 * (p * (p / q).log()).sum(1).mean()
    assert float(loss.loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    same = DistillationLoss(teacher=teacher, weight=1.0)(teacher, replace(batch, clean=batch.images))
    assert float(same.loss.detach()) == pytest.approx(0.0, abs=1e-6)


def test_the_teacher_sees_images_without_noise_and_mixtures():
    def batches(**recipe):
        run = config("none", loss="distillation", **recipe)
        order = StepOrder(48, 16, 0, process=0, processes=1)
        source = BatchSource(stripes(48), run.train, order, torch.device("cpu"))
        return [share.batch for share in source.shares(0, 3)]

    plain = batches()
    for augment in ({"noise": 0.2, "noise_share": 1.0}, {"policy": "augmix"}, {"policy": "prime"}):
        for one, other in zip(plain, batches(augment=augment), strict=True):
            assert torch.equal(one.images, other.clean)
            assert not torch.equal(other.images, other.clean)


def test_parts_of_a_batch_and_other_front_ends_have_the_same_teacher(tmp_path):
    """Group norm: parts of a batch have no statistics of their own."""
    options = {"norm_layer": "groupnorm1"}
    save_checkpoint(build_classifier(config("none", options=options).model), tmp_path / "start")
    common = {
        "loss": {"name": "distillation", "weight": 0.9},
        "init": str(tmp_path / "start"),
        "epochs": 1,
        "augment": {"noise": 0.1},
    }
    runs = [
        train(
            config("none", options=options, accumulation=parts, **common), stripes(48), tmp_path / str(parts)
        )
        for parts in (1, 3)
    ]
    for one, other in zip(runs[0].parameters(), runs[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_what_cannot_teach_is_refused_in_a_sentence(tmp_path):
    model = create_classifier("resnet10_slim", IMAGES, 10)
    run = config(loss="distillation")
    with pytest.raises(
        InputError, match=r"train.loss is 'distillation', .* train.init names none; add --init"
    ):
        train(run, stripes(48), tmp_path / "run", progress=False)
    save_checkpoint(trained(classes=7), tmp_path / "seven")
    seven = config(loss="distillation", init=str(tmp_path / "seven")).train
    with pytest.raises(
        InputError, match=r"the teacher .*seven knows 7 classes, and the model has num_classes 10"
    ):
        load_teacher(seven, model)
    state = {f"module.{name}": value.contiguous() for name, value in trained().backbone.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    file = config(loss="distillation", init=str(tmp_path / "w.safetensors")).train
    teacher = load_teacher(file, model)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images), trained().eval()(images).detach())
    del state["module.fc.bias"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        InputError, match=r"cannot be the teacher of train.loss, as 'fc.bias' of the backbone"
    ):
        load_teacher(file, model)
    for wrong in ({"weight": 0.0}, {"weight": 1.5}, {"temperature": 0.0}):
        with pytest.raises(InputError, match=f"loss.{next(iter(wrong))} is"):
            config(loss={"name": "distillation", **wrong})
