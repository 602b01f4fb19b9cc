"""Exported files agree with PyTorch, and one that does not is not written."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from stripes import section
from torch import nn

from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.frontend import THRESHOLDS
from warplca.models import create_classifier, export_compiled, export_onnx, export_program, export_quantised
from warplca.models.export import checked as export
from warplca.models.export.onnx_file import OPSET, OnnxBackend
from warplca.models.export.program import ProgramBackend


def coded(arm="warp-lca", **settings):
    """The section of a small front-end with a hard threshold."""
    if arm in ("lca", "warp-lca"):
        settings = {"iterations": 3, "lam": 0.1, "threshold": "hard", **settings}
    return section(arm, **settings)


def small(arm="warp-lca", **settings):
    torch.manual_seed(0)
    return described(create_classifier("resnet10_slim", coded(arm, **settings)))


def described(model):
    model.about = {"class_names": list("abcdefghij"), "evidence": {"verdict": "trusted"}}
    return model.eval()


def primed(model):
    """Give a WARP-LCA the steps of primed ones: long, guarded, preconditioned."""
    steps = model.frontend.steps
    steps.reach, steps.preconditioned, steps.annealing = 16.0, True, 1.4
    steps.fill(0, 12.0, 0.4)
    return model


def equalised():
    """A WARP-LCA whose reconstruction is equalised."""
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", [coded(output="reconstruction"), "equaliser"])
    model.train()(load_dataset("cifar10-subset", "train").tensors(range(50))[0])
    return described(model)


def answers(model, images):
    """Logits, and the share of active units of each image's code."""
    logits, encoding = model.inspect(images)
    return logits, encoding.figures()["active_fraction"]


@pytest.fixture(scope="module")
def images():
    return load_dataset("cifar10-subset", "test").tensors(range(60))[0]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(lambda model: model, id="classical", marks=pytest.mark.slow),
        pytest.param(primed, id="primed"),
        pytest.param(lambda model: equalised(), id="equalised", marks=pytest.mark.slow),
    ],
)
def test_onnx_agrees_at_any_batch_and_says_what_it_is(tmp_path, images, steps):
    import onnxruntime

    model = steps(small(threshold="hard"))
    check = export_onnx(model, tmp_path / "m.onnx", images)
    assert check.within_tolerance >= 0.99
    assert check.same_prediction == 1.0
    assert check.flips == check.outliers
    assert check.size == (tmp_path / "m.onnx").stat().st_size
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for batch in (images[:1], images[:7]):
        logits, active = session.run(["logits", "active_fraction"], {"images": batch.numpy()})
        expected = answers(model, batch)
        np.testing.assert_allclose(np.asarray(logits), expected[0].detach().numpy(), atol=1e-4)
        np.testing.assert_allclose(np.asarray(active), expected[1].detach().numpy(), atol=1e-3)
    program = onnx.load(str(tmp_path / "m.onnx"))
    assert {entry.domain: entry.version for entry in program.opset_import}[""] == OPSET
    description = json.loads({entry.key: entry.value for entry in program.metadata_props}["warplca"])
    assert description["class_names"] == list("abcdefghij")
    assert description["evidence"] == {"verdict": "trusted"}
    assert description["input_size"] == [3, 32, 32]


