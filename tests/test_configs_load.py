"""Reading configurations: every documented value can be typed, and what does not fit is named."""

import dataclasses
import typing

import pytest

from warplca.configs import InputError, from_dict
from warplca.configs.extensions import REGISTRIES
from warplca.configs.listing import list_keys
from warplca.configs.load import apply_overrides
from warplca.configs.plan import EvaluationPlan
from warplca.configs.recipe import AverageConfig, SelectConfig, TrainConfig
from warplca.configs.schema import ComparisonConfig, ModelConfig, RunConfig
from warplca.pipeline.prime import PrimeConfig
from warplca.train.adversarial import AttackSettings

CLASSES = (TrainConfig, AttackSettings, AverageConfig, SelectConfig, ModelConfig)
NEEDED = {ComparisonConfig: {"arms": {"conv": {}}, "baseline": "conv"}}
"""Keys without a default."""

CONFIGURATIONS = (RunConfig, ComparisonConfig, EvaluationPlan, PrimeConfig)


def sections(*classes):
    """The classes, with all that are sections of them, and those of every registered front-end and loss."""
    for cls in classes:
        yield cls
        yield from sections(
            *(hint for hint in typing.get_type_hints(cls).values() if dataclasses.is_dataclass(hint))
        )


def every_class():
    registered = [known for registry in REGISTRIES for known in registry.items().values()]
    own = [
        part for known in registered for part in (known.Settings, getattr(known, "Training", None)) if part
    ]
    return dict.fromkeys(sections(*CONFIGURATIONS, *own))


def choices(cls):
    for name, hint in typing.get_type_hints(cls).items():
        for member in (hint, *typing.get_args(hint)):
            if typing.get_origin(member) is typing.Literal:
                yield from ((cls, name, option) for option in typing.get_args(member))


@pytest.mark.parametrize(("cls", "name", "option"), [case for cls in every_class() for case in choices(cls)])
def test_every_documented_value_can_be_typed(cls, name, option):
    needed = NEEDED.get(cls, {}) | ({"train": {"validation_images": 9}} if name == "measure_on" else {})
    typed = apply_overrides(needed, [f"{name}={option}"])
    assert getattr(from_dict(cls, typed, where="here"), name) == option


def around(cls, key, owner):
    """The sections that a key needs around it."""
    values = dict(NEEDED.get(cls, {}))
    if key.name.startswith("train.loss."):
        values["train"] = {"loss": owner, "augment": {"policy": "augmix"}, "validation_images": 9}
    elif owner:
        section = {"frontend": owner}
        values |= section if key.name.startswith("frontend.") else {"model": section}
    return values


@pytest.mark.parametrize("cls", CONFIGURATIONS)
def test_every_listed_default_can_be_typed(cls):
    for key in list_keys(cls):
        for owner in key.of or ("",):
            values = around(cls, key, owner)
            if key.name not in values:
                typed = apply_overrides(values, [f"{key.name}={key.default}"])
                built = from_dict(cls, typed, where="here")
                # ``train.frontend`` keeps what was typed until the front-end is known.
                as_before = built == from_dict(cls, values, where="here")
                assert as_before or key.name.startswith("train.frontend."), key


@pytest.mark.parametrize(
    ("cls", "entry", "found"),
    [
        (TrainConfig, "learning_rate=1e-3", 1e-3),
        (TrainConfig, "learning_rate=1", 1.0),
        (TrainConfig, "validation_images=7", 7),
        (EvaluationPlan, "severities=[1, 5]", (1, 5)),
        (EvaluationPlan, "attack_images=null", None),
    ],
)
def test_values_take_the_declared_type(cls, entry, found):
    value = getattr(from_dict(cls, apply_overrides({}, [entry]), where="here"), entry.partition("=")[0])
    assert value == found
    assert type(value) is type(found)


@pytest.mark.parametrize(
    ("cls", "entry", "message"),
    [
        (TrainConfig, "epochs=true", r"epochs is True; expected int"),
        (TrainConfig, "epochs=2.5", r"epochs is 2.5; expected int"),
        (TrainConfig, "learning_rate=fast", r"learning_rate is 'fast'; expected float"),
        (TrainConfig, "precision=yes", r"precision True.*Known: auto, bf16, fp16, no, tf32"),
        (TrainConfig, "flip=no thanks", r"flip is 'no thanks'; expected bool or alternating"),
        (EvaluationPlan, "severities=[1, two]", r"severities is .*; expected tuple\[int, \.\.\.\]"),
        (EvaluationPlan, "attacks=[{attak: pgd-10}]", r"attacks\.0\.attak"),
    ],
)
def test_what_does_not_fit_is_named(cls, entry, message):
    with pytest.raises(InputError, match=message):
        from_dict(cls, apply_overrides({}, [entry]), where="here")


def test_every_default_fits_its_own_type():
    for cls in CLASSES:
        plain = {
            f.name: getattr(cls(), f.name) for f in dataclasses.fields(cls) if "registry" not in f.metadata
        }
        nested = {name for name, value in plain.items() if dataclasses.is_dataclass(value)}
        from_dict(cls, {name: value for name, value in plain.items() if name not in nested}, where="here")
