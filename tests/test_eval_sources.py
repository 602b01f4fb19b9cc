"""Corrupted images from files or the generator: same figures, never mixed, every mismatch refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stripes import QUIET
from torch import Tensor

from warplca.configs.errors import InputError
from warplca.configs.plan import EvaluationPlan
from warplca.data import EXTRA_CORRUPTIONS, STANDARD_CORRUPTIONS, ImageDataset, write_corruptions
from warplca.eval import CorruptionSource, ResultsStore, compare, evaluate
from warplca.eval.measure.planning import (
    CHUNK_BYTES,
    CorruptionTask,
    corrupted_chunks,
    corruption_names,
    split_positions,
)

PLAN = EvaluationPlan(("brightness", "gaussian_noise"), (2, 4), 15, batch_size=4)


def bright(images: Tensor) -> Tensor:
    means = images.flatten(1).mean(dim=1)
    return -(means[:, None] - torch.tensor([0.3, 0.5, 0.7])).square()


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=40)
    base = np.array([60, 128, 190])[labels] + rng.normal(0, 30, size=40)
    images = base[:, None, None, None] + rng.normal(0, 15, size=(40, 32, 32, 3))
    return ImageDataset("grey", images.clip(0, 255).astype(np.uint8), labels, ("low", "mid", "high"))


@pytest.fixture(scope="module")
def folder(dataset: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_corruptions(dataset, folder, names=("brightness", "gaussian_noise", "fog"))
    return folder


def test_files_and_generator_give_the_same_predictions(dataset: ImageDataset, folder: Path) -> None:
    made, read = ResultsStore(), ResultsStore()
    evaluate(bright, dataset, PLAN, results=made, execution=QUIET)
    evaluate(
        bright, dataset, PLAN, results=read, corruptions=CorruptionSource(folder=folder), execution=QUIET
    )
    left, right = (store.to_frame(predictions=True) for store in (made, read))
    assert all(np.array_equal(a, b) for a, b in zip(left["predictions"], right["predictions"], strict=True))
    assert set(left["source"]) == {"", "generator"}
    note = json.loads((folder / "corruptions.json").read_text())
    expected = {
        name: f"files {note['files'][name]['sha256'][:8]}" for name in ("brightness", "gaussian_noise")
    }
    corrupted = right[right["kind"] == "corruption"]
    assert dict(zip(corrupted["condition"], corrupted["source"], strict=True)) == expected


def test_rows_of_two_sources_stand_apart_and_are_never_compared(dataset: ImageDataset, folder: Path) -> None:
    store = ResultsStore()
    evaluate(bright, dataset, PLAN, results=store, name="a", execution=QUIET)
    evaluate(
        bright,
        dataset,
        PLAN,
        results=store,
        name="b",
        corruptions=CorruptionSource(folder=folder),
        execution=QUIET,
    )
    comparison = compare(store, baseline="a")
    assert set(comparison.cells["kind"]) == {"clean"}
    assert len(comparison.left_out) == 4
    evaluate(
        bright,
        dataset,
        PLAN,
        results=store,
        name="a",
        corruptions=CorruptionSource(folder=folder),
        execution=QUIET,
    )
    assert len(store.to_frame()) == 5 + 5 + 4
    assert compare(store, baseline="a").left_out == ()


def test_files_without_a_note_count_as_official_after_their_checksum(
    dataset: ImageDataset, folder: Path, tmp_path: Path
) -> None:
    for name in ("labels.npy", "fog.npy"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    plan = EvaluationPlan(("fog",), (1,))
    with pytest.raises(InputError, match=r"fog\.npy was altered"):
        evaluate(bright, dataset, plan, corruptions=CorruptionSource(folder=tmp_path), execution=QUIET)


def test_a_folder_that_a_plan_does_not_need_is_refused(dataset: ImageDataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="measures no single corruption, so that nothing is read from"):
        evaluate(bright, dataset, "clean", corruptions=CorruptionSource(folder=tmp_path), execution=QUIET)


def test_a_subset_reads_its_own_rows(dataset: ImageDataset, folder: Path) -> None:
    part = dataset.subset(np.array([33, 4, 18, 9]))
    plan = EvaluationPlan(("fog",), (5,))
    made, read = ResultsStore(), ResultsStore()
    evaluate(bright, part, plan, results=made, execution=QUIET)
    evaluate(bright, part, plan, results=read, corruptions=CorruptionSource(folder=folder), execution=QUIET)
    left, right = (store.to_frame(predictions=True)["confidences"].iloc[-1] for store in (made, read))
    np.testing.assert_array_equal(left, right)


def test_chains_are_generated_beside_files(dataset: ImageDataset, folder: Path) -> None:
    plan = EvaluationPlan(("fog", "fog+brightness"), (3,))
    frame = evaluate(bright, dataset, plan, corruptions=CorruptionSource(folder=folder), execution=QUIET)
    assert frame["source"].tolist()[2] == "generator"
    assert frame["source"].tolist()[1].startswith("files ")


def test_a_missing_file_is_named_before_any_work(dataset: ImageDataset, folder: Path) -> None:
    def never(images: Tensor) -> Tensor:
        raise AssertionError("the model was called")

    with pytest.raises(InputError, match=r"lacks snow\.npy"):
        evaluate(
            never,
            dataset,
            EvaluationPlan(("snow",)),
            corruptions=CorruptionSource(folder=folder),
            execution=QUIET,
        )
    other = ImageDataset("other", dataset.images, (dataset.labels + 1) % 3, dataset.class_names)
    with pytest.raises(InputError, match="labels"):
        evaluate(
            never,
            other,
            EvaluationPlan(("fog",)),
            corruptions=CorruptionSource(folder=folder),
            execution=QUIET,
        )


def test_approximate_jpeg_is_a_source_of_its_own(
    dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from warplca.eval.measure import planning

    monkeypatch.setattr(planning, "agreement", lambda name: "approximate" if "jpeg" in name else "exact")
    plan = EvaluationPlan(("jpeg_compression", "contrast+jpeg_compression", "contrast"), (3,), 4)
    frame = evaluate(bright, dataset, plan, execution=QUIET)
    approximate = "generator, approximate JPEG"
    assert frame["source"].tolist() == ["", approximate, approximate, "generator"]


def test_groups_and_aliases_are_spelled_out() -> None:
    assert corruption_names(EvaluationPlan(("standard",))) == list(STANDARD_CORRUPTIONS)
    assert corruption_names(EvaluationPlan(("extra", "fog"))) == [*EXTRA_CORRUPTIONS, "fog"]
    assert len(corruption_names(EvaluationPlan(("standard", "all")))) == 19
    assert corruption_names(EvaluationPlan(("elastic+fog",))) == ["elastic_transform+fog"]


def test_chunks_are_whole_batches_that_cover_everything() -> None:
    positions = np.arange(1000)[::-1]
    parts = split_positions(positions, image_bytes=CHUNK_BYTES // 100, batch_size=32)
    assert [len(part) for part in parts] == [96] * 10 + [40]
    np.testing.assert_array_equal(np.concatenate(parts), positions)
    assert [len(part) for part in split_positions(positions, CHUNK_BYTES, 700)] == [700, 300]


def test_the_stream_makes_chunks_only_when_asked(dataset: ImageDataset) -> None:
    tasks = [CorruptionTask("contrast", severity, 0, np.arange(3)) for severity in (1, 5)]
    stream = corrupted_chunks(dataset, tasks)
    assert next(stream).std() > next(stream).std()
    with pytest.raises(StopIteration):
        next(stream)
