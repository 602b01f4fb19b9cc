"""Certificates on a data set: rows, brackets, resumption, budgets, and attacks on the smoothed classifier alone."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stripes import QUIET
from test_smoothing import Linear
from torch import Tensor, nn

from warplca.attacks import SmoothAdv
from warplca.cli.main import main
from warplca.configs import InputError
from warplca.data import ImageDataset, load_dataset, save_npz
from warplca.eval import CertificationPlan, Execution, ResultsStore, certify, compare, evaluate, write_report
from warplca.eval.measure import smoothed as module
from warplca.eval.report.certificates import bracket_lines, bracket_table
from warplca.eval.results.certificates import Bracket, brackets, meaning_sentence
from warplca.models import create_classifier, save_checkpoint, smooth


class Plane(Linear):
    """The linear classifier on the pixels of :func:`plane_images`."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flatten(1)[:, : self.weight.numel()])


def plane_images(count: int = 14) -> ImageDataset:
    """Images of 5 x 7 pixels with the labels that a plane gives them; every seventh is labelled wrongly."""
    pixels = np.random.default_rng(1).integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    data = ImageDataset("plane", pixels, np.zeros(count, dtype=np.int64), ("left", "right"))
    labels = (Plane().margin(data.tensors()[0]) > 0).long().numpy()
    labels[::7] = 1 - labels[::7]
    return ImageDataset("plane", pixels, labels, ("left", "right"), np.arange(count) + 100)


QUICK = SmoothAdv(steps=6, copies=8, samples=200)


def measure(model: nn.Module, data: ImageDataset, sigma: float = 0.3, **options: object):
    given = {"samples": 600, "attack": QUICK, "radii": (0.2, 0.4), **options}
    kept = {name: given.pop(name) for name in ("results", "name", "say") if name in given}
    execution = Execution(progress=False, budget=given.pop("budget", None))  # type: ignore[arg-type]
    return certify(model, data, CertificationPlan(sigma=sigma, **given), execution=execution, **kept)  # type: ignore[arg-type]


def test_brackets_hold_the_true_radius_of_a_linear_classifier() -> None:
    data = plane_images(30)
    frame = measure(Plane(), data, samples=3000)
    assert frame["kind"].tolist() == ["certificate"] * 3 + ["smoothed attack"] * 3
    assert frame["threat"].tolist() == ["", "l2 0.2", "l2 0.4"] * 2
    with ResultsStore() as store:
        measure(Plane(), data, samples=3000, results=store)
        rows = store.to_frame(predictions=True)
    ((row, bracket),) = brackets(rows)
    images, labels = data.tensors(row["indices"] - 100)
    true = Plane().margin(images) * (2 * labels - 1)  # below 0 where the label is wrong
    assert bracket.contradictions == 0
    assert len(bracket.attacked) == 30
    for proven, attacked, radius in zip(bracket.proven, bracket.attacked, true.tolist(), strict=True):
        assert proven <= max(radius, 0) + 1e-6
        if attacked is not None:
            assert attacked >= min(radius, attacked)
            assert radius <= attacked + 1e-6
    # A plane is attacked wherever the ball reaches it, except where the votes are nearly even or the pixels end.
    reached = (true < 0.02).sum()
    assert sum(found is not None and found <= 0.2 for found in bracket.attacked) >= reached - 2
    for kind in ("certificate", "smoothed attack"):
        accuracies = frame[frame["kind"] == kind]["accuracy"].tolist()
        assert accuracies == sorted(accuracies, reverse=True)
    for threat in ("", "l2 0.2", "l2 0.4"):
        exact = float((true > (float(threat[3:]) if threat else 0)).double().mean())
        lower, upper = (frame[(frame["kind"] == k) & (frame["threat"] == threat)]["accuracy"].item()
                        for k in ("certificate", "smoothed attack"))  # fmt: skip
        assert lower <= exact <= upper


