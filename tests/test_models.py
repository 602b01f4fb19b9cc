"""Classifiers: every arm trains end to end, checkpoints come back bit for bit, mistakes are explained."""

import json
from pathlib import Path

import pytest
import torch
from stripes import section
from timm.models.resnet import ResNet

from warplca.configs import InputError
from warplca.eval.measure.inference import module_fingerprint
from warplca.frontend import LCA, WarpLCA, shipped_frontends
from warplca.models import create_classifier, load_checkpoint, save_checkpoint

ARMS = (None, "conv", "lca", "warp-lca")


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("backbone", ["resnet10_slim", "resnet18", "wide_resnet50_2"])
def test_every_arm_has_the_same_feature_map_and_gradients_everywhere(arm, backbone):
    torch.manual_seed(0)
    model = create_classifier(backbone, section(arm), 7)
    sizes = []
    assert isinstance(model.backbone, ResNet)
    model.backbone.layer1.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[2:]))
    loss = model(images(2, 3, 32, 32)).square().sum()
    loss.backward()
    assert sizes == [(16, 16)]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    for part in (model.backbone.conv1, model.frontend):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_other_backbones_and_pixel_reconstruction():
    model = create_classifier("convnext_atto", section("warp-lca", output="reconstruction"), 4).eval()
    assert model(images(1, 3, 64, 64)).shape == (1, 4)
    assert create_classifier("resnet18", None, 4, stem="original").backbone.conv1.kernel_size == (7, 7)  # type: ignore[union-attr]


@pytest.mark.parametrize("arm", ARMS)
def test_a_checkpoint_gives_bit_identical_logits(arm, tmp_path):
    torch.manual_seed(1)
    model = create_classifier("resnet10_slim", section(arm), 10)
    model(images(4, 3, 32, 32))  # moves the batch norms' statistics
    model.eval()
    save_checkpoint(model, tmp_path / "c", class_names=list("abcdefghij"), results={"clean": "61 %"})
    again = load_checkpoint(tmp_path / "c")
    assert torch.equal(again(images(3, 3, 32, 32, seed=2)), model(images(3, 3, 32, 32, seed=2)))
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "README.md",
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
    ]
    assert "| clean | 61 % |" in (tmp_path / "c" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]  # no temporary folder is left


