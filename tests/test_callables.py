"""Any callable, of any type: measured, or refused in one sentence that says what came and what is expected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from stripes import QUIET
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from warplca.configs import InputError
from warplca.data import ImageDataset
from warplca.eval import evaluate
from warplca.models import create_classifier, load_checkpoint, save_checkpoint

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)
DATA = ImageDataset("six", PIXELS, np.arange(6) % 3, ("a", "b", "c"))

SECTION = {"name": "conv", "features": 4, "kernel_size": 5}


class Linear(nn.Module):
    """Logits from mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean(dim=(2, 3)))


class Called:
    """No module, and no function."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, images: Tensor) -> Tensor:
        return self.model(images)


def scripted(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, torch.rand(2, 3, 12, 10))


WRAPPERS: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
    "module": lambda model: model,
    "sequential": nn.Sequential,
    "data parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "traced": scripted,
    "method": lambda model: model.forward,
    "function": lambda model: lambda images: model(images),
    "partial": lambda model: partial(model.forward),
    "object": Called,
    "inference": lambda model: torch.inference_mode()(model.forward),
    "channels last": lambda model: model.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "compiled": lambda model: torch.compile(model, backend="eager"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_gives_the_same_answers(wrapper: str) -> None:
    torch.manual_seed(0)
    model = Linear().eval()
    plain = evaluate(model, DATA, "clean", name="m", execution=QUIET)
    wrapped = evaluate(WRAPPERS[wrapper](model), DATA, "clean", name="m", execution=QUIET)  # type: ignore[arg-type]
    columns = ["correct", "mean_confidence"]
    assert wrapped[columns].to_numpy() == pytest.approx(plain[columns].to_numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_type_are_distinguished_from_ours(dtype: torch.dtype) -> None:
    with pytest.raises(
        InputError, match=r"the model raised RuntimeError .*\(6, 3, 12, 10\) of torch\.float32"
    ):
        evaluate(Linear().to(dtype), DATA, "clean", execution=QUIET)
    model = Linear().to(dtype)
    converted = evaluate(lambda images: model(images.to(dtype)), DATA, "clean", name="m", execution=QUIET)
    assert converted["images"].tolist() == [6]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda logits: {"logits": logits}, "returned dict"),
        (lambda logits: (logits,), "returned tuple"),
        (lambda logits: SimpleNamespace(logits=logits), "returned SimpleNamespace"),
        (lambda logits: logits.numpy(), "returned ndarray"),
        (lambda logits: logits.argmax(1), r"returned \(6,\)"),
        (lambda logits: logits[:, :2], r"returned \(6, 2\)"),
        (lambda logits: logits[:1], r"returned \(1, 3\)"),
        (lambda logits: logits * torch.nan, "NaN or infinite"),
        (lambda logits: 1 / 0, "raised ZeroDivisionError"),
        (lambda logits: logits.nothing, "raised AttributeError"),
    ],
)
def test_answers_that_are_no_logits_are_refused(answer: Callable[[Tensor], object], message: str) -> None:
    model = Linear()
    with pytest.raises(InputError, match=message):
        evaluate(lambda images: answer(model(images)), DATA, "clean", name="m", execution=QUIET)  # type: ignore[arg-type,return-value]


def test_classes_in_another_order_are_noticed() -> None:
    model = create_classifier("resnet10_slim", SECTION, 3).eval()
    model.about = {"class_names": ["b", "a", "c"]}
    with pytest.raises(
        InputError, match=r"class 0 is 'b' to the model and 'a' in six: the same classes in another"
    ):
        evaluate(model, DATA, "clean", execution=QUIET)


@pytest.mark.parametrize("wrapper", ["whole", "backbone", "data parallel", "averaged"])
def test_a_wrapped_classifier_is_saved_as_itself(tmp_path, wrapper: str) -> None:
    model = create_classifier("resnet10_slim", SECTION, 3).eval()
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    saved: nn.Module = model
    if wrapper == "whole":
        saved = torch.compile(model, backend="eager")  # type: ignore[assignment]
    elif wrapper == "backbone":
        model.backbone = torch.compile(model.backbone, backend="eager")  # type: ignore[assignment]
    else:
        saved = nn.DataParallel(model) if wrapper == "data parallel" else AveragedModel(model)
    save_checkpoint(saved, tmp_path / "c")
    state = load_checkpoint(tmp_path / "c").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in expected.items())


def test_a_model_of_another_library_is_not_saved(tmp_path) -> None:
    with pytest.raises(InputError, match="of a classifier of warplca's, and this is a ResNet; build one"):
        save_checkpoint(timm.create_model("resnet18"), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_one_channel_takes_greys_and_colours() -> None:
    model = create_classifier("resnet10_slim", SECTION, 3, in_channels=1).eval()
    grey = torch.rand(2, 1, 33, 20)
    with torch.no_grad():
        assert torch.allclose(model(grey), model(grey.expand(-1, 3, -1, -1)), atol=1e-5)
    assert evaluate(model, DATA, "clean", execution=QUIET)["images"].tolist() == [6]
    wrong = {
        r"torch\.int32": grey.int(),
        r"\(1, 33, 20\)": grey[0],
        "2, 2, 33": grey.expand(-1, 2, -1, -1),
        "str": "x",
    }
    for message, images in wrong.items():
        with pytest.raises(InputError, match=f"the images are .*{message}.*expected floating-point pixels"):
            model(images)
