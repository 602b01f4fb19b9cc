from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from warplca.attacks import PRESETS, ThreatModel, as_threat
from warplca.attacks.threat import LARGEST
from warplca.configs.errors import InputError


@pytest.mark.parametrize(
    ("text", "norm", "epsilon", "canonical"),
    [
        ("linf 8/255", "linf", 8 / 255, "linf 8/255"),
        ("LINF  2 / 255", "linf", 2 / 255, "linf 2/255"),
        ("linf 0.5/255", "linf", 0.5 / 255, "linf 0.5/255"),
        ("linf 0.031", "linf", 0.031, "linf 0.031"),
        ("l2 0.50", "l2", 0.5, "l2 0.5"),
        ("l2 128/255", "l2", 128 / 255, f"l2 {128 / 255!r}"),
        ("l1 12", "l1", 12.0, "l1 12"),
    ],
)
def test_text_is_read_and_written_back(text: str, norm: str, epsilon: float, canonical: str) -> None:
    threat = ThreatModel.parse(text)
    assert (threat.norm, threat.epsilon) == (norm, epsilon)
    assert str(threat) == canonical
    assert ThreatModel.parse(canonical) == threat


RADII = st.sampled_from(sorted(LARGEST)).flatmap(
    lambda norm: st.tuples(
        st.just(norm), st.floats(min_value=1e-12, max_value=LARGEST[norm], allow_subnormal=False)
    )
)


@given(RADII)
def test_canonical_text_keeps_epsilon_exactly(radius: tuple[str, float]) -> None:
    norm, epsilon = radius
    threat = ThreatModel(norm, epsilon)
    assert ThreatModel.parse(str(threat)) == threat


def test_presets_survive_their_own_text() -> None:
    assert [as_threat(str(threat)) for threat in PRESETS] == list(PRESETS)
    assert as_threat(PRESETS[0]) is PRESETS[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linf -8/255", "epsilon is -0.03"),
        ("linf 0", "epsilon is 0.0; expected a finite number above 0"),
        ("l2 inf", "epsilon is inf"),
        ("l2 nan", "epsilon is nan"),
        ("linff 8/255", "unknown norm 'linff'.*did you mean 'linf'"),
        ("linf", "cannot be read; expected a norm and a radius"),
        ("linf eight", "'eight' is no number"),
        ("linf 8/0", "'8/0' is no number"),
    ],
)
def test_unusable_text_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ThreatModel.parse(text)


def test_unknown_norm_is_refused_by_the_constructor() -> None:
    with pytest.raises(InputError, match="unknown norm 'l3'"):
        ThreatModel("l3", 0.1)  # pyright: ignore[reportArgumentType]


def test_distances_equal_a_loop_over_pixels() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.rand(2, 4, 3, 5, 7, generator=generator)
    for index in range(4):
        values = [
            abs(x - y) for x, y in zip(a[index].flatten().tolist(), b[index].flatten().tolist(), strict=True)
        ]
        expected = {"linf": max(values), "l2": math.sqrt(sum(v * v for v in values)), "l1": math.fsum(values)}
        for norm, distance in expected.items():
            measured = ThreatModel(norm, 1.0).distance(a, b)  # pyright: ignore[reportArgumentType]
            assert measured[index].item() == pytest.approx(distance, rel=1e-12)
