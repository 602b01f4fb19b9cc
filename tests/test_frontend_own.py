"""Front-ends that users register: what is refused, and what training, checkpoints and worker processes do with them."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from frontends import EXAMPLE, SECTIONS
from stripes import stripes

from warplca.configs import InputError, RunConfig, extensions, from_dict, import_file
from warplca.configs.extensions import FRONTENDS, Registry
from warplca.eval.measure.inference import module_fingerprint
from warplca.frontend import (
    Chain,
    Encoding,
    Frontend,
    WarpLCA,
    WarpLCASettings,
    build_frontend,
    register_frontend,
)
from warplca.models import create_classifier, load_checkpoint, save_checkpoint
from warplca.models.predictor import _pair
from warplca.pipeline.arms import _next
from warplca.train import train
from warplca.train.losses import Batch, StandardLoss


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


@dataclasses.dataclass(frozen=True)
class WeightsSettings:
    """Settings with a word that the package uses for its own."""

    weights: str = "uniform"


@pytest.fixture
def plain():
    """A registered front-end whose constructor takes settings and nothing else; it tells one figure."""

    @dataclasses.dataclass(frozen=True)
    class Told(Encoding):
        name: str = "brightness"

        def figures(self):
            return {self.name: self.output.mean((1, 2, 3))}

    @register_frontend("plain")
    class Plain(Frontend):
        Settings = WeightsSettings
        figure_names = ("brightness",)
        figure = "brightness"

        def __init__(self, settings: Any) -> None:
            super().__init__(settings)

        def encode(self, images):
            return Told(images if self.settings.weights == "uniform" else images / 2, self.figure)

    yield Plain
    FRONTENDS._classes.pop("plain")


def test_a_constructor_may_take_settings_alone_and_its_weights_setting_counts(plain, tmp_path):
    prints = set()
    for weights in ("uniform", "half"):
        torch.manual_seed(0)
        model = create_classifier("resnet10_slim", {"name": "plain", "weights": weights}).eval()
        save_checkpoint(model, tmp_path / weights)
        again = load_checkpoint(tmp_path / weights)
        assert again.frontend.settings == WeightsSettings(weights)
        assert module_fingerprint(again) == module_fingerprint(model)
        prints.add(module_fingerprint(model))
    assert len(prints) == 2


def test_figures_are_in_the_curves_unless_training_has_the_name(plain, tmp_path):
    config = from_dict(
        RunConfig,
        {
            "model": {"frontend": "plain", "num_classes": 2},
            "train": {"epochs": 1, "batch_size": 16, "validation_images": 0},
        },
        where="test",
    )
    train(config, stripes(32, seed=0), tmp_path / "a", progress=False)
    header, row = (tmp_path / "a" / "curves.csv").read_text().splitlines()
    assert 0.0 < float(row.split(",")[header.split(",").index("brightness")]) < 1.0
    plain.figure = "images"
    with pytest.raises(InputError, match="calls a figure or a loss 'images', a name that training has"):
        train(config, stripes(32, seed=0), tmp_path / "b", progress=False)


def test_a_predictor_names_the_figures_that_a_file_hands_out():
    outputs = [torch.zeros(2, 3), torch.ones(2), torch.full((2,), 0.25)]
    figures = _pair(outputs, {"figures": ["brightness", "active_fraction"]})[1]
    assert list(figures) == ["brightness", "active_fraction"]
    assert figures["active_fraction"] is outputs[2]
    assert _pair(outputs[:1], {"figures": ["active_fraction"]})[1] == {}  # exported without sparsity


@pytest.mark.parametrize("name", ["in_channels", "features", "kernel_size", "stride"])
@pytest.mark.parametrize("frontend", ["conv", "lca", "warp-lca", "gabor"])
def test_sizes_below_one_are_refused(frontend, name):
    import_file(EXAMPLE)
    odd = {"kernel_size": -1} if name == "kernel_size" else {name: 0}
    with pytest.raises(InputError, match=f"{name} of .* is {odd[name]}; give at least 1"):
        build_frontend({"name": frontend, **odd})


@pytest.mark.parametrize(
    ("frontend", "training", "message"),
    [
        ("warp-lca", {"distillation": -1.0}, "distillation is -1.0; give 0"),
        (
            "warp-lca",
            {"frozen_epochs": None, "distillation": 5.0},
            "distillation is 5.0, and frozen_epochs: null",
        ),
        (
            "conv",
            {"frozen_epochs": None, "rate": 3.0},
            "rate is 3.0, and frozen_epochs: null lets nothing learn",
        ),
    ],
)
def test_training_that_would_change_nothing_is_refused(frontend, training, message):
    with pytest.raises(InputError, match=message):
        from_dict(RunConfig, {"model": {"frontend": frontend}, "train": {"frontend": training}}, where="test")


@pytest.mark.parametrize("frontend", ["none", "conv"])
def test_a_gradient_mode_needs_cycles(frontend, tmp_path):
    loss = {"name": "pgd", "gradient_mode": "implicit", "steps": 1}
    values = {
        "model": {"frontend": SECTIONS[frontend], "num_classes": 2},
        "train": {"loss": loss, "epochs": 1, "validation_images": 0},
    }
    with pytest.raises(InputError, match="gradient_mode is 'implicit', and this front-end runs no cycles"):
        train(from_dict(RunConfig, values, where="test"), stripes(32, seed=0), tmp_path, progress=False)


def test_installed_packages_offer_theirs_and_a_broken_one_is_named(monkeypatch):
    class Offered(Passing):
        pass

    def broken():
        raise ImportError("no such library")

    def offered(load):
        point = SimpleNamespace(name="theirs", value="theirs.module:Offered", load=load)
        monkeypatch.setattr(extensions, "entry_points", lambda group: [point] if group == "a.group" else [])
        return Registry("front-end", home="frontend", group="a.group")

    assert offered(lambda: Offered).get("theirs") is Offered
    registry = offered(broken)
    for _ in range(2):  # not only the first time
        with pytest.raises(
            InputError, match=r"'theirs' \(theirs.module:Offered\) cannot be imported: ImportError"
        ):
            registry.get("theirs")


def test_a_class_that_a_worker_cannot_import_is_named():
    def get():
        raise AttributeError("Can't get attribute 'Mine' on <module '__main__'>")

    with pytest.raises(InputError, match="Can't get attribute 'Mine'.*define your front-end in a file"):
        _next(SimpleNamespace(get=get))


def test_the_folder_of_a_run_leads_to_its_checkpoint(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(InputError, match=r"holds no config.json; give .*checkpoint\."):
        load_checkpoint(tmp_path)
