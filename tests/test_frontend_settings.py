"""Settings of front-ends in configurations: what is refused, what is never ignored, and how overrides reach them."""

import pytest

from warplca.configs import InputError, ModelConfig, RunConfig, from_dict, load_config
from warplca.configs.load import merge, to_plain
from warplca.frontend import LCA
from warplca.models import build_classifier, create_classifier

CONV = {"name": "conv", "features": 8, "kernel_size": 5}


@pytest.mark.parametrize(
    ("frontend", "message"),
    [
        ("warp-lcs", "unknown front-end 'warp-lcs'.*did you mean 'warp-lca'"),
        ({"name": "conv", "lam": 0.1}, r"unknown key 'frontend.lam' in .*front-end conv.*frontend.features"),
        ({"lam": 0.1}, "expected a name, or keys with one of them 'name'"),
        ([CONV, "equaliser"], "front-end 1 of 2 outputs features"),
        ([{"name": "equaliser", "in_channels": 1}, "conv"], "images of 1 channels, and the next takes 3"),
        ({"name": "equaliser", "strength": 2.0}, "strength is 2.0; give a number above 0, at most 1"),
        ({"name": "lca", "features": "many"}, "frontend.features is 'many'; expected int"),
    ],
)
def test_mistakes_name_the_key_and_what_the_front_end_has(frontend, message):
    with pytest.raises(InputError, match=message):
        create_classifier("resnet10_slim", frontend)


@pytest.mark.parametrize(
    ("model", "train", "message"),
    [
        ({"lam": 0.1}, {}, "there is no model.lam; write model.frontend.lam"),
        ({}, {"frozen_epochs": 1}, "no train.frozen_epochs; write train.frontend.frozen_epochs"),
        ({}, {"augment": {"lam_spread": 2}}, "no train.augment.lam_spread; write train.frontend.lam_spread"),
        ({}, {"frontend": {"rate": 1}}, "the front-end none has no settings of training; leave it out"),
        (
            {"frontend": "conv"},
            {"frontend": {"lam_spread": 2}},
            "front-end conv.*train.frontend.lam_spread.*rate",
        ),
        (
            {"frontend": "conv"},
            {"frontend": {"frozen_epochs": 11}},
            "frozen_epochs 11, more than there are",
        ),
        ({"frontend": "lca"}, {"frontend": {"anneal_share": 0.5}}, "nothing is annealed; set lam_factor"),
        ({"frontend": "lca"}, {"frontend": {"distillation": 0.5}}, "lca.*train.frontend.distillation"),
        (
            {},
            {"loss": {"name": "pgd", "beta": 1.0}},
            "unknown key 'train.loss.beta'.*loss pgd.*train.loss.threat",
        ),
        (
            {},
            {"loss": {"threat": "l2 1"}},
            "train.loss is .*'threat'.*; expected a name, or keys with one of them 'name'",
        ),
        ({}, {"loss": {"name": "fast", "steps": 3}}, "unknown key 'train.loss.steps'.*loss fast"),
        ({}, {"loss": {"name": "mart"}, "label_smoothing": 0.1}, "the loss 'mart' has none"),
        ({}, {"augment": {"severity": 3}}, "severity is 3, and augment.policy is 'none'"),
        ({}, {"augment": {"noise_share": 0.3}}, "noise_share is 0.3, and augment.noise is 0"),
        ({}, {"average": {"kind": "swa", "decay": 0.9}}, "decay is 0.9, and average.kind is 'swa'"),
        ({}, {"schedule": "cosine", "warmup": 0.2}, "warmup is 0.2, and schedule is 'cosine'"),
        ({}, {"select": {"largest_drop": 0.2}}, "only losses of one attack step look at it"),
        ({}, {"select": {"robust_images": 9}}, "nothing is attacked; set select.by: robust"),
        ({"stem_kernel": 3}, {}, 'are of the wide stem, and stem is "auto"'),
    ],
)
def test_no_setting_is_accepted_and_ignored(model, train, message):
    with pytest.raises(InputError, match=message):
        from_dict(RunConfig, {"model": model, "train": {"validation_images": 20, **train}}, where="x.yaml")


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        (
            "resnet10_slim",
            {"frontend": "conv", "stem_stride": 2},
            "stem_stride is 2, and the backbone sees features",
        ),
        (
            "resnet10_slim",
            {"frontend": "conv", "stem": "wide"},
            "behind features, which have their channels already",
        ),
        ("convnext_atto", {"stem_stride": 2}, "stem_stride is 2, and 'convnext_atto' keeps its own stem"),
    ],
)
def test_no_setting_of_the_stem_is_ignored(backbone, options, message):
    with pytest.raises(InputError, match=message):
        build_classifier(ModelConfig(backbone=backbone, **options))


def test_overrides_reach_sections_by_name_and_by_number():
    def frontend(*overrides):
        return load_config(RunConfig, "warp-lca", "train", overrides).model.frontend

    assert frontend("model.frontend.lam=0.3")[0].lam == 0.3
    assert to_plain(frontend("model.frontend=[lca, equaliser]", "model.frontend.0.output=reconstruction"))[
        0
    ] == (to_plain(LCA(output="reconstruction").settings))
    with pytest.raises(
        InputError, match=r"model.frontend.2: expected .* model.frontend.0 to model.frontend.1"
    ):
        frontend("model.frontend=[lca, equaliser]", "model.frontend.2.lam=1")
    replaced = load_config(RunConfig, "none", "train", ["model.frontend=conv", "model.frontend.features=9"])
    assert to_plain(replaced.model.frontend)[0] == {
        "name": "conv", "in_channels": 3, "features": 9, "kernel_size": 9, "stride": 2, "output": "code",
    }  # fmt: skip


def test_a_name_alone_and_a_section_with_that_name_lay_over_another_alike():
    below = {"frontend": {"name": "warp-lca", "lam": 0.1}}
    assert merge(below, {"frontend": "warp-lca"}) == merge(below, {"frontend": {"name": "warp-lca"}}) == below
    assert merge(below, {"frontend": "lca"}) == {"frontend": "lca"}
    assert merge({"data": "a"}, {"data": "b"}) == {"data": "b"}


def test_a_key_below_a_number_is_refused():
    with pytest.raises(InputError, match=r"train.epochs.x: train.epochs is 10, which has no keys of its own"):
        load_config(RunConfig, "none", "train", ["train.epochs=10", "train.epochs.x=3"])
