"""Foreign models and data: wrapped by one call, measured, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from stripes import QUIET, QUIET_SUITE
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from warplca.attacks import Suite, SuiteResult, run_attack, run_suite, suite_attacks
from warplca.configs.errors import InputError
from warplca.data import ImageDataset
from warplca.eval import certify, evaluate
from warplca.eval.results.suites import note_sentences
from warplca.models import as_classifier

SIZE = (3, 16, 18)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 3 * 4, 10)).eval()


def dataset(count: int = 24) -> ImageDataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 16, 18, 3), dtype=np.uint8)
    return ImageDataset("noise", images, np.arange(count) % 10, tuple("abcdefghij"))


def pixels(count: int = 2) -> Tensor:
    return torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(1))


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(model, (pixels(),), dynamic_shapes=({0: torch.export.Dim("n", max=256)},))


def test_a_timm_model_gets_the_pixels_that_its_configuration_names() -> None:
    model = timm.create_model("resnet18", num_classes=10).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))  # pyright: ignore
    with torch.no_grad():
        torch.testing.assert_close(as_classifier(model)(pixels()), model((pixels() - mean) / std))
    wrapped = as_classifier(model)
    assert as_classifier(wrapped) is wrapped
    assert as_classifier(small()).__class__ is nn.Sequential


KINDS = {
    "half": lambda: small().half(),
    "bfloat16": lambda: small().bfloat16(),
    "double": lambda: small().double(),
    "exported program": lambda: exported(small()),
    "exported module": lambda: exported(small()).module(),
}


def attacked(model: nn.Module, count: int = 8) -> SuiteResult:
    images, labels = dataset(count).tensors()
    with torch.no_grad():
        labels = small()(images).argmax(dim=1)
    return run_suite(
        model,
        images,
        labels,
        "linf 2/255",
        Suite(suite_attacks("quick"), probe_images=4),
        session=QUIET_SUITE,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_refused_bare_and_measured_wrapped(kind: str) -> None:
    model = KINDS[kind]()
    with pytest.raises(InputError, match="as_classifier"):
        evaluate(model, dataset(), "clean", execution=QUIET)  # pyright: ignore[reportArgumentType]
    if isinstance(model, nn.Module):
        with pytest.raises(InputError, match="as_classifier"):
            attacked(model)
    wrapped = as_classifier(model)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(pixels()), small()(pixels()), atol=0.02, rtol=0.02)
    assert evaluate(wrapped, dataset(), "clean", execution=QUIET)["status"].tolist() == ["complete"]


WRAPPERS = {
    "data parallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_parallel_and_compiled_modules_are_measured_as_they_are(wrap) -> None:
    frames = [
        evaluate(model, dataset(), "clean", execution=QUIET) for model in (small(), wrap(small()).eval())
    ]
    assert frames[0]["correct"].tolist() == frames[1]["correct"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *WRAPPERS])
def test_a_suite_says_of_every_kind_what_it_says_of_the_plain_network(kind: str) -> None:
    model = as_classifier(KINDS[kind]()) if kind in KINDS else WRAPPERS[kind](small()).eval()
    result, plain = attacked(model), attacked(small())  # pyright: ignore[reportArgumentType]
    assert abs(int(result.success.sum()) - int(plain.success.sum())) <= 1
    assert "attacks ran to their end" not in [check.name for check in result.verdict.checks]


def test_the_range_and_chance_are_remarked_on() -> None:
    torch.manual_seed(2)
    model = timm.create_model("resnet18", num_classes=10).eval()
    bare = evaluate(model, dataset(), "clean", execution=QUIET)
    assert "asks for pixels normalised by mean (0.485, 0.456, 0.406)" in bare["notes"][0]
    assert any("guessing among 10 classes gets" in line for line in note_sentences(bare))
    wrapped = evaluate(as_classifier(model), dataset(), "clean", execution=QUIET)
    assert "normalised by" not in wrapped["notes"][0]


@pytest.mark.parametrize(
    "measure", [lambda data: evaluate(small(), data, "clean"), lambda data: certify(small(), data, 0.1)]
)
def test_loaders_and_tensors_are_refused(measure: Callable[[object], object]) -> None:
    tensors = TensorDataset(pixels(), torch.zeros(2, dtype=torch.int64))
    for data in (tensors, DataLoader(tensors)):
        with pytest.raises(InputError, match=f"dataset is a {type(data).__name__}; expected an ImageDataset"):
            measure(data)
        with pytest.raises(
            InputError, match=f"images are {type(data).__name__}; expected a float32 or float64 tensor"
        ):
            run_attack(small(), data, torch.zeros(2), "fgsm", "linf 1/255")  # pyright: ignore[reportArgumentType]


def test_a_foreign_onnx_file_needs_its_pixels_described(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    batch = ({0: torch.export.Dim("n")},)
    torch.onnx.export(
        small(), (pixels(),), str(path), dynamo=True, dynamic_shapes=batch, external_data=False, verbose=False
    )
    with pytest.raises(InputError, match="does not say how it wants its pixels"):
        as_classifier(path)
    model = as_classifier(path, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    shifted = (pixels() - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / 0.2
    with torch.no_grad():
        torch.testing.assert_close(model(pixels()), small()(shifted), atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="there is no file"):
        as_classifier(tmp_path / "other.onnx")


def test_so_must_a_foreign_archive(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(small(), (pixels(),)), tmp_path / "net.pt2")
    with pytest.raises(InputError, match="does not say how it wants its pixels"):
        as_classifier(tmp_path / "net.pt2", trust=True)
    model = as_classifier(tmp_path / "net.pt2", mean=(0.0,) * 3, std=(1.0,) * 3, trust=True)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels()), small()(pixels()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_classifier(small(), mean=(0.5,)), "expected both or neither"),
        (lambda: as_classifier(3), "was given int"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_is_no_classifier_is_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
