"""The contract of front-ends: the registry, settings, chains, and a front-end of a user's own."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stripes import stripes

from warplca.attacks import run_attack
from warplca.attacks.adaptive.modules import suspicious_modules
from warplca.configs import InputError, RunConfig, from_dict
from warplca.configs.extensions import FRONTENDS, import_file
from warplca.configs.load import to_plain
from warplca.data import load_dataset
from warplca.eval import evaluate
from warplca.eval.measure.inference import module_fingerprint
from warplca.frontend import (
    LCA,
    Chain,
    Encoding,
    Equaliser,
    Frontend,
    WarpLCA,
    WarpLCASettings,
    build_frontend,
    register_frontend,
)
from warplca.models import (
    create_classifier,
    export_program,
    load_checkpoint,
    open_predictor,
    save_checkpoint,
)
from warplca.train import train
from warplca.train.losses import Batch, StandardLoss

EXAMPLE = Path(__file__).parents[1] / "examples" / "gabor_frontend.py"
SMALL = {"features": 8, "kernel_size": 5}
SECTIONS = {
    "none": "none",
    "conv": {"name": "conv", **SMALL},
    "lca": {"name": "lca", **SMALL, "iterations": 2, "threshold": "soft"},
    "warp-lca": {"name": "warp-lca", **SMALL, "iterations": 2, "predictor_width": 4, "predictor_depth": 1},
    "reconstruction": {
        "name": "lca",
        **SMALL,
        "iterations": 2,
        "output": "reconstruction",
        "threshold": "soft",
    },
    "equaliser": {"name": "equaliser", "strength": 0.5},
    "gabor": {"name": "gabor", **SMALL},
    "chain": [
        {"name": "lca", **SMALL, "iterations": 2, "output": "reconstruction", "threshold": "soft"},
        {"name": "equaliser"},
        {"name": "conv", **SMALL},
    ],
}
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


def test_every_front_end_trains_saves_loads_and_is_told_apart(section, tmp_path):
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
        "model.frontend=gabor",
        "train.epochs=1",
        "train.frontend.rate=2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = load_checkpoint(tmp_path / "run" / "checkpoint")
    images = torch.rand(6, 3, 32, 32)
    predictor = open_predictor(tmp_path / "run" / "checkpoint")
    assert predictor.answer(images)[1] is None
    labels = model(images).argmax(1)
    assert run_attack(model, images, labels, "pgd-10", "linf 32/255").robust_accuracy < 1.0
    with pytest.raises(InputError, match="holds no iterative layer"):
        run_attack(model, images, labels, "bpda-smooth", "linf 32/255")
    check = export_program(model, tmp_path / "m.pt2", images)
    assert check.same_prediction == 1.0
    frame = evaluate(model, load_dataset("cifar10-subset", "test").subset(range(20)), "clean", progress=False)
    assert list(frame["condition"]) == ["clean"]
    # Elsewhere the name is missing, and that is what the sentence says.
    command[3:] = ["evaluate", "--checkpoint", str(tmp_path / "run" / "checkpoint")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown front-end 'gabor'" in done.stderr
    assert "--import FILE.py" in done.stderr


def test_hooks_on_a_layer_fire_when_the_classifier_is_called():
    """Adaptive attacks watch and replace what layers hand on."""
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
    assert list(chain.encode(IMAGES).pictures()) == names == ["reconstruction", "activity", "equalised"]
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


@dataclasses.dataclass(frozen=True)
class StrengthSettings:
    """Settings of front-ends that tests register."""

    strength: float = 1.0


class Passing(Frontend):
    """Hands images on as they are."""

    Settings = StrengthSettings

    def encode(self, images):
        return Encoding(self.settings.strength * images)


def test_classes_that_break_the_contract_are_refused_before_anything_is_trained():
    named = dataclasses.make_dataclass("Named", [("name", str, "x")], frozen=True)
    for members, message in (
        ({"Settings": WarpLCASettings}, "has the Settings of 'warp-lca'; derive a dataclass of its own"),
        ({"Settings": dict}, "its Settings be a frozen dataclass"),
        ({"Settings": named}, "a setting cannot be called 'name'"),
        ({"Training": StrengthSettings}, "StrengthSettings must derive from FrontendTraining or NoTraining"),
    ):
        with pytest.raises(InputError, match=message):
            register_frontend("broken")(type("Broken", (Passing,), members))
    assert "broken" not in FRONTENDS.items()
    with pytest.raises(InputError, match="Passing is not registered; write @register_frontend"):
        create_classifier("resnet10_slim", [Passing()])
    assert type(build_frontend(SECTIONS["conv"])) is FRONTENDS.get("conv")


def test_one_name_is_one_class_and_a_file_is_imported_once(tmp_path):
    with pytest.raises(
        InputError, match=r"there is a front-end 'conv' already, .*ConvFrontend; choose another name"
    ):

        @register_frontend("conv")
        class Mine(Passing):
            Settings = StrengthSettings

    import_file(EXAMPLE)
    assert FRONTENDS.get("gabor").__name__ == "Gabor"
    with pytest.raises(InputError, match="there is no such file"):
        import_file(tmp_path / "missing.py")
    (tmp_path / "broken_frontend.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match="broken_frontend.py: ZeroDivisionError: division by zero"):
        import_file(tmp_path / "broken_frontend.py")


@pytest.mark.parametrize(("name", "value"), [("iterations", 1), ("iterations", 3), ("adaptive_lam", 0.5)])
def test_settings_of_warp_lca_changed_after_building_come_back_from_a_checkpoint(tmp_path, name, value):
    model = create_classifier("resnet10_slim", SECTIONS["warp-lca"]).eval()
    setattr(model.frontend, name, value)
    save_checkpoint(model, tmp_path / "c")
    images = torch.rand(2, 3, 16, 16)
    again = load_checkpoint(tmp_path / "c")
    assert getattr(again.frontend, name) == value
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(("name", "value"), [("step_size", 0.01), ("accelerated", True), ("momentum", 0.1)])
def test_what_construction_decides_is_refused_later(name, value):
    layer = build_frontend(SECTIONS["warp-lca"])
    with pytest.raises(
        InputError, match="step_size, accelerated and momentum of WarpLCA decide at construction"
    ):
        setattr(layer, name, value)
    assert getattr(layer, name) != value


def test_a_primed_layer_has_the_momentum_it_was_primed_with():
    with pytest.raises(InputError, match="has momentum 0.9, this layer has 0.1"):
        WarpLCA.from_pretrained("cifar10-64x9s2", momentum=0.1)


def test_what_an_author_holds_fixed_stays_fixed():
    layer = build_frontend(SECTIONS["conv"])
    fixed = next(layer.parameters()).requires_grad_(False)
    training = FRONTENDS.get("conv").Training(frozen_epochs=1)
    for epoch, learns in ((0.0, False), (1.0, True)):
        layer.at(epoch, 2, training)
        assert not fixed.requires_grad
        assert all(weight.requires_grad == learns for weight in layer.parameters() if weight is not fixed)


def test_a_loss_without_a_weight_is_refused_and_one_with_a_weight_counts():
    class Frugal(FRONTENDS.get("gabor")):
        def auxiliary_losses(self, encoding):
            return {"size": encoding.output.mean()}

    model = create_classifier("resnet10_slim", SECTIONS["gabor"])
    model.frontend.__class__ = Frugal
    batch = Batch(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="gives the loss 'size' and no weight for it"):
        StandardLoss(auxiliary={})(model, batch)
    size = model.inspect(batch.images).encoding.output.mean()
    losses = [StandardLoss(auxiliary={"size": weight})(model, batch).loss for weight in (0.0, 2.0)]
    assert torch.allclose(losses[1] - losses[0], 2 * size, atol=1e-5)


def test_a_chain_of_one_is_that_one(tmp_path):
    model = create_classifier("resnet10_slim", Chain([build_frontend(SECTIONS["conv"])])).eval()
    save_checkpoint(model, tmp_path / "c")
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_checkpoint(tmp_path / "c")(images), model(images))


def test_checkpoints_keep_what_was_set_on_a_built_front_end(tmp_path):
    model = create_classifier("resnet10_slim", SECTIONS["lca"]).eval()
    model.frontend.lam = 0.25
    save_checkpoint(model, tmp_path / "c")
    assert load_checkpoint(tmp_path / "c").frontend.lam == 0.25
    assert dataclasses.asdict(load_checkpoint(tmp_path / "c").config) == dataclasses.asdict(model.config)
