"""The report: self-contained, honest, readable without eyes, and strict about what it is given."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from warplca.configs.errors import InputError
from warplca.data import ImageDataset
from warplca.eval import (
    Example,
    ResultsStore,
    RunRecord,
    compare,
    corruption_example,
    difference_picture,
    write_report,
)
from warplca.eval.compare.wording import headline, lead
from warplca.eval.report.charts import corruption_accuracies, difference_maps, epsilon_lines, severity_lines
from warplca.eval.report.figures import model_styles
from warplca.eval.report.pictures import atom_mosaic, picture_address
from warplca.eval.results.records import CellResult, Condition, ImageSet

IMAGES = 200
MODELS = {"none": 0, "conv": 20, "lca": 19, "warp-lca": 60}
VOID = {"meta", "img", "br", "link", "input", "path", "use", "line", "rect", "circle"}


def save(store: ResultsStore, model: str, condition: Condition, right: int) -> None:
    images = ImageSet("toy", "f", np.arange(IMAGES, dtype=np.int32), np.arange(IMAGES, dtype=np.int16) % 10)
    correct = np.arange(IMAGES) < right
    predictions = np.where(correct, images.labels, (images.labels + 1) % 10)
    store.save(
        CellResult(model, 0, "f", condition, images, 0, predictions, np.full(IMAGES, 0.7), notes="a <note>")
    )


@pytest.fixture(scope="module")
def store() -> ResultsStore:
    store = ResultsStore()
    for model, gain in MODELS.items():
        save(store, model, Condition("clean", "clean"), 150)
        for name in ("fog", "gaussian_noise", "contrast+fog"):
            for severity in (3, 5):
                save(
                    store,
                    model,
                    Condition("corruption", name, severity, source="generator"),
                    120 - 9 * severity + gain,
                )
        for attack in ("fgsm", "pgd"):
            for epsilon, left in ((2, 60), (8, 0)):
                right = left + 5 * (attack == "fgsm")
                save(store, model, Condition("attack", attack, threat=f"linf {epsilon}/255"), right)
    return store


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(store: ResultsStore, folder: Path, **extras: object) -> str:
    title = {"title": extras.pop("title")} if "title" in extras else {}
    run = RunRecord(**extras)  # type: ignore[arg-type]
    write_report(folder / "report.html", store, baseline="conv", run=run, **title)  # type: ignore[arg-type]
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def full(store: ResultsStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    epochs = np.arange(1, 6)
    curves = {
        "conv": pd.DataFrame({"epoch": epochs, "train_loss": 1 / epochs, "val_accuracy": epochs / 6}),
        "warp-lca": pd.DataFrame(
            {"epoch": epochs, "train_loss": 1 / epochs, "active_fraction": 0.1 / epochs}
        ),
    }
    return report(
        store,
        tmp_path_factory.mktemp("report"),
        title="A title & more",
        facts={"Training": "one seed <only>"},
        atoms={"warp-lca": rng.normal(size=(12, 3, 5, 7))},
        examples=[Example("A dog", [("clean", rng.random((8, 6, 3))), ("active units", rng.random((4, 3)))])],
        curves=curves,
    )


def test_the_page_is_well_formed_and_reaches_for_nothing_outside(full: str) -> None:
    page = Page(full)
    assert page.open == []
    for tag, attributes in page.attributes:
        assert tag not in {"script", "link", "iframe"}
        for name in ("src", "href", "xlink:href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:image/png;base64,"))
    assert "url(http" not in full
    assert "@import" not in full


def test_ids_are_unique_and_every_reference_resolves(full: str) -> None:
    page = Page(full)
    ids = [attributes["id"] for _, attributes in page.attributes if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes.get("href") or attributes.get("xlink:href") for _, attributes in page.attributes]
    targets += [f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", full)]
    assert {target[1:] for target in targets if target} <= set(ids)


def test_pictures_and_figures_have_words(full: str) -> None:
    page = Page(full)
    images = [attributes for tag, attributes in page.attributes if tag == "img"]
    assert len(images) == 3
    assert all(attributes.get("alt") for attributes in images)
    figures = [attributes for _, attributes in page.attributes if attributes.get("role") == "img"]
    assert all(attributes.get("aria-label") for attributes in figures)
    assert full.count("<svg") == len(figures) == 1 + 3 + 3 + 3


def test_every_section_and_fact_is_there(full: str) -> None:
    text = " ".join(Page(full).text.split())
    for words in (
        "A title & more",
        "one seed <only>",
        "Can the adversarial figures be trusted?",
        "not assessed: only fgsm, pgd were run",
        "contrast, then fog",
        "Dictionary atoms",
        "12 atoms of 5 x 7 pixels",
        "Worst cells first",
        "warp-lca minus conv",
        "linf, worst of all attacks",
        "these trained networks, not the methods",
        "a <note>",
        "fog 5",
    ):
        assert words in text


def test_sections_without_material_are_left_out(store: ResultsStore, tmp_path: Path) -> None:
    text = Page(report(store, tmp_path)).text
    for words in (
        "Dictionary atoms",
        "Example images",
        "Training",
        "Worst case per image over all attacks",
        "All checks for gradient masking",
    ):
        assert words not in text.replace("Training seeds", "")
    assert "Accuracy under attack" in text


def test_a_clean_evaluation_of_one_model_makes_a_report(tmp_path: Path) -> None:
    store = ResultsStore()
    save(store, "conv", Condition("clean", "clean"), 150)
    text = Page(report(store, tmp_path)).text
    assert "Only 'conv' was measured: there is nothing to compare it with." in text
    assert "Accuracy under" not in text
    assert "Can the adversarial figures be trusted?" not in text


def test_the_headline_says_what_is_significant_and_what_is_not(store: ResultsStore) -> None:
    comparison = compare(store, baseline="conv")
    assert lead(comparison) == (
        "Significantly better than 'conv': 'warp-lca' under corruption. "
        "Significantly worse: 'none' under corruption."
    )
    clean, corrupted, *attacked = headline(comparison)
    assert (
        clean
        == "On clean images 'conv' classifies 75.0 % correctly; no significant difference: 'none', 'lca', 'warp-lca'."
    )
    assert "significantly better: 'warp-lca' +20.0 points" in corrupted
    assert "no significant difference: 'lca'" in corrupted
    assert all("no significant difference: 'none', 'lca', 'warp-lca'" in sentence for sentence in attacked)


def test_equal_models_get_no_flattery(store: ResultsStore) -> None:
    twins = ResultsStore()
    for model in ("conv", "copy"):
        save(twins, model, Condition("clean", "clean"), 100)
    assert (
        lead(compare(twins, baseline="conv"))
        == "No model differs significantly from 'conv' in any headline figure."
    )
    worse = compare(store, baseline="warp-lca")
    assert lead(worse).startswith(
        "No model is significantly better than 'warp-lca'. Significantly worse: 'none'"
    )


def test_a_lead_under_attacks_that_nothing_has_judged_is_no_robustness() -> None:
    store = ResultsStore()
    for model, correct in (("conv", 20), ("lca", 90)):
        save(store, model, Condition("clean", "clean"), 150)
        save(store, model, Condition("attack", "fgsm", threat="linf 4/255"), correct)
    found = compare(store, baseline="conv")
    caveat = " Not every figure under attack has been found trustworthy: stronger attacks may undo these differences."
    claim = "Significantly better than 'conv': 'lca' under the strongest attack run at linf 4/255."
    assert lead(found) == claim + caveat
    verdicts = {"verdict": "trusted", "condition": "suite:quick"}
    assert lead(replace(found, cells=found.cells.assign(**verdicts))) == claim
    doubted = found.cells.assign(**verdicts)
    doubted.loc[doubted["model"] == "lca", "verdict"] = "not trusted because the loss is flat."
    assert lead(replace(found, cells=doubted)) == claim + caveat


def test_lines_and_maps_carry_the_numbers(store: ResultsStore) -> None:
    comparison = compare(store, baseline="conv")
    (conv, *_) = severity_lines(comparison)["fog"]
    assert (conv.model, conv.x) == ("conv", [3.0, 5.0])
    assert conv.y == pytest.approx([100 * (93 + 20) / IMAGES, 100 * (75 + 20) / IMAGES])
    lines = epsilon_lines(comparison)
    assert list(lines) == [("linf", "worst case"), ("linf", "fgsm"), ("linf", "pgd")]
    worst = lines["linf", "worst case"][0]
    assert worst.x == pytest.approx([0, 2 / 255, 8 / 255])
    assert worst.y == pytest.approx([75.0, 30.0, 0.0])
    maps = difference_maps(comparison, corruption_accuracies(comparison))
    assert [heat.title for heat in maps] == ["none minus conv", "lca minus conv", "warp-lca minus conv"]
    name, cells = maps[2].rows[0]
    assert (name, [cell.text for cell in cells]) == ("gaussian noise", ["+20", "+20"])
    assert all(cell.significant for cell in cells)
    assert not any(cell.significant for _, row in maps[1].rows for cell in row)


def test_models_keep_one_colour_and_differ() -> None:
    styles = model_styles(f"model {number}" for number in range(30))
    assert len({(style.colour, style.marker) for style in styles.values()}) == 30


def _decode(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


def test_pictures_survive_as_png() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, size=(9, 7, 3))
    np.testing.assert_array_equal(_decode(picture_address(pixels / 255, "it")), pixels)
    flat = _decode(picture_address(np.full((3, 4), 7.0), "it"))
    assert flat.shape == (3, 4, 3)
    assert (flat == flat[0, 0]).all()


def test_the_mosaic_places_every_atom() -> None:
    atoms = np.zeros((6, 3, 4, 5))
    for number in range(6):
        atoms[number, number % 3, 1, 2] = (-1) ** number * 3.0
    mosaic = _decode(atom_mosaic(atoms, columns=3))
    assert mosaic.shape == (2 * 5 - 1, 3 * 6 - 1, 4)
    for number in range(6):
        tile = mosaic[5 * (number // 3) :, 6 * (number % 3) :][:4, :5]
        assert tile[1, 2, number % 3] == (0 if number % 2 else 255)
        assert tile[0, 0].tolist() == [128, 128, 128, 255]
    assert mosaic[4, 0, 3] == 0
    grey = _decode(atom_mosaic(atoms[:, :1]))
    assert (grey[..., 0] == grey[..., 2]).all()


def test_difference_picture_multiplies_and_clips() -> None:
    image = np.full((2, 2, 3), 0.5)
    assert difference_picture(image, image + 0.02) == pytest.approx(0.7)
    assert difference_picture(image, image - 0.2) == pytest.approx(0.0)


def test_corruption_example_shows_each_corruption() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3), dtype=np.uint8)
    dataset = ImageDataset("toy", images, np.array([0, 1]), ("cat", "dog"), np.array([7, 9]))
    example = corruption_example(dataset, 1, ["fog", "contrast"], severity=4)
    assert example.title == "Dog (image 9) under each corruption, severity 4"
    assert [caption for caption, _ in example.pictures] == ["clean", "fog", "contrast"]
    assert np.asarray(example.pictures[2][1]).std() < np.asarray(example.pictures[0][1]).std()


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        (
            {"examples": [Example("A", [("b", np.zeros((3, 4, 2)))])]},
            r"picture 'b' of 'A' has shape \(3, 4, 2\)",
        ),
        (
            {"examples": [Example("A", [("b", np.full((3, 4, 3), 255.0))])]},
            "ranges from 255 to 255: expected RGB in",
        ),
        ({"examples": [Example("A", [("b", np.full((3, 4), np.nan))])]}, "holds NaN or infinity"),
        ({"atoms": {"lca": np.zeros((4, 2, 3, 3))}}, r"atoms of shape \(4, 2, 3, 3\)"),
        ({"atoms": {"lca": np.full((4, 3, 3, 3), np.inf)}}, "atoms hold NaN or infinity"),
        ({"curves": {"lca": pd.DataFrame({"loss": [1.0]})}}, "curves of 'lca' have no column 'epoch'"),
    ],
)
def test_bad_material_is_refused_and_the_old_report_stays(
    store: ResultsStore, tmp_path: Path, extras: dict[str, object], message: str
) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(InputError, match=message):
        report(store, tmp_path, **extras)
    assert (tmp_path / "report.html").read_text() == "old"


def test_a_place_that_cannot_be_written_is_named(store: ResultsStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        write_report(tmp_path / "file" / "report.html", store, baseline="conv")
