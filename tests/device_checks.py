"""What must hold on an accelerator, real or pretended; ``test_device.py`` runs these checks in their own process."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pretended_device import NAME, device, watched
from stripes import config, stripes
from torch.export.passes import move_to_device_pass

from warplca.attacks import run_attack
from warplca.cli.main import main
from warplca.configs import AttackSetting, EvaluationPlan, InputError
from warplca.configs.device import choose_device, unwatched
from warplca.data import save_npz
from warplca.eval import Execution, evaluate
from warplca.eval.measure.inference import classify
from warplca.frontend import LCA, WarpLCA
from warplca.models import create_classifier, load_checkpoint, save_checkpoint
from warplca.models.export.program import export_program
from warplca.train import train

HERE = device()
SMALL = {"features": 6, "kernel_size": 5, "stride": 2}
EIGENSOLVES = {"_linalg_eigh", "synchronising"}
"""What a step may wait for: the spectrum of a dictionary that has just changed; CUDA does not name what waited."""

OPTIONS = (
    {"step_size": 0.05},
    {"adaptive_lam": 1.5},
    {"accelerated": True},
    {"output": "reconstruction"},
    {"convolution_dtype": "bfloat16"},
    {"checkpoint_every": 2},
    {"learn_lam": True},
)


def layer(cls: type[LCA], **options) -> LCA:
    torch.manual_seed(0)
    sizes = {"predictor_width": 4, "predictor_depth": 1} if cls is WarpLCA else {}
    return cls(**{**SMALL, "iterations": 3, "lam": 0.2, "threshold": "soft", **sizes, **options})


def gradients(built: LCA, images: torch.Tensor, dtype: torch.dtype | None) -> list[torch.Tensor]:
    """Return the output and the gradients of a weighted sum of it, on the CPU."""
    leaf = images.clone().requires_grad_()
    weights = torch.linspace(-1, 1, 13)
    with torch.autocast(leaf.device.type, dtype=dtype, enabled=dtype is not None):
        encoding = built.encode(leaf)
        output = encoding.output
        repeated = weights.repeat(output.numel() // 13 + 1)[: output.numel()].to(output)
        loss = (output.flatten() * repeated).sum()
        loss = loss + sum(built.auxiliary_losses(encoding).values())
        if loss.requires_grad:  # LCA in the mode "detach" hands none to anything
            loss.backward()  # in here too, as attacks do
    found = [output, leaf.grad, *(p.grad for p in built.parameters() if p.grad is not None)]
    return [value.detach().cpu().double() for value in found if value is not None]


def cases(cls: type[LCA]):
    """Every mode with every threshold, and under autocast; every option, and under autocast."""
    for mode in ("unroll", "implicit", "detach"):
        for threshold in ("hard", "smooth", "soft-signed") if cls is WarpLCA else ("soft",):
            yield {"gradient_mode": mode, "threshold": threshold}, None
        yield {"gradient_mode": mode}, torch.float16 if cls is WarpLCA else torch.bfloat16
    for options in OPTIONS:
        if cls is WarpLCA and "accelerated" in options:
            continue  # it takes the steps' place: as in LCA
        yield options, torch.bfloat16 if cls is WarpLCA else None


@pytest.mark.parametrize("cls", [LCA, WarpLCA])
def test_layers_compute_on_the_device_what_they_compute_on_the_cpu(cls):
    """In training, forward and backward; low precision, and implicit gradients of "smooth", bear no comparison."""
    images = torch.rand(1, 3, 9, 12)
    for options, dtype in cases(cls):
        with watched() as watch:
            found = gradients(layer(cls, **options).to(HERE).train(), images.to(HERE), dtype)
        assert not watch.low, (options, dtype)
        assert all(bool(torch.isfinite(value).all()) for value in found), (options, dtype)
        rough = "convolution_dtype" in options or options == {
            "gradient_mode": "implicit",
            "threshold": "smooth",
        }
        if dtype is None and not rough and HERE.type == NAME:
            expected = gradients(layer(cls, **options).train(), images, dtype)
            for one, other in zip(expected, found, strict=True):
                assert torch.allclose(one, other, atol=1e-3 if "implicit" in options.values() else 1e-5), (
                    options
                )


def test_float64_agrees_with_the_cpu():
    images = torch.rand(1, 3, 9, 12, dtype=torch.float64)
    for cls, threshold in itertools.product((LCA, WarpLCA), ("hard", "smooth")):
        pair = [
            gradients(layer(cls, threshold=threshold).double().to(where).train(), images.to(where), None)
            for where in ("cpu", HERE)
        ]
        for one, other in zip(*pair, strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def test_the_spectrum_is_computed_in_full_precision_under_autocast():
    plain, cast = layer(WarpLCA).to(HERE).train(), layer(WarpLCA).to(HERE).train()
    images = torch.rand(1, 3, 11, 14, device=HERE)
    plain.encode(images)
    with torch.autocast(HERE.type, dtype=torch.bfloat16):
        cast.encode(images)
    for name in ("lipschitz", "precondition_matrix", "precondition_lipschitz"):
        one, other = getattr(plain.dictionary, name), getattr(cast.dictionary, name)
        assert torch.equal(one.cpu(), other.cpu()), name


def test_changed_atoms_are_seen_by_the_next_call():
    """Operators of atoms that do not learn are kept on a GPU; none may outlive a change."""
    images = torch.rand(1, 3, 9, 12)
    one, other = layer(WarpLCA).requires_grad_(False).eval(), layer(WarpLCA).requires_grad_(False).eval()
    other.to(HERE)
    for change in range(3):
        for built in (one, other):
            with torch.no_grad():
                built.dictionary.weight[change].mul_(-1.0)  # as an optimiser does
            built.refresh()
            state = {name: value.clone() for name, value in built.state_dict().items()}
            built.load_state_dict(state)
        found = other.encode(images.to(HERE)).code.cpu()
        assert torch.allclose(found, one.encode(images).code, atol=1e-5)
        assert torch.equal(found, other.encode(images.to(HERE)).code.cpu())
    with torch.inference_mode():
        other.encode(images.to(HERE))
    leaf = images.to(HERE).requires_grad_()
    other.encode(leaf).code.sum().backward()
    assert bool(torch.isfinite(leaf.grad).all())


def classifier(frontend: str = "warp-lca"):
    torch.manual_seed(0)
    section = {"name": frontend, **SMALL, "threshold": "soft", "lam": 0.2, "iterations": 2}
    return create_classifier("resnet10_slim", section, num_classes=2).eval()


def test_evaluation_and_attacks_answer_as_on_the_cpu_and_batches_wait_for_nothing():
    plan = EvaluationPlan(
        corruptions=("contrast",), severities=(3,), attacks=(AttackSetting("pgd-10", "linf 8/255"),),
        attack_images=8, batch_size=8,
    )  # fmt: skip
    frames = [
        evaluate(classifier(), stripes(24), plan, execution=Execution(device=where, progress=False))
        for where in ("cpu", HERE)
    ]
    assert frames[0]["accuracy"].tolist() == frames[1]["accuracy"].tolist()
    assert frames[0]["fingerprint"].tolist() == frames[1]["fingerprint"].tolist()
    model = classifier().to(HERE)
    batches = stripes(24).tensors(device=HERE)[0].split(8)
    with watched() as watch, unwatched():
        classify(model, batches, 2)
    assert len(watch.waits) <= 3, watch.waits  # what is read at the end
    with pytest.raises(InputError, match=r"pixels range from .* expected \[0, 1\]"):
        model(255 * batches[0])  # outside of such a block they are looked at
    result = run_attack(model, *stripes(8).tensors(), "fgsm", "linf 8/255")
    assert result.adversarial.device.type == "cpu"


def test_a_trained_model_is_on_the_device_and_is_exported_to_the_cpu(tmp_path):
    model = train(config(epochs=1), stripes(48), tmp_path / "run", device=HERE, progress=False)
    assert next(model.parameters()).device == HERE
    images = stripes(40).tensors()[0]
    export_program(model, tmp_path / "m.pt2", images, sparsity=False)  # checked on the model's own device
    assert {value.device for value in (*model.parameters(), *model.buffers())} == {HERE}
    program = torch.export.load(tmp_path / "m.pt2")
    held = (*program.state_dict.values(), *program.constants.values())
    assert {value.device.type for value in held} == {"cpu"}
    asked = {str(node.kwargs["device"]) for node in program.graph.nodes if "device" in node.kwargs}
    assert asked <= {"cpu"}
    (batch,) = program.range_constraints.values()
    assert batch.upper > 2**31  # some kernels of CUDA take 65,535 images at most
    if HERE.type == "cuda":  # torch.export knows no pretended device
        there = move_to_device_pass(program, str(HERE)).module()
        assert torch.allclose(there(images.to(HERE)), model(images.to(HERE)), atol=1e-3)
    save_checkpoint(model, tmp_path / "c", class_names=("a", "b"), image_size=(16, 16))
    with torch.no_grad():
        expected = load_checkpoint(tmp_path / "c")(images[:4])
        assert torch.allclose(model(images[:4].to(HERE)).cpu(), expected, atol=1e-4)


def test_the_command_line_computes_on_the_device(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_npz(Path("d.npz"), stripes(160), stripes(24, seed=1))
    small = ["model.num_classes=2", "train.epochs=1", "train.batch_size=16", "train.validation_images=16"]
    here = ["--device", HERE.type]
    with watched() as watch:
        assert main(["train", "--config", "conv", "--data", "d.npz", "--out", "run", *here, *small]) == 0
    assert watch.launched or HERE.type == "cuda"
    with watched() as watch:
        assert (
            main(["evaluate", "--checkpoint", "run/checkpoint", "--data", "d.npz", "--plan", "clean", *here])
            == 0
        )
    assert watch.launched or HERE.type == "cuda"
    assert f"computed on: {HERE}" in capsys.readouterr().out
    plan = [f"plan.{name}" for name in ("dictionary_steps=2", "predictor_steps=2", "unrolled_steps=1")]
    plan += ["plan.target_images=16", "plan.search_images=0", "plan.batch_size=8", "plan.solve_cycles=3"]
    layer = [f"frontend.{name}" for name in ("features=6", "kernel_size=5", "iterations=2", "weights=null")]
    with watched() as watch:
        assert main(["prime", "--data", "d.npz", "--out", "primed", *here, *plan, *layer]) == 0
    assert watch.launched or HERE.type == "cuda"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save("p.png")
    with watched() as watch:
        assert main(["denoise", "p.png", "--out", "clean", "--iterations", "4", *here]) == 0
        assert main(["predict", "p.png", "--checkpoint", "run/checkpoint", *here]) == 0
    assert watch.launched or HERE.type == "cuda"


def test_devices_are_chosen_and_refused(monkeypatch):
    assert choose_device() == choose_device(HERE.type) == choose_device(HERE) == HERE
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(InputError, match=rf"device is 'xpu', and this computer has cpu or {HERE.type}"):
        choose_device("xpu")
    with pytest.raises(InputError, match="device is 'gpu'; give cpu, cuda, cuda:1"):
        choose_device("gpu")
    count = torch.accelerator.device_count()
    with pytest.raises(InputError, match=f"this computer has {count} of them, numbered from 0"):
        choose_device(f"{HERE.type}:{count}")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device().index == 1 % count
    with pytest.raises(InputError, match="2 processes were started together; leave the number out"):
        choose_device(f"{HERE.type}:0")


def test_the_pretended_device_tells_what_it_is_for():
    if HERE.type != NAME:
        return
    here = torch.rand(3, device=HERE)
    with pytest.raises(RuntimeError, match="tensors on two devices"):
        here + torch.rand(3)
    with pytest.raises((TypeError, RuntimeError), match="numpy"):
        here.numpy()
    with watched() as watch:
        (here * 2).sum().item()
        here[here > 0.5]
        torch.rand(3).to(HERE)
        torch.linalg.eigvalsh(torch.eye(2, device=HERE))
    assert Counter(name for name, _ in watch.waits) == {
        "_local_scalar_dense": 1, "index": 1, "copy_": 1, "_linalg_eigh": 1
    }  # fmt: skip
    assert "WARPLCA" not in os.environ