def test_the_onnx_graph_itself_is_exact_in_float64(tmp_path, images):
    """onnxruntime has no float64 convolution; ONNX's own reference implementation has."""
    model = primed(small(threshold="hard", features=4, iterations=2)).double()
    x = images[:2, :, :16, :16].double()
    OnnxBackend().write(export.Deployed(model), x, tmp_path / "m.onnx", {})
    logits, active = ReferenceEvaluator(str(tmp_path / "m.onnx")).run(None, {"images": x.numpy()})
    expected = answers(model, x)
    np.testing.assert_allclose(logits, expected[0].detach().numpy(), atol=1e-9, rtol=0)
    np.testing.assert_allclose(active, expected[1].detach().numpy(), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "arm",
    [
        "conv",
        *(
            pytest.param(arm, marks=pytest.mark.slow)
            for arm in (None, "lca", "warp-lca", "warp-lca, equalised", "warp-lca, primed")
        ),
    ],
)
def test_a_program_agrees_in_float32_and_in_float64(tmp_path, images, arm):
    arm, _, kind = (arm or "").partition(", ")
    model = small(arm, adaptive_lam=0.5) if arm in ("lca", "warp-lca") else small(arm or None)
    model = primed(model) if kind == "primed" else model
    model = equalised() if kind == "equalised" else model
    check = export_program(model, tmp_path / "m.pt2", images)
    assert check.within_tolerance >= 0.99
    assert check.flips == check.outliers
    assert check.double_difference is not None
    assert check.double_difference <= 1e-9
    outputs = torch.export.load(tmp_path / "m.pt2").module()(images[:5])
    logits = outputs[0] if arm in ("lca", "warp-lca") else outputs
    torch.testing.assert_close(logits, model(images[:5]), atol=1e-4, rtol=0)


def test_a_program_runs_where_warplca_is_not(tmp_path, images):
    model = small()
    ProgramBackend().write(export.Deployed(model, sparsity=False), images, tmp_path / "m.pt2", {})
    np.save(tmp_path / "x.npy", images[:3].numpy())
    program = (
        "import sys, torch, numpy\n"
        "sys.modules['warplca'] = None\n"
        f"x = torch.from_numpy(numpy.load(r'{tmp_path / 'x.npy'}'))\n"
        f"y = torch.export.load(r'{tmp_path / 'm.pt2'}').module()(x)\n"
        f"numpy.save(r'{tmp_path / 'y.npy'}', y.detach().numpy())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd="/")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(images[:3]).detach().numpy(), atol=1e-4)


class Planted:
    """A backend that is PyTorch itself with a planted error."""

    name = "planted"
    double = True

    def __init__(self, change=lambda logits: logits, double_error=0.0):
        self.change, self.double_error = change, double_error

    def write(self, model: nn.Module, images, path, metadata):
        self.model = model
        path.write_bytes(b"x")

    def open(self, path):
        @torch.no_grad()
        def run(images):
            outputs = self.model(images)
            logits = outputs[0] if isinstance(outputs, tuple) else outputs
            if logits.ndim > 2:
                return [logits.numpy()]
            error = self.double_error if logits.dtype == torch.float64 else 0.0
            return [self.change(logits.clone()).numpy() + error]

        return run


def change_one(logits):
    logits[0, int(logits[0].argmin())] -= 0.01
    return logits


def test_the_check_passes_what_is_equal(tmp_path, images):
    check = export.export_checked(Planted(), small(), tmp_path / "f", images)
    assert (check.max_difference, check.within_tolerance, check.same_prediction) == (0.0, 1.0, 1.0)
    assert check.double_difference == 0.0
    assert (tmp_path / "f").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (Planted(lambda logits: logits + 0.01), r"within 0.0001 on 0.0% of 60 images"),
        (Planted(lambda logits: logits.roll(1, dims=1)), r"same prediction on .* \(99.9 % expected\)"),
        (Planted(lambda logits: logits * float("nan")), r"within 0.0001 on 0.0% of 60 images"),
        (Planted(double_error=1e-8), r"in float64 by 1e-08 \(1e-09 expected\)"),
    ],
)
def test_a_file_that_disagrees_is_not_written(tmp_path, images, backend, message):
    with pytest.raises(InputError, match=message) as failure:
        export.export_checked(backend, small(), tmp_path / "f", images)
    assert "nothing was written" in str(failure.value)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_that_is_no_flip_is_refused_even_on_one_image(tmp_path):
    images = load_dataset("cifar10-subset", "test").tensors(range(100))[0]
    with pytest.raises(
        InputError, match="1 of 1 differing images are no threshold flips; nothing was written"
    ):
        export.export_checked(Planted(change_one), small(threshold="hard"), tmp_path / "f", images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [export_onnx, export_program])
