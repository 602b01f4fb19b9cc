"""Classifiers in timm's terms: every registered name, its methods, its data settings, its way to load folders."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from stripes import section

import warplca
from warplca.configs import InputError
from warplca.models import backbones, create_classifier, load_checkpoint, save_checkpoint
from warplca.models.timm_models import BACKBONES, GENERIC, architecture

SMALL = {"frontend": section("warp-lca")}


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_backbone_is_listed():
    assert warplca.__version__
    names = set(timm.list_models("warplca*"))
    assert names == {architecture(backbone) for backbone in BACKBONES} | {GENERIC}


LARGE = ("wide_resnet50_2", "wrn_28_10", "resnext50_32x4d")


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in BACKBONES]
)
def test_every_registered_model_trains_and_behaves_like_timms_own(backbone):
    torch.manual_seed(0)
    model = timm.create_model(f"warplca_{backbone}", pretrained=False, num_classes=7, **SMALL)
    x = images(2, 3, 64, 64)
    model(x).square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    model.eval()
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.shape[1] == model.num_features
        torch.testing.assert_close(model.forward_head(features), model(x))
        pre_logits = model.forward_head(features, pre_logits=True)
        assert pre_logits.shape == (2, model.head_hidden_size)
        torch.testing.assert_close(model.get_classifier()(pre_logits), model(x))
        model.reset_classifier(3)
        assert model(x).shape == (2, 3)
        model.reset_classifier(0)
        torch.testing.assert_close(model(x), pre_logits)
    data = timm.data.resolve_data_config(model=model)
    assert data["input_size"] == (3, 32, 32)
    assert (data["mean"], data["std"]) == ((0.0,) * 3, (1.0,) * 3)
    assert data["interpolation"] == "bicubic"


@pytest.mark.parametrize("backbone", ["resnet10_slim", "resnet18", "convnext_atto", "mobilenetv3_small_100"])
@pytest.mark.parametrize("output", ["code", "reconstruction"])
def test_feature_maps_have_the_stated_channels_and_reductions(backbone, output):
    options = {"frontend": section("warp-lca", output=output)}
    model = timm.create_model(f"warplca_{backbone}", features_only=True, **options).eval()
    maps = model(images(1, 3, 128, 128))
    assert [level.shape[1] for level in maps] == model.feature_info.channels()
    assert [128 // level.shape[2] for level in maps] == model.feature_info.reduction()
    chosen = timm.create_model(
        f"warplca_{backbone}", features_only=True, out_indices=(1, 2), **options
    ).eval()
    assert [level.shape for level in chosen(images(1, 3, 128, 128))] == [level.shape for level in maps[1:3]]


def test_no_head_other_channels_and_front_ends():
    model = timm.create_model("warplca_resnet10_slim", num_classes=0, frontend=section("conv"), in_chans=1)
    assert model.eval()(images(2, 1, 32, 32)).shape == (2, 192)
    with pytest.raises(InputError, match="no classification layer"):
        save_checkpoint(model, "never-written")
    with pytest.raises(InputError, match="num_classes is 1"):
        model.reset_classifier(1)
    plain = timm.create_model("warplca_resnet18", frontend="none", drop_rate=0.3)
    assert plain.backbone.drop_rate == 0.3
    assert torch.equal(plain.frontend(images(1, 3, 8, 8)), images(1, 3, 8, 8))
    other = timm.create_model(GENERIC, backbone="resnet14t", **SMALL)
    assert other.config.backbone == "resnet14t"
    with pytest.raises(InputError, match="does not take these options"):
        timm.create_model("warplca_resnet18", lamb=3)
    with pytest.raises(InputError, match="there is no lam; write model.frontend.lam"):
        timm.create_model("warplca_resnet18", lam=0.3)


@pytest.mark.parametrize("arm", [None, "conv", "lca", "warp-lca"])
@pytest.mark.parametrize("backbone", ["resnet10_slim", "resnet14t"])
def test_timm_loads_a_checkpoint_folder(arm, backbone, tmp_path):
    torch.manual_seed(0)
    model = create_classifier(backbone, section(arm), 7).eval()
    save_checkpoint(model, tmp_path / "c", class_names=list("abcdefg"), image_size=(48, 40))
    again = timm.create_model(f"local-dir:{tmp_path / 'c'}", pretrained=True).eval()
    x = images(3, 3, 48, 40)
    assert torch.equal(again(x), model(x))
    assert tuple(again.pretrained_cfg["label_names"]) == tuple("abcdefg")
    assert tuple(timm.data.resolve_data_config(model=again)["input_size"]) == (3, 48, 40)
    finer = timm.create_model(f"local-dir:{tmp_path / 'c'}", pretrained=True, num_classes=4).eval()
    assert finer(x).shape == (3, 4)
    first = next(iter(model.backbone.parameters()))
    assert torch.equal(
        next(iter(finer.backbone.parameters())), first
    )  # fine-tuning starts at the old weights


def test_models_made_by_timm_warn_of_wrong_pixels_only():
    """timm's validate.py warms models up with normal random numbers."""
    model = timm.create_model("warplca_resnet10_slim", **SMALL).eval()
    with pytest.warns(UserWarning, match=r"pixels range from .* expected \[0, 1\]"):
        model(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_atoms_are_kept_from_weight_decay():
    from timm.optim import param_groups_weight_decay

    model = timm.create_model("warplca_resnet10_slim", **SMALL)
    atoms = model.frontend.dictionary.weight
    free, decayed = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    assert any(p is atoms for p in free["params"])
    assert not any(p is atoms for p in decayed["params"])


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_pretrained_backbones_work_behind_a_reconstruction(backbone, tmp_path, monkeypatch):
    """Weights saved locally take the place of a download; nothing but the front-end is new."""
    torch.manual_seed(3)
    original = timm.create_model(backbone, pretrained=False).eval()
    save_file(original.state_dict(), tmp_path / "weights.safetensors")
    create = backbones.timm.create_model
    local = {"pretrained_cfg_overlay": {"file": str(tmp_path / "weights.safetensors"), "custom_load": False}}
    layer = section("lca", output="reconstruction")
    with monkeypatch.context() as patch:
        patch.setattr(
            backbones.timm, "create_model", lambda *args, **options: create(*args, **options, **local)
        )
        model = create_classifier(backbone, layer, 1000, pretrained=True).eval()
    for name, tensor in original.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], tensor), name
    x = images(2, 3, 224, 224)
    cfg = original.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(model(x), original((model.frontend(x) - mean) / std))
    save_checkpoint(model, tmp_path / "c")
    assert torch.equal(load_checkpoint(tmp_path / "c")(x), model(x))
    assert torch.equal(timm.create_model(f"local-dir:{tmp_path / 'c'}", pretrained=True).eval()(x), model(x))
    assert tuple(timm.data.resolve_data_config(model=model)["input_size"]) == (3, 224, 224)


def test_importing_the_models_registers_them_and_the_package_alone_stays_light():
    program = (
        "import sys, warplca\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules, 'warplca imports them'\n"
        "import warplca.models, timm\n"
        "assert timm.list_models('warplca_resnet1*'), timm.list_models('warplca*')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd="/")