def test_a_killed_run_goes_on_and_ends_with_the_same_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, path = plane_images(), tmp_path / "r.sqlite"
    monkeypatch.setattr(module, "_SAVE_SECONDS", 0.0)

    class KilledError(Exception):
        pass

    def run(most: int | None, results: Path | None) -> tuple[Any, int]:
        """Rows, or none where the process dies after so many passes; and the passes."""
        model, passes = Plane(), []

        def count(*_: object) -> None:
            if most is not None and len(passes) == most:
                raise KilledError
            passes.append(1)

        model.register_forward_pre_hook(count)
        try:
            return measure(model, data, samples=[250, 900], results=results), len(passes)
        except KilledError:
            return None, len(passes)

    whole, needed = run(None, None)
    for _ in range(3):
        assert run(40, path) == (None, 40)
    resumed, rest = run(None, path)
    facts = ["kind", "condition", "threat", "images", "correct", "status", "details"]
    assert resumed[facts].equals(whole[facts])
    check = run(None, path)[1]  # nothing is left: the test of the model alone
    assert check < 20
    # Of each dead run the check and the timing pass are lost, and at most one more.
    assert needed <= rest + 3 * (39 - check) <= needed + 3


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    measure(Plane(), plane_images(), results=path)
    for change in ("UPDATE smoothed SET found = '{'", "UPDATE smoothed SET found = '[1]'"):
        with sqlite3.connect(path) as connection:
            connection.execute(change)
        with pytest.raises(InputError, match="the votes of an image in the results store cannot be read"):
            measure(Plane(), plane_images(), results=path)
    with pytest.raises(InputError, match="the certificates of a cell in the results store cannot be read"):
        Bracket.from_text('{"sigma": 1}')


def test_more_samples_after_a_look_start_anew(tmp_path: Path) -> None:
    data, path = plane_images(), tmp_path / "r.sqlite"
    first = measure(Plane(), data, results=path, attack=None, samples=100)
    second = measure(Plane(), data, results=path, attack=None, samples=300)
    assert set(first["condition"]) == {"sigma 0.3, 100 samples"}
    assert set(second["condition"]) == {"sigma 0.3, 300 samples"}
    with ResultsStore(path, read_only=True) as store:
        assert len(store.to_frame()) == len(first) + len(second)


def test_any_number_of_images_gives_each_the_same_radius() -> None:
    data = plane_images()
    with ResultsStore() as store:
        measure(Plane(), data, attack=None, images=5, results=store)
        measure(Plane(), data, attack=None, images=0, results=store)
        few, many = (bracket for _, bracket in brackets(store.to_frame(predictions=True)))
    assert list(many.proven[:5]) == list(few.proven)
    shuffled = data.subset(np.random.default_rng(0).permutation(len(data)))
    by_index = {}
    for images in (data, shuffled):
        with ResultsStore() as store:
            measure(Plane(), images, attack=None, results=store)
            ((row, bracket),) = brackets(store.to_frame(predictions=True))
        for index, radius in zip(row["indices"], bracket.proven, strict=True):
            assert by_index.setdefault(int(index), radius) == radius


def test_processes_that_share_the_images_find_what_one_finds(tmp_path: Path) -> None:
    data, path = plane_images(), tmp_path / "r.sqlite"
    whole = measure(Plane(), data)
    for share in ((1, 3), (0, 3), (2, 3)):
        assert measure(Plane(), data, results=path, share=share).empty
    together = measure(Plane(), data, results=path, budget=1e-9)
    facts = ["kind", "condition", "threat", "images", "correct", "status", "details"]
    assert together[facts].equals(whole[facts])


def test_a_budget_leaves_whole_images_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, path = plane_images(), tmp_path / "r.sqlite"
    clock = iter(np.arange(0.0, 1e6))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    frame = measure(Plane(), data, results=path, budget=1.0)
    assert set(frame["status"]) == {"bound so far"}
    assert 0 < frame["images"].iloc[0] < len(data)
    monkeypatch.undo()
    assert set(measure(Plane(), data, results=path)["status"]) == {"complete"}
    with pytest.raises(InputError, match="budget ended before the first image"):
        measure(Plane(), data, budget=1e-9)