def test_a_failed_check_of_a_real_backend_leaves_nothing(tmp_path, images, monkeypatch, write):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="disagrees with PyTorch.*nothing was written"):
        write(small(None), tmp_path / "m", images[:10])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_errors_the_size_of_rounding_end_in_flips_alone():
    """The shipped front-end, hard threshold, pixels off by 1e-6: wherever the final codes differ, a flip is shown."""
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", {"name": "warp-lca", "weights": "cifar10-64x9s2"}).eval()
    images = load_dataset("cifar10-subset", "test").tensors(range(40))[0].double()
    model.double()
    trace = export.ThresholdTrace(model.frontend)
    with torch.no_grad():
        other = images + 1e-6 * torch.randn_like(images)
        one, two = trace(images).numpy(), trace(other).numpy()
        changed = ((model.frontend(images) != 0) != (model.frontend(other) != 0)).flatten(1).any(1).numpy()
    assert changed.any()
    assert export.are_flips(one, two)[changed].all()
    assert model.frontend.threshold == THRESHOLDS["hard"]  # the trace leaves the layer as it was


def test_only_what_begins_at_the_threshold_is_a_flip():
    margins = np.random.default_rng(0).normal(size=(1, 4, 3, 5, 5))
    margins = np.sign(margins) * (np.abs(margins) + 0.1)
    flipped = margins.copy()
    margins[0, 1, 0, 0, 0], flipped[0, 1, 0, 0, 0] = 1e-6, -1e-6
    flipped[0, 2:] += 0.5  # what a flip does later does not matter
    assert export.are_flips(margins, flipped).tolist() == [True]
    assert export.are_flips(margins, margins).tolist() == [False]
    earlier = flipped.copy()
    earlier[0, 0, 1] += 0.01  # states differed before
    assert export.are_flips(margins, earlier).tolist() == [False]
    far = margins.copy()
    far[0, 1, 2, 2, 2] *= -1.0  # a unit far from the threshold
    assert export.are_flips(margins, far).tolist() == [False]


def test_missing_tools_are_named(tmp_path, images, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(InputError, match=r"found no C\+\+ compiler; install g\+\+ or clang"):
        export_compiled(small(None), tmp_path / "m.pt2", images)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs the package onnxscript; .*warplca\[export\]"):
        export_onnx(small(None), tmp_path / "m.onnx", images)


@pytest.mark.slow
def test_compiled_code_agrees(tmp_path, images):
    check = export_compiled(small(threshold="hard"), tmp_path / "m.pt2", images)
    assert check.within_tolerance >= 0.99
    assert check.flips == check.outliers
    assert check.double_difference is not None
    assert check.double_difference <= 1e-9


@pytest.mark.slow
def test_int8_is_smaller_and_written_only_if_accuracy_holds(tmp_path, monkeypatch):
    model = small()
    images, _ = load_dataset("cifar10-subset", "test").tensors(range(200))
    with torch.no_grad():
        labels = model(images).argmax(1)  # a model that is always right
    check = export_quantised(model, tmp_path / "8.onnx", images, labels, images[:50])
    export_onnx(model, tmp_path / "32.onnx", images)
    assert check.float_accuracy == 1.0
    assert check.accuracy == check.same_prediction >= 0.98
    assert check.size < 0.6 * (tmp_path / "32.onnx").stat().st_size
    labels[100:] = 11  # now PyTorch is right on 100 images
    with torch.no_grad():
        agreed = (model(images).argmax(1) == labels).float().mean()
    assert agreed == 0.5
    monkeypatch.setattr(sys.modules["warplca.models.export.onnx_file"], "MOST_LOST", -0.6)
    with pytest.raises(InputError, match="int8 lowers accuracy from 50.0% .* nothing was written"):
        export_quantised(model, tmp_path / "no.onnx", images, labels, images[:50])
    assert not (tmp_path / "no.onnx").exists()
