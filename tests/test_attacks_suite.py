"""The suite: worst case, order, resumption, budget; and planted defences that it must not believe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from patterns import classifier, task, trained
from pyautoattack import AutoAttack as Library
from stripes import QUIET_SUITE
from torch import Tensor, nn

from warplca.attacks import (
    MemoryStore,
    Outcome,
    SuiteResult,
    SuiteSession,
    ThreatModel,
    as_attack,
    run_attack,
    run_suite,
    suite_attacks,
)
from warplca.attacks.adaptive.ensemble import ViewAttack
from warplca.attacks.adaptive.views import EstimatedView
from warplca.attacks.autoattack import AutoAttack
from warplca.attacks.interface import BatchwiseAttack
from warplca.configs.errors import InputError
from warplca.frontend import WarpLCA


class KWTA(nn.Module):
    """k-winners-take-all (Xiao et al., ICLR 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        smallest = flat.topk(flat.shape[1] // 12, dim=1).values[:, -1:]
        return torch.where(flat >= smallest, flat, 0.0).view_as(x)


class CutQuantiser(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ((x * 5).round() / 5).detach()


class CutPredictor(WarpLCA):
    def initial_state(self, images: Tensor, lam: Tensor | float | None = None) -> Tensor | None:
        state = super().initial_state(images, lam)
        return None if state is None else state.detach()


def build(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "k-WTA":
        return trained(classifier(KWTA))
    if kind == "quantiser":
        return nn.Sequential(CutQuantiser(), trained(classifier())).eval()
    if kind == "cut predictor":
        settings = {"lam": 0.3, "threshold": "soft", "iterations": 2, "step_size": 0.002}
        shape = {"features": 12, "kernel_size": 5, "predictor_width": 16, "predictor_depth": 1}
        layer = CutPredictor(**shape, **settings)
        open_layer = WarpLCA(**shape, **settings)
        network = trained(nn.Sequential(open_layer, classifier(channels=12, stride=1)))
        layer.load_state_dict(open_layer.state_dict())
        return nn.Sequential(layer, network[1]).eval()  # pyright: ignore[reportIndexIssue]
    return trained(classifier(), radius=0.03 if kind == "adversarially trained" else 0.0)


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return build("plain")


@pytest.fixture(scope="module")
def quantised(plain: nn.Module) -> nn.Module:
    return nn.Sequential(CutQuantiser(), plain).eval()


def attack_names(*names: str) -> dict:
    return {name: as_attack(name) for name in names}


QUICK = ("fgsm", "pgd-10", "apgd-ce", "noise")


def test_worst_case_order_and_bookkeeping(plain: nn.Module) -> None:
    images, labels = task(30, seed=2)
    labels[0] = (labels[0] + 1) % 5
    threat = ThreatModel("linf", 0.025)
    result = run_suite(plain, images, labels, threat, attack_names(*QUICK), session=QUIET_SUITE)
    assert [tally.name for tally in result.tallies] == list(QUICK)
    entered = int(result.correct.sum())
    for tally in result.tallies:
        assert tally.entered == entered
        assert tally.broken == result.broken_by.count(tally.name)
        entered -= tally.broken
    assert result.broken_by[0] == "clean"
    assert result.success.tolist() == [name is not None for name in result.broken_by]
    assert float(threat.distance(result.adversarial, images).max()) <= 0.025 + 1e-6
    with torch.no_grad():
        assert torch.equal(plain(result.adversarial).argmax(dim=1), result.predictions)
    for name in QUICK:
        assert result.robust_accuracy <= run_attack(plain, images, labels, name, threat).robust_accuracy
    assert 0.2 < result.robust_accuracy < 0.9
    assert result.verdict.trusted
    assert result.label.endswith("of 30 images at linf 0.025 (worst case of the suite; trusted)")


def test_the_autoattack_suite_equals_the_library_image_by_image(plain: nn.Module) -> None:
    images, labels = task(8, seed=3)
    attacks = {
        name: AutoAttack(part=name, square_queries=50) for name in ("apgd-ce", "apgd-t", "fab-t", "square")
    }
    result = run_suite(plain, images, labels, "linf 0.03", attacks, seed=4, batch_size=5, session=QUIET_SUITE)
    library = Library(plain, norm="Linf", eps=0.03, seed=4)
    library.square.n_queries = 50
    library.apgd_targeted.n_target_classes = library.fab.n_target_classes = 4
    _, predictions = library.run_standard_evaluation(images, labels, batch_size=5)
    assert result.success.tolist() == (predictions != labels).tolist()
    assert tuple(suite_attacks("autoattack")) == tuple(attacks)


class CountingStore(MemoryStore):
    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.saved, self.stop_after = 0, stop_after

    def save(self, attack: str, threat: str, outcomes: Mapping[int, Outcome]) -> None:
        if self.stop_after is not None and self.saved >= self.stop_after:
            raise KeyboardInterrupt
        self.saved += len(outcomes)
        super().save(attack, threat, outcomes)


@pytest.mark.parametrize("stop_after", [1, 20])
def test_a_killed_run_goes_on_to_the_same_result(plain: nn.Module, stop_after: int) -> None:
    images, labels = task(24, seed=2)

    def run(store: CountingStore) -> SuiteResult:
        attacks = attack_names(*QUICK)
        return run_suite(
            plain,
            images,
            labels,
            "linf 0.025",
            attacks,
            batch_size=8,
            session=SuiteSession(store=store, progress=False),
        )

    whole = run(CountingStore())
    store = CountingStore(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(store)
    store.stop_after = None
    resumed = run(store)
    assert resumed.broken_by == whole.broken_by
    assert torch.equal(resumed.adversarial, whole.adversarial)
    assert store.saved == sum(tally.entered for tally in whole.tallies)
    again = run(store)
    assert again.broken_by == whole.broken_by
    assert sum(tally.queries for tally in again.tallies) == 0


def test_a_spent_budget_gives_a_labelled_bound(plain: nn.Module) -> None:
    images, labels = task(20, seed=2)
    result = run_suite(
        plain,
        images,
        labels,
        "linf 0.02",
        attack_names(*QUICK),
        session=SuiteSession(budget=1e-9, progress=False),
    )
    assert not result.complete
    assert result.robust_accuracy == result.clean_accuracy
    assert "best bound within the budget" in result.label
    with pytest.raises(InputError, match="budget is 0 minutes"):
        run_suite(plain, images, labels, "linf 0.02", session=SuiteSession(budget=0))


def test_what_cannot_run_is_named(quantised: nn.Module) -> None:
    images, labels = task(20, seed=2)
    attacks = attack_names("fgsm", "bpda-smooth", "noise", "bpda-calls")
    result = run_suite(quantised, images, labels, "l1 4", attacks, session=QUIET_SUITE)
    assert set(result.skipped) == {"fgsm", "bpda-smooth", "noise"}
    assert "carry no gradient" in result.skipped["fgsm"]
    assert "no iterative layer" in result.skipped["bpda-smooth"]
    assert result.skipped["noise"] == "It knows the norms linf, l2 only."
    assert not result.verdict.trusted


def test_a_random_model_gets_the_averaging_version_and_no_trust(plain: nn.Module) -> None:
    images, labels = task(3, seed=2)

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return plain(x + 0.01 * torch.randn_like(x))

    attacks = attack_names("fgsm", "apgd-ce", "apgd-t")
    result = run_suite(Noisy().eval(), images, labels, "linf 0.03", attacks, session=QUIET_SUITE)
    assert result.tallies[0].name == "autoattack-rand"
    assert result.skipped["apgd-t"] == "The model is random: AutoAttack's rand version was used instead."
    assert "The model is random" in str(result.verdict)


@dataclass(frozen=True, kw_only=True)
class Broken(BatchwiseAttack):
    def run_batch(self, model, images, labels, threat, *, seed):
        return images * float("nan")


def test_an_attack_that_fails_costs_the_trust_but_not_the_run(plain: nn.Module) -> None:
    images, labels = task(20, seed=2)
    attacks = {"broken": Broken(), **attack_names("fgsm", "pgd-10")}
    result = run_suite(plain, images, labels, "linf 0.02", attacks, session=QUIET_SUITE)
    assert "gradient may not be finite" in result.skipped["broken"]
    assert "broken failed" in str(result.verdict)
    assert [tally.name for tally in result.tallies] == ["fgsm", "pgd-10"]


def test_transfer_comes_before_the_black_boxes_and_unknown_suites_are_named(plain: nn.Module) -> None:
    names = list(suite_attacks("standard", {"no-lca": plain}))
    assert names.index("transfer-from-no-lca") + 1 == names.index("noise")
    assert names.index("apgd-ce") < names.index("bpda-smooth")
    with pytest.raises(InputError, match=r"unknown attack suite 'standart'.*did you mean 'standard'"):
        suite_attacks("standart")


def test_transfer_that_beats_plain_gradients_costs_the_trust(plain: nn.Module, quantised: nn.Module) -> None:
    images, labels = task(30, seed=2)
    attacks = suite_attacks("autoattack", {"undefended": plain})
    chosen = {name: attacks[name] for name in ("apgd-ce", "transfer-from-undefended")}
    result = run_suite(quantised, images, labels, "linf 0.05", chosen, session=QUIET_SUITE)
    assert any(reason.startswith("Transfer broke") for reason in result.verdict.reasons)


STANDARD = suite_attacks("standard")
SHORTENED = {**STANDARD, "estimated": ViewAttack(view=EstimatedView(samples=10))}
DEFENCES = {"k-WTA": 0.016, "quantiser": 0.033, "cut predictor": 0.03}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DEFENCES)
def test_planted_defences_are_distrusted_and_broken_further(kind: str) -> None:
    model, threat = build(kind), ThreatModel("linf", DEFENCES[kind])
    images, labels = task(48, seed=2)
    with torch.no_grad():
        right = model(images).argmax(dim=1) == labels
    images, labels = images[right][:32], labels[right][:32]
    start = "square" if kind == "quantiser" else "autoattack"
    alone = run_attack(model, images, labels, start, threat)
    assert 0.2 <= alone.robust_accuracy <= 0.6
    result = run_suite(model, images, labels, threat, SHORTENED, session=QUIET_SUITE)
    assert not result.verdict.trusted
    assert result.robust_accuracy <= alone.robust_accuracy - 2 / 32


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "adversarially trained"])
def test_honest_networks_are_trusted(kind: str) -> None:
    images, labels = task(48, seed=2)
    result = run_suite(build(kind), images, labels, "linf 0.03", SHORTENED, session=QUIET_SUITE)
    assert result.verdict.trusted, str(result.verdict)
    assert 0.1 < result.robust_accuracy < 0.8
