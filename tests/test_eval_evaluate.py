"""Evaluation of any model: right counts, resumption, and refusals."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from stripes import QUIET
from torch import Tensor, nn

from warplca.attacks import run_attack
from warplca.configs.errors import InputError
from warplca.configs.plan import PLANS, AttackSetting, EvaluationPlan, resolve_plan
from warplca.data import ImageDataset, corrupt
from warplca.eval import CertificationPlan, CorruptionSource, Entry, ResultsStore, certify, evaluate
from warplca.eval.compare.statistics import calibration_error
from warplca.eval.results.records import choose_images

CLASSES = ("dark", "middle", "bright")
QUICK = EvaluationPlan(
    corruptions=("gaussian_noise", "brightness", "contrast+gaussian_noise"),
    severities=(2, 5),
    corruption_images=20,
    attacks=(AttackSetting("fgsm", "linf 8/255"), AttackSetting("pgd-10", "linf 0.1")),
    attack_images=9,
    batch_size=7,
)


class Counted(nn.Module):
    """Classifies by mean brightness; counts the images it sees; has dropout to betray training mode."""

    def __init__(self, sharpness: float = 30.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([0.2, 0.5, 0.8]))
        self.dropout = nn.Dropout(0.5)
        self.sharpness = sharpness
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        low, high = images.detach().aminmax()
        assert 0 <= low <= high <= 1
        self.seen += len(images)
        means = self.dropout(images).mean(dim=(1, 2, 3))
        return -self.sharpness * (means[:, None] - self.centres).square()


@pytest.fixture
def dataset() -> ImageDataset:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=61)
    base = np.array([50, 128, 205])[labels] + rng.normal(0, 35, size=61)
    images = base[:, None, None, None] + rng.normal(0, 20, size=(61, 37, 31, 3))
    return ImageDataset("grey", images.clip(0, 255).astype(np.uint8), labels, CLASSES, np.arange(61) + 100)


def test_clean_and_corrupted_cells_match_a_plain_loop(dataset: ImageDataset) -> None:
    model = Counted()
    store = ResultsStore()
    evaluate(model, dataset, QUICK, results=store, execution=QUIET)
    frame = store.to_frame(predictions=True)
    model.eval()
    for row in frame[frame["kind"] != "attack"].to_dict("records"):
        positions = np.asarray(row["indices"]) - 100
        images = dataset.images[positions]
        for name in row["condition"].split("+") if row["kind"] == "corruption" else ():
            images = corrupt(images, name, severity=row["severity"], seed=0, indices=row["indices"])
        with torch.no_grad():
            probabilities = model(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).softmax(1)
        confidences, predictions = probabilities.max(1)
        np.testing.assert_array_equal(row["predictions"], predictions)
        np.testing.assert_array_equal(row["labels"], dataset.labels[positions])
        correct = predictions.numpy() == dataset.labels[positions]
        assert row["correct"] == correct.sum()
        assert row["mean_confidence"] == pytest.approx(confidences.mean().item(), abs=1e-6)
        assert row["ece"] == pytest.approx(calibration_error(confidences.numpy(), correct), abs=1e-6)
    assert len(frame) == 1 + 3 * 2 + 2
    assert 0.5 < frame["accuracy"].iloc[0] < 1


def test_attacked_cells_match_the_attack_itself(dataset: ImageDataset) -> None:
    model = Counted()
    frame = evaluate(model, dataset, QUICK, execution=QUIET)
    positions = choose_images(dataset.labels, 9, seed=0)
    images, labels = dataset.tensors(positions)
    model.eval()
    result = run_attack(model, images, labels, "pgd-10", "linf 0.1", seed=0, batch_size=7)
    row = frame.iloc[-1]
    assert (row["condition"], row["threat"], row["images"]) == ("pgd-10", "linf 0.1", 9)
    assert row["accuracy"] == pytest.approx(result.robust_accuracy)
    assert row["gradients"] == result.gradients > 0
    assert frame["accuracy"].iloc[0] > row["accuracy"]


def test_a_second_run_computes_nothing_and_gives_the_same_table(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    model = Counted()
    first = evaluate(model, dataset, QUICK, results=tmp_path / "r.sqlite", execution=QUIET)
    seen = model.seen
    second = evaluate(model, dataset, QUICK, results=tmp_path / "r.sqlite", execution=QUIET)
    assert model.seen == seen
    assert first.equals(second)


def test_an_interrupted_run_goes_on_where_it_stopped(dataset: ImageDataset) -> None:
    whole = evaluate(Counted(), dataset, QUICK, execution=QUIET)
    model, store = Counted(), ResultsStore()

    def interrupt(module: nn.Module, *_: object) -> None:
        if model.seen > 150:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, dataset, QUICK, results=store, execution=QUIET)
    handle.remove()
    done = len(store.to_frame())
    assert 0 < done < len(whole)
    resumed = evaluate(model, dataset, QUICK, results=store, execution=QUIET)
    measured = ["condition", "severity", "threat", "images", "correct", "mean_confidence", "ece"]
    assert resumed[measured].equals(whole[measured])


def test_a_retrained_model_is_refused_or_measured_again_when_asked(
    dataset: ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    store = ResultsStore()
    evaluate(Counted(), dataset, "clean", results=store, name="m", execution=QUIET)
    other = Counted()
    with torch.no_grad():
        other.centres.add_(0.15)
    before = store.to_frame()
    with pytest.raises(InputError, match="another network under the name 'm' with training seed 0"):
        evaluate(other, dataset, "clean", results=store, name="m", execution=QUIET)
    assert store.to_frame().equals(before)
    with caplog.at_level(logging.WARNING):
        evaluate(other, dataset, "clean", results=store, name=Entry("m", replace=True), execution=QUIET)
    assert "deleted 1 results" in caplog.text
    fresh = evaluate(other, dataset, "clean", name="m", execution=QUIET)
    assert store.to_frame()["correct"].tolist() == fresh["correct"].tolist()


def test_a_callable_keeps_its_results_on_other_images_and_other_plans(dataset: ImageDataset) -> None:
    store, model = ResultsStore(), Counted()
    other = ImageDataset("other", 255 - dataset.images[:], dataset.labels, dataset.class_names)
    for images, plan in ((dataset, "clean"), (other, "clean"), (dataset, EvaluationPlan(clean_images=7))):
        evaluate(lambda x: model.eval()(x), images, plan, results=store, name="m", execution=QUIET)
    assert store.to_frame()[["dataset", "images"]].to_numpy().tolist() == [
        [dataset.name, len(dataset)],
        ["other", len(dataset)],
        [dataset.name, 7],
    ]


def test_modes_and_gradients_are_left_as_they_were(dataset: ImageDataset) -> None:
    model = nn.Sequential(Counted(), nn.BatchNorm1d(3))
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, dataset, QUICK, execution=QUIET)
    assert [part.training for part in model.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_modes_are_restored_after_a_failure(dataset: ImageDataset) -> None:
    model = nn.Sequential(Counted(), nn.Linear(3, 5)).train()
    with pytest.raises(InputError):
        evaluate(model, dataset, "clean", execution=QUIET)
    assert model.training


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_batch_size_change_no_prediction(dataset: ImageDataset, workers: int) -> None:
    plan = EvaluationPlan(("gaussian_noise", "shot_noise"), (1, 4), 33, (), batch_size=33)
    store, reference = ResultsStore(), ResultsStore()
    evaluate(
        Counted(),
        dataset,
        plan,
        results=store,
        corruptions=CorruptionSource(workers=workers),
        execution=QUIET,
    )
    small = EvaluationPlan(("gaussian_noise", "shot_noise"), (1, 4), 33, (), batch_size=4)
    evaluate(Counted(), dataset, small, results=reference, execution=QUIET)
    left, right = (s.to_frame(predictions=True)["predictions"] for s in (store, reference))
    assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_plain_callable_is_recognised_by_its_answers(dataset: ImageDataset) -> None:
    store = ResultsStore()
    calls: list[int] = []

    def bright(images: Tensor) -> Tensor:
        calls.append(len(images))
        return -(images.mean(dim=(1, 2, 3))[:, None] - torch.tensor([0.2, 0.5, 0.8])).square()

    first = evaluate(bright, dataset, "clean", results=store, execution=QUIET)
    assert first["model"].tolist() == ["bright"]
    assert first["accuracy"].iloc[0] > 0.5
    calls.clear()
    evaluate(bright, dataset, "clean", results=store, execution=QUIET)
    assert len(calls) == 1  # the probe alone
    second = evaluate(
        lambda x: -bright(x),
        dataset,
        "clean",
        results=store,
        name=Entry("bright", replace=True),
        execution=QUIET,
    )
    assert len(store.to_frame()) == 1
    assert second["accuracy"].iloc[0] < 0.5


def test_a_random_model_is_noted(dataset: ImageDataset) -> None:
    class Noisy(Counted):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + torch.randn(len(images), 3)

    frame = evaluate(Noisy(), dataset, "clean", execution=QUIET)
    assert frame["notes"].tolist() == ["The model is random between equal calls."]
    assert evaluate(Counted(), dataset, "clean", execution=QUIET)["notes"].tolist() == [""]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: torch.full((len(x), 3), float("nan")), "NaN or infinite logits for 61 of 61 images"),
        (lambda x: torch.zeros(len(x), 10), r"\(61, 10\) for 61 images of a data set with 3 classes"),
        (lambda x: torch.zeros(1, 3), r"the model returned \(1, 3\)"),
        (lambda x: [0.0], "the model returned list"),
    ],
)
def test_unusable_models_are_refused(dataset: ImageDataset, model: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(model, dataset, "clean", execution=QUIET)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("quik", "unknown evaluation plan 'quik'; did you mean 'quick'"),
        (EvaluationPlan(("gausian_noise",)), "did you mean 'gaussian_noise'"),
        (EvaluationPlan(("contrast+contrast",)), "names one twice"),
        (EvaluationPlan(attacks=(AttackSetting("fab", "linf -1"),)), "epsilon is -1"),
        (
            EvaluationPlan(attacks=(AttackSetting("pdg", "linf 8/255"),), attack_images=1),
            "did you mean 'pgd'",
        ),
        (EvaluationPlan(attacks=(AttackSetting("pgd", "8/255"),), attack_images=1), "8/255"),
    ],
)
def test_bad_plans_are_refused_before_any_work(
    dataset: ImageDataset, plan: EvaluationPlan, message: str
) -> None:
    model = Counted()
    with pytest.raises(InputError, match=message):
        evaluate(model, dataset, plan, execution=QUIET)
    assert model.seen == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"severities": (0,)}, "severity 0 in the evaluation plan: expected whole numbers 1 to 5"),
        ({"corruptions": ("fog",), "severities": ()}, "corruptions but no severities"),
        ({"attack_images": -1}, "attack_images is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_impossible_plans_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluationPlan(**settings)  # type: ignore[arg-type]


def test_presets_are_plans_under_their_names() -> None:
    assert {"clean", "quick", "standard"} <= set(PLANS)
    assert all(resolve_plan(name) is plan for name, plan in PLANS.items())


def test_image_choice_is_balanced_nested_and_seeded() -> None:
    labels = np.random.default_rng(1).integers(0, 7, size=500)
    whole = choose_images(labels, 0, seed=3)
    assert sorted(whole) == list(range(500))
    for count in (1, 7, 50, 133, 300):
        part = choose_images(labels, count, seed=3)
        np.testing.assert_array_equal(part, whole[:count])
        assert np.ptp(np.bincount(labels[part], minlength=7)) <= 1
    assert not np.array_equal(whole, choose_images(labels, None, seed=4))


def test_more_images_than_there_are_means_all(dataset: ImageDataset) -> None:
    assert evaluate(Counted(), dataset, EvaluationPlan(clean_images=62), execution=QUIET)[
        "images"
    ].tolist() == [61]


def test_an_empty_data_set_and_a_repeated_image_are_refused(dataset: ImageDataset) -> None:
    with pytest.raises(InputError, match="holds no images"):
        evaluate(Counted(), dataset.subset([]), "clean", execution=QUIET)
    with pytest.raises(InputError, match="holds an image twice"):
        evaluate(Counted(), dataset.subset([3, 3]), "clean", execution=QUIET)


def test_a_subset_shares_its_noise_with_the_whole_set(dataset: ImageDataset) -> None:
    plan = EvaluationPlan(("gaussian_noise",), (5,), batch_size=16)
    whole, part = ResultsStore(), ResultsStore()
    evaluate(Counted(), dataset, plan, results=whole, execution=QUIET)
    evaluate(Counted(), dataset.subset(np.arange(10, 40)), plan, results=part, execution=QUIET)
    big, small = (s.to_frame(predictions=True).iloc[-1] for s in (whole, part))
    answers = dict(zip(big["indices"].tolist(), big["confidences"].tolist(), strict=True))
    expected = [answers[index] for index in small["indices"].tolist()]
    np.testing.assert_allclose(small["confidences"], expected, atol=2e-5)


def test_a_function_is_one_network_to_evaluate_and_certify_whatever_their_seeds(
    tmp_path: Path, dataset
) -> None:
    def brightness(images: Tensor) -> Tensor:
        return -(images.mean(dim=(1, 2, 3))[:, None] - torch.tensor([0.2, 0.5, 0.8])).square()

    kept = {"results": tmp_path / "both.sqlite", "name": "brightness", "execution": QUIET}
    evaluate(brightness, dataset, EvaluationPlan(seed=1), **kept)
    plan = CertificationPlan(sigma=0.1, samples=100, images=2, seed=2, attack=None)
    assert set(certify(brightness, dataset, plan, **kept)["kind"]) == {"certificate"}