class Hidden(Plane):
    """Breaks easily without noise, and does not pass gradients."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.detach())


def test_without_a_gradient_the_attack_says_so_and_the_certificate_stands() -> None:
    frame = measure(Hidden(), plane_images())
    assert set(frame["kind"]) == {"certificate"}
    assert "Not attacked: the model's logits carry no gradient" in frame["notes"].iloc[0]


def test_what_breaks_the_base_alone_is_no_attack_on_the_smoothed_classifier() -> None:
    """A thin spike of the wrong class at the image itself: the base is wrong there, the majority is not."""
    data = plane_images(6)
    images, labels = data.tensors()

    class Spike(Plane):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = super().forward(pixels)
            near = (pixels.flatten(1)[:, None] - images.flatten(1)).norm(dim=2).min(dim=1).values < 1e-3
            return torch.where(near[:, None], -logits, logits)

    base = Plane()
    assert (Spike()(images).argmax(1) != base(images).argmax(1)).all()
    spiked = QUICK(smooth(Spike(), 0.1), images, labels, [0.1])
    plain = QUICK(smooth(base, 0.1), images, labels, [0.1])
    assert torch.equal(spiked.radius, plain.radius)
    assert spiked.radius.isinf().any()


def test_the_attack_stays_in_its_ball_and_counts_only_what_predict_confirms() -> None:
    data = plane_images(20)
    images, labels = data.tensors()
    smoothed = smooth(Plane(), 0.3)
    found = QUICK(smoothed, images, labels, [0.2, 0.5], seed=2)
    broken = found.radius.isfinite()
    moved = (found.adversarial - images).flatten(1).norm(dim=1)
    assert (moved <= found.radius.clamp_max(0.5) + 1e-6)[broken].all()
    assert torch.equal(found.adversarial[~broken], images[~broken])
    assert ((found.prediction >= 0) == broken).all()
    again = smoothed.predict(found.adversarial[broken], samples=2000, seed=9)
    assert (again == found.prediction[broken]).double().mean() > 0.9
    for radii in ([], [0.5, 0.25], [0.0]):
        with pytest.raises(InputError, match="expected numbers above 0, rising"):
            QUICK(smoothed, images, labels, radii)
    with pytest.raises(InputError, match="copies of SmoothAdv is 0"):
        SmoothAdv(copies=0)


def test_models_compare_by_what_is_proven_for_them_and_attacks_on_bases_stay_apart(tmp_path: Path) -> None:
    data, path = plane_images(60), tmp_path / "r.sqlite"
    blunt = Plane()
    blunt.bias.data += 0.3 * blunt.weight.norm().detach()
    for name, model in (("sharp", Plane()), ("blunt", blunt)):
        evaluate(model, data, "clean", results=path, name=name, execution=QUIET)
        measure(model, data, results=path, name=name, radii=(0.25, 0.5), images=0)
    found = compare(path, baseline="sharp")
    figure = "proven l2 0.25 (sigma 0.3, 600 samples)"
    assert figure in found.summary.columns
    assert not [name for name in found.summary.columns if name.startswith("worst")]
    tests = found.tests[(found.tests["label"] == figure) & (found.tests["level"] == "headline")]
    assert tests["test"].tolist() == ["exact McNemar"]
    text = " ".join(found.to_text().split())
    assert "concerns the smoothed classifier alone" in text
    assert "proven l2 0.25" in text

    report = tmp_path / "report.html"
    write_report(report, path, baseline="sharp")
    page = report.read_text()
    assert 'id="certificates"' in page
    assert (
        page.count('aria-label="Certified accuracy over L2 radius, sigma 0.3, 600 samples: sharp from') == 1
    )
    table = bracket_table(found)
    assert table.columns == ["smoothed with", "radius", "images", "sharp", "blunt"]
    assert [row[1] for row in table.rows] == ["l2 0", "l2 0.25", "l2 0.5"]
    (lines,) = bracket_lines(found).values()
    for line in lines:
        assert len(line.y) == len(line.top) == len(line.x)
        assert all(low <= high for low, high in zip(line.y, line.top, strict=True))
        assert sorted(line.y, reverse=True) == list(line.y)


def test_radii_out_of_reach_have_no_row() -> None:
    frame = measure(Plane(), plane_images(), sigma=0.1, samples=100, radii=(0.1, 0.25), attack=None)
    assert frame["threat"].tolist() == ["", "l2 0.1"]  # 0.1 * Phi^-1(0.001 ** (1 / 100)) = 0.150


def test_brackets_read_back_and_count_contradictions() -> None:
    bracket = Bracket(0.25, (100,), 0.001, [0.3, -1.0, 0.0, 0.6], [0.25, None, 0.5])
    assert Bracket.from_text(bracket.to_text()).proven == [0.3, -1.0, 0.0, 0.6]
    assert bracket.contradictions == 1
    radii = np.array([0.0, 0.25, 0.5])
    assert bracket.certified(radii).tolist() == [0.75, 0.5, 0.25]
    assert bracket.withstood(radii).tolist() == [1.0, 0.75, 0.5]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("certify")
    names = tuple("abcdefghij")
    model = create_classifier("resnet10_slim").eval()
    test = load_dataset("cifar10-subset", "test").subset(range(4))
    labels = model(test.tensors()[0]).argmax(dim=1).numpy()
    images = ImageDataset("labelled", test.images, labels, names, np.arange(4))
    save_npz(folder / "data.npz", images, images)
    save_checkpoint(model, folder / "model", class_names=names, training={}, results={})
    return ["certify", "--checkpoint", str(folder / "model"), "--data", str(folder / "data.npz")]


def test_the_command_tells_the_time_first_and_what_it_proved(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "r.sqlite")
    run = [*command, "--sigma", "0.1", "--samples", "100", "--no-attack", "--results", path]
    assert main(run) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 images, 1 sigma, at most 800 passes at ")
    assert "sigma 0.1, 100 samples: accuracy in % at each L2 radius" in out
    assert "proves that the smoothed classifier" in out
    assert main(run) == 0
    assert "at most" not in capsys.readouterr().out  # nothing is left to do


def test_the_command_hardens_first(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.sqlite"
    run = ["--sigma", "0.25", "--samples", "100", "--images", "1", "--no-attack", "--results", str(path)]
    assert main([*command, *run, "--harden", "cifar10-64x9s2-restore", "--tell"]) == 0
    with ResultsStore(path, read_only=True) as store:
        frame = store.to_frame()
    assert set(frame["model"]) == {"model + cifar10-64x9s2-restore"}
    assert set(frame["condition"]) == {"sigma 0.25, 100 samples, told"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--sigma", "0"], "sigma is 0.0; give a number above 0"),
        (
            ["--sigma", "0.1", "--samples", "200", "100"],
            "expected one number, or the numbers at planned looks",
        ),
        (["--sigma", "0.1", "--budget", "0"], "budget is 0.0 minutes"),
        (["--sigma", "0.1", "--images", "-1"], "images is -1; give at least 0"),
        (["--sigma", "0.1", "--tell"], "no front-end of the model takes the noise's strength"),
        (["--sigma", "0.1", "--harden", "cifar10-64x9s2-restor"], "did you mean 'cifar10-64x9s2-restore'"),
        (["--sigma", "0.1", "--batch-size", "0"], "batch_size is 0; give at least 1"),
    ],
)
def test_mistakes_on_the_command_line_are_sentences(
    command: list[str], changes: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*command, *changes, "--results", str(tmp_path / "r.sqlite")]) == 2
    assert message in capsys.readouterr().err


def test_the_meaning_is_given_only_where_something_was_proven() -> None:
    frame = measure(Plane(), plane_images(), attack=None)
    assert "for all but 0.1 % of the images" in meaning_sentence(frame)
    assert meaning_sentence(frame.iloc[:0]) == ""
    assert math.isfinite(frame["seconds"].iloc[0])
