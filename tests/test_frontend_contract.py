"""The contract of front-ends: the registry, settings, chains, and a front-end of a user's own."""

import json
import subprocess
import sys

import pytest
import torch
from frontends import EXAMPLE, SECTIONS
from stripes import QUIET, stripes

from warplca.attacks import run_attack
from warplca.attacks.adaptive.modules import suspicious_modules
from warplca.configs import InputError, RunConfig, from_dict
from warplca.configs.extensions import import_file
from warplca.configs.load import to_plain
from warplca.data import load_dataset, save_npz
from warplca.eval import evaluate
from warplca.eval.measure.inference import module_fingerprint
from warplca.frontend import (
    LCA,
    Chain,
    Encoding,
    Equaliser,
    WarpLCA,
    WarpLCASettings,
    build_frontend,
)
from warplca.models import (
    create_classifier,
    export_program,
    load_checkpoint,
    open_predictor,
)
from warplca.train import train

IMAGES = torch.rand(3, 3, 19, 14, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", autouse=True)
def gabor():
    import_file(EXAMPLE)


@pytest.fixture(params=SECTIONS, ids=str)
def section(request):
    return SECTIONS[request.param]


def test_every_front_end_keeps_the_contract(section):
    frontend = build_frontend(section).eval()
    encoding = frontend.encode(IMAGES)
    assert torch.equal(frontend(IMAGES), encoding.output)
    stride = frontend.stride
    assert encoding.output.shape == (3, frontend.out_channels, -(-19 // stride), -(-14 // stride))
    assert frontend.hands_on == "features" or stride == 1
    assert tuple(encoding.figures()) == frontend.figure_names
    assert all(values.shape == (3,) for values in encoding.figures().values())
    assert all(picture.ndim in (3, 4) and len(picture) == 3 for picture in encoding.pictures().values())
    names = {name for name, _ in frontend.named_parameters()}
    assert frontend.no_weight_decay() <= names
    frontend.train().refresh()
    assert torch.isfinite(frontend(IMAGES)).all()


def test_settings_rebuild_the_front_end_through_plain_values(section):
    torch.manual_seed(0)
    frontend = build_frontend(section).eval()
    plain = json.loads(json.dumps(to_plain(frontend.sections)))
    again = build_frontend(plain).eval()
    again.load_state_dict(frontend.state_dict())
    assert again.sections == frontend.sections
    assert torch.equal(again(IMAGES), frontend(IMAGES))


def test_every_front_end_trains_saves_loads_and_is_distinguished(section, tmp_path):
    values = {
        "model": {"backbone": "resnet10_slim", "frontend": section, "num_classes": 2},
        "train": {"epochs": 1, "batch_size": 16, "validation_images": 0},
    }
    config = from_dict(RunConfig, values, where="test")
    model = train(config, stripes(), tmp_path / "run", progress=False)
    loaded = load_checkpoint(tmp_path / "run" / "checkpoint")
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(loaded(images), model(images))
    assert loaded.config == model.config
    assert module_fingerprint(loaded) == module_fingerprint(model)
    logits, encoding = model.inspect(images)
    assert torch.equal(logits, model(images))
    assert isinstance(encoding, Encoding)


def test_a_front_end_of_ones_own_is_trained_attacked_measured_and_exported(tmp_path):
    few = [load_dataset("cifar10-subset", split).subset(range(128)) for split in ("train", "test")]
    save_npz(tmp_path / "few.npz", *few)
    command = [
        sys.executable,
        "-m",
        "warplca.cli.main",
        "train",
        "--import",
        str(EXAMPLE),
        "--config",
        "none",
    ]
    command += [
        "--out",
        str(tmp_path / "run"),
        f"data={tmp_path / 'few.npz'}",
        "train.validation_images=0",
        "model.frontend=gabor",
        "train.epochs=1",
        "train.frontend.rate=2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = load_checkpoint(tmp_path / "run" / "checkpoint")
    images = torch.rand(6, 3, 32, 32)
    predictor = open_predictor(tmp_path / "run" / "checkpoint")
    assert predictor.answer(images)[1] == {}
    labels = model(images).argmax(1)
    assert run_attack(model, images, labels, "pgd-10", "linf 32/255").robust_accuracy < 1.0
    with pytest.raises(InputError, match="holds no iterative layer"):
        run_attack(model, images, labels, "bpda-smooth", "linf 32/255")
    check = export_program(model, tmp_path / "m.pt2", images)
    assert check.same_prediction == 1.0
    frame = evaluate(
        model, load_dataset("cifar10-subset", "test").subset(range(20)), "clean", execution=QUIET
    )
    assert list(frame["condition"]) == ["clean"]
    # Elsewhere the name is missing, and that is what the sentence says.
    command[3:] = ["evaluate", "--checkpoint", str(tmp_path / "run" / "checkpoint")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown front-end 'gabor'" in done.stderr
    assert "--import FILE.py" in done.stderr


def test_hooks_on_a_layer_fire_when_the_classifier_is_called():
    """Adaptive attacks watch and replace what layers output."""
    seen = []
    for frontend in ("lca", "chain"):
        model = create_classifier("resnet10_slim", SECTIONS[frontend]).eval()
        layer = next(part for part in model.modules() if hasattr(part, "gradient_mode"))
        handle = layer.register_forward_hook(lambda *args: seen.append(args[0]))
        model(torch.rand(1, 3, 16, 16))
        handle.remove()
    assert len(seen) == 2


def test_no_front_end_is_no_suspect_and_a_quantiser_is_one():
    """Attacks that look through home-made modules have nothing to look through where images pass as they are."""

    class Quantiser(torch.nn.Module):
        def forward(self, images):
            return images + ((images * 255).round() / 255 - images).detach()

    image = (torch.rand(1, 3, 16, 16) * 255).round() / 255  # on the grid, where a quantiser changes nothing
    model = create_classifier("resnet10_slim").eval()
    assert model.frontend not in suspicious_modules(model, image)
    assert len(suspicious_modules(torch.nn.Sequential(Quantiser(), torch.nn.Flatten()), image)) == 1


def test_a_chain_is_its_stages_one_after_the_other():
    torch.manual_seed(0)
    first, second = build_frontend(SECTIONS["reconstruction"]), Equaliser()
    second.usual.fill_(0.2)
    chain = Chain([first, second]).eval()
    assert torch.equal(chain(IMAGES), second(first(IMAGES)))
    names = [name for stage in chain.encode(IMAGES).stages for name in stage.pictures()]
    assert list(chain.encode(IMAGES).pictures()) == names == ["reconstruction", "activity", "restored"]
    assert build_frontend([first]) is not None
    assert [type(part) for part in build_frontend([chain, second])] == [LCA, Equaliser, Equaliser]


def test_chained_figures_of_one_name_are_numbered():
    chain = build_frontend([SECTIONS["reconstruction"], SECTIONS["lca"]])
    assert chain.figure_names == ("active_fraction", "active_fraction 2")
    assert tuple(chain.encode(IMAGES).figures()) == chain.figure_names
    margins = chain.margins(IMAGES)
    assert margins is not None
    assert margins.shape[:2] == (3, 6)  # two stages of two cycles and the final code


def test_attributes_of_a_layer_are_its_settings():
    layer = WarpLCA(lam=0.1, iterations=5, features=4, kernel_size=3)
    assert layer.settings == WarpLCASettings(
        lam=0.1, iterations=5, features=4, kernel_size=3, predictor_width=64, predictor_depth=3
    )
    layer.iterations, layer.lam, layer.threshold = 7, 0.2, "soft"
    assert (layer.settings.iterations, layer.settings.lam, layer.settings.threshold) == (7, 0.2, "soft")
    with pytest.raises(InputError, match="momentum is 1.5"):
        layer.momentum = 1.5
    assert layer.settings.momentum == 0.9
    options = {"accelerated": True, "convolution_dtype": torch.bfloat16, "checkpoint_every": 2}
    layer = WarpLCA(features=4, kernel_size=3, **options)
    assert layer.settings.convolution_dtype == "bfloat16"
    assert layer.steps is None  # the accelerated schedule stands in for learned steps
    assert torch.isfinite(layer(IMAGES)).all()
    assert WarpLCA(layer.settings).settings == layer.settings


def test_the_fingerprint_is_of_settings_and_weights_and_not_of_names():
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", SECTIONS["lca"])
    before = module_fingerprint(model)
    model.frontend.add_module("renamed", model.frontend._modules.pop("dictionary"))
    assert module_fingerprint(model) == before
    model.frontend.add_module("dictionary", model.frontend._modules.pop("renamed"))
    model.frontend.iterations = 3
    assert module_fingerprint(model) != before
    model.frontend.iterations = 2
    assert module_fingerprint(model) == before
    with torch.no_grad():
        next(model.backbone.parameters()).mul_(1.001)
    assert module_fingerprint(model) != before


def test_settings_that_came_later_do_not_change_the_fingerprint(monkeypatch):
    """Settings at their defaults are no part of it."""
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", SECTIONS["conv"])
    assert model.identity() == {"frontend": {"name": "conv", "features": 8, "kernel_size": 5}}