def test_damaged_checkpoints_are_explained(tmp_path):
    model = create_classifier("resnet10_slim", section("conv"), 10)
    with pytest.raises(InputError, match="there is no checkpoint folder"):
        load_checkpoint(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no config.json"):
        load_checkpoint(tmp_path / "empty")
    folder = tmp_path / "c"
    save_checkpoint(model, folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"not the file that was saved \(its sha256 differs.*truncated"):
        load_checkpoint(folder)
    (folder / "SHA256SUMS").unlink()  # an old folder without a manifest: the weights themselves must be sound
    with pytest.raises(InputError, match="cannot be read .* truncated"):
        load_checkpoint(folder)
    weights.unlink()
    with pytest.raises(InputError, match="holds no model.safetensors"):
        load_checkpoint(folder)
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    config["warplca"]["model"]["frontend"]["features"] = 16
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="belongs to another architecture: .* tensors differ"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match="is not the description of a warplca checkpoint"):
        load_checkpoint(folder)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    model = create_classifier("resnet10_slim", None, 10)
    save_checkpoint(model, tmp_path / "c", results={"clean": "1"})
    before = (tmp_path / "c" / "config.json").read_text()

    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        InputError, match=r"cannot write .*c: No space left on device\. Nothing already there was changed"
    ):
        save_checkpoint(model, tmp_path / "c", results={"clean": "2"})
    assert (tmp_path / "c" / "config.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet19"}, "unknown backbone 'resnet19'; did you mean 'resnet1"),
        ({"backbone": "resnet18", "frontend": "warp"}, "unknown front-end 'warp'.*; did you mean 'warp-lca'"),
        ({"backbone": "resnet18", "stam": 3}, "unknown key 'stam' in create_classifier; did you mean 'stem'"),
        (
            {"backbone": "resnet18", "lam": 0.1},
            "create_classifier: there is no lam; write model.frontend.lam",
        ),
        (
            {"backbone": "resnet18", "frontend": {"name": "lca", "lamb": 3}},
            "unknown key 'frontend.lamb' .*front-end lca.*; did you mean 'frontend.lam'",
        ),
        (
            {"backbone": "resnet18", "frontend": {"name": "lca", "lam": "high"}},
            "lam is 'high'; expected float",
        ),
        ({"backbone": "vgg11", "stem": "small"}, "'vgg11' is not of timm's ResNet family"),
        (
            {"backbone": "resnet18", "frontend": {"name": "conv", "iterations": 3}},
            "unknown key 'frontend.iterations' .*front-end conv",
        ),
        ({"backbone": "resnet18", "num_classes": 1}, "num_classes is 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        create_classifier(**arguments)


@pytest.mark.parametrize("scale", [255.0, -1.0])
def test_pixels_out_of_range_are_refused(scale):
    model = create_classifier("resnet10_slim").eval()
    with pytest.raises(InputError, match=r"pixels range from .* expected \[0, 1\]"):
        model(images(1, 3, 32, 32) * scale)


def test_nan_pixels_are_refused_in_every_arm():
    x = images(1, 3, 32, 32)
    x[0, 0, 0, 0] = float("nan")
    for arm in ARMS:
        with pytest.raises(InputError, match="nan|NaN"):
            create_classifier("resnet10_slim", section(arm)).eval()(x)


@pytest.mark.parametrize(
    "change",
    [
        {"lam": 0.1001},
        {"threshold": "hard"},
        {"iterations": 3},
        {"momentum": 0.3},
        {"output": "reconstruction"},
        {"gradient_mode": "detach"},
    ],
)
def test_a_setting_that_changes_answers_or_gradients_changes_the_fingerprint(change):
    assert fingerprint(**change) != fingerprint()
    assert fingerprint() == fingerprint()


@pytest.mark.parametrize(
    ("name", "value"), [("step_size", 0.01), ("accelerated", True), ("convolution_dtype", torch.bfloat16)]
)
def test_solver_settings_of_a_built_layer_change_the_fingerprint(name, value):
    layer = LCA(kernel_size=5, features=8)
    before = module_fingerprint(layer)
    setattr(layer, name, value)
    assert module_fingerprint(layer) != before


def fingerprint(**change) -> str:
    torch.manual_seed(0)
    return module_fingerprint(create_classifier("resnet10_slim", section("lca", **change), 10))


def test_every_shipped_front_end_works_in_a_classifier_and_its_checkpoint(tmp_path):
    for name in shipped_frontends("warp-lca"):
        layer = WarpLCA.from_pretrained(name)
        kernel, stride = layer.dictionary.weight.shape[2], layer.dictionary.stride
        model = create_classifier(
            "resnet10_slim",
            {
                "name": "warp-lca",
                "kernel_size": kernel,
                "stride": stride,
                "threshold": layer.settings.threshold,
                "iterations": 1,
                "weights": name,
            },
        ).eval()
        assert torch.equal(model.frontend.predictor.stem.weight, layer.predictor.stem.weight)
        save_checkpoint(model, tmp_path / name)
        images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        assert torch.equal(load_checkpoint(tmp_path / name)(images), model(images))


def test_another_predictor_than_the_primed_one_is_refused():
    with pytest.raises(InputError, match="has predictor_width 64, this layer has 32"):
        create_classifier(
            "resnet10_slim",
            {
                "name": "warp-lca",
                "threshold": "soft",
                "weights": "cifar10-64x9s2-soft",
                "predictor_width": 32,
            },
        )


def test_a_reconstruction_may_meet_a_stem_of_another_stride_than_the_dictionary():
    for stem_stride, expected in ((None, 8), (1, 16)):
        restoring = section("lca", output="reconstruction")
        model = create_classifier("resnet10_slim", restoring, stem_stride=stem_stride)
        assert model.backbone.conv1(torch.rand(1, 3, 16, 16)).shape[-1] == expected
    with pytest.raises(InputError, match="stem_stride is 0; give 1 or more"):
        create_classifier("resnet10_slim", "lca", stem_stride=0)


@pytest.mark.parametrize("backbone", ["resnet10_slim", "wrn_16_4"])
def test_a_wide_stem_is_the_convolution_arm_as_a_part_of_the_backbone(backbone):
    options = {"stem": "wide", "stem_features": 8, "stem_kernel": 5}
    wide = create_classifier(backbone, None, **options).eval()
    arm = create_classifier(backbone, section("conv")).eval()
    weights = wide.backbone.state_dict()
    renamed = {
        f"frontend.{name[8:]}": value for name, value in weights.items() if name.startswith("conv1.0.")
    }
    for name, value in weights.items():
        if not name.startswith("conv1.0."):
            renamed[
                f"backbone.{name.replace('conv1.1.', 'conv1.')}"
                if name.startswith("conv1.")
                else f"backbone.{name}"
            ] = value
    arm.load_state_dict(renamed)
    images = torch.rand(2, 3, 17, 20)
    torch.testing.assert_close(wide(images), arm(images), atol=1e-4, rtol=1e-4)
    none = create_classifier(backbone, None)
    assert wide.backbone.feature_info == none.backbone.feature_info
    restored = create_classifier(backbone, section("lca", output="reconstruction"), **options)
    assert restored(images).shape == (2, 10)
    with pytest.raises(InputError, match='stem is "wide" behind features'):
        create_classifier(backbone, "lca", **options)
