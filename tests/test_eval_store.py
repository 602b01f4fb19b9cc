"""The results store: nothing lost, nothing mixed, every failure a sentence."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warplca.configs.errors import InputError
from warplca.eval.compare.statistics import wilson_interval
from warplca.eval.results.database import pack, unpack
from warplca.eval.results.records import COMPLETE, CellResult, Condition, ImageSet, cell_key
from warplca.eval.results.store import ResultsStore

LABELS = np.array([3, 1, 4, 1, 5, 9, 2], dtype=np.int16)
IMAGES = ImageSet("digits", "abc", np.array([10, 11, 2, 30, 4, 5, 600], dtype=np.int32), LABELS)
PREDICTIONS = np.array([3, 1, 4, 0, 0, -1, 2], dtype=np.int16)
NOISE = Condition("corruption", "gaussian_noise", 3, source="generator")


def cell(**changes: object) -> CellResult:
    facts: dict[str, object] = {
        "model": "conv",
        "model_seed": 0,
        "fingerprint": "f1",
        "condition": NOISE,
        "image_set": IMAGES,
        "seed": 0,
        "predictions": PREDICTIONS,
        "confidences": np.linspace(0.2, 1.0, 7, dtype=np.float32),
        "seconds": 1.5,
        "notes": "a note",
    }
    return CellResult(**(facts | changes))  # type: ignore[arg-type]


def test_a_cell_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.sqlite"
    with ResultsStore(path) as store:
        store.save(cell())
    assert [file.name for file in path.parent.iterdir()] == ["results.sqlite"]
    with ResultsStore(path, read_only=True) as store:
        (row,) = store.to_frame(predictions=True).to_dict("records")
    assert (row["model"], row["condition"], row["severity"]) == ("conv", "gaussian_noise", 3)
    assert (row["images"], row["correct"], row["notes"], row["seconds"]) == (7, 4, "a note", 1.5)
    assert (row["accuracy"], row["low"], row["high"]) == pytest.approx(wilson_interval(4, 7))
    np.testing.assert_array_equal(row["predictions"], PREDICTIONS)
    np.testing.assert_array_equal(row["labels"], LABELS)
    np.testing.assert_array_equal(row["indices"], IMAGES.indices)
    np.testing.assert_allclose(row["confidences"], np.linspace(0.2, 1.0, 7), atol=1 / 65535)


@given(st.lists(st.integers(-1, 32767), min_size=1, max_size=200))
def test_predictions_survive_packing(values: list[int]) -> None:
    np.testing.assert_array_equal(unpack(pack(np.array(values), "<i2"), "<i2"), values)


def test_an_image_set_is_distinguished_by_any_change() -> None:
    order = np.argsort(IMAGES.indices)
    others = [
        ImageSet("other", "abc", IMAGES.indices, LABELS),
        ImageSet("digits", "abd", IMAGES.indices, LABELS),
        ImageSet("digits", "abc", IMAGES.indices[order], LABELS[order]),
        ImageSet("digits", "abc", IMAGES.indices, LABELS[::-1].copy()),
    ]
    assert len({images.key for images in (IMAGES, *others)}) == 5


def test_cells_differing_in_one_key_column_live_side_by_side() -> None:
    smaller = ImageSet("digits", "abc", IMAGES.indices[:6], LABELS[:6])
    changes: list[dict[str, object]] = [
        {},
        {"model": "lca"},
        {"model_seed": 1},
        {"seed": 1},
        {"condition": Condition("corruption", "gaussian_noise", 4, source="generator")},
        {"condition": Condition("corruption", "gaussian_noise", 3, source="files")},
        {"condition": Condition("attack", "pgd", threat="linf 8/255")},
        {"condition": Condition("attack", "pgd", threat="linf 4/255")},
        {"image_set": smaller, "predictions": PREDICTIONS[:6], "confidences": np.full(6, 0.5)},
    ]
    store = ResultsStore()
    for change in changes * 2:
        store.save(cell(**change))
    assert len(store.to_frame()) == len(changes)


def test_a_repeated_cell_is_replaced_not_counted_twice() -> None:
    store = ResultsStore()
    store.save(cell())
    store.save(cell(predictions=LABELS))
    assert store.to_frame()["correct"].tolist() == [7]


def test_rows_of_another_network_are_refused_or_deleted_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    store = ResultsStore()
    store.save(cell())
    store.save(cell(model="lca"))
    store.save(cell(model_seed=1))
    with caplog.at_level(logging.WARNING):
        with pytest.raises(
            InputError, match=r"has 1 results of another network under the name 'conv'.*--replace"
        ):
            store.refuse_other("conv", 0, "f2")
        with pytest.raises(InputError, match="of another network under the same name; nothing was changed"):
            store.save(cell(fingerprint="f2"))
        assert len(store.to_frame()) == 3
        assert store.discard_other("conv", 0, "f2") == 1
    assert "deleted 1 results of another network under the name 'conv'" in caplog.text

    def found(name: str, model_seed: int) -> object:
        return store.find(list(cell_key(name, model_seed, NOISE, IMAGES, 0).values()))

    assert found("conv", 0) is None
    assert found("conv", 1) == (COMPLETE, "")
    assert found("lca", 0) == (COMPLETE, "")
    store.refuse_other("lca", 0, "f1")
    assert store.discard_other("lca", 0, "f1") == 0


def test_a_merge_never_replaces_the_rows_of_another_network(tmp_path: Path) -> None:
    first, second = ResultsStore(), ResultsStore(tmp_path / "second.sqlite")
    first.save(cell())
    second.save(cell(model="lca"))
    second.save(cell(fingerprint="f2"))
    with pytest.raises(InputError, match="of another network"):
        first.merge(second)
    assert first.to_frame()["model"].tolist() == ["conv"]


def test_merge_and_frame_round_trip(tmp_path: Path) -> None:
    first, second = ResultsStore(), ResultsStore(tmp_path / "second.sqlite")
    first.save(cell())
    second.save(cell(model="lca"))
    second.save(cell(predictions=LABELS))
    second.close()
    assert first.merge(tmp_path / "second.sqlite") == 2
    frame = first.to_frame(predictions=True)
    assert dict(zip(frame["model"], frame["correct"], strict=True)) == {"lca": 4, "conv": 7}
    again = ResultsStore.from_frame(frame).to_frame(predictions=True)
    stable = [column for column in frame.columns if column != "created"]
    pd.testing.assert_frame_equal(again[stable], frame[stable])


def test_from_frame_needs_predictions() -> None:
    store = ResultsStore()
    store.save(cell())
    with pytest.raises(InputError, match=r"lacks the columns predictions.*to_frame\(predictions=True\)"):
        ResultsStore.from_frame(store.to_frame())


def test_predictions_must_be_one_for_each_image() -> None:
    with pytest.raises(InputError, match=r"predictions of shape \(3,\) for 7 images"):
        ResultsStore().save(cell(predictions=LABELS[:3]))


def test_an_empty_store_gives_an_empty_table() -> None:
    frame = ResultsStore().to_frame(predictions=True)
    assert frame.empty
    assert {"accuracy", "predictions"} <= set(frame.columns)


def test_two_writers_share_a_file(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "r.sqlite") as first, ResultsStore(tmp_path / "r.sqlite") as second:
        first.save(cell())
        second.save(cell(model="lca"))
        assert len(first.to_frame()) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model,accuracy\nconv,0.5\n" * 100, "no warplca results store or is damaged"),
        (b"SQLite format 3\x00" + b"\x07" * 4080, "no warplca results store or is damaged"),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_left_alone(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "notes.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        ResultsStore(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == content


def test_a_strangers_database_and_another_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(InputError, match="no warplca results store: choose another path"):
        ResultsStore(path)
    ours = tmp_path / "ours.sqlite"
    ResultsStore(ours).close()
    with sqlite3.connect(ours) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(
        InputError, match="schema version 99, expected 2: use the warplca version that wrote it"
    ):
        ResultsStore(ours)


def test_a_truncated_store_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    with ResultsStore(path) as store:
        for seed in range(40):
            store.save(cell(seed=seed))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="damaged"), ResultsStore(path) as store:
        store.to_frame(predictions=True)


def _fill(store: ResultsStore) -> None:
    for seed in range(1, 500):
        store.save(cell(seed=seed))


def test_a_full_disk_keeps_finished_cells(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "results.sqlite") as store:
        store.save(cell())
        pages = store._database._connection.execute("PRAGMA page_count").fetchone()[0]
        store._database._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(InputError, match="no space left") as error:
            _fill(store)
        assert "finished cells are safe; free space and run again" in str(error.value)
        before = len(store.to_frame())
        store._database._connection.execute("PRAGMA max_page_count = 100000")
        store.save(cell(model="lca"))
        assert len(store.to_frame()) == before + 1


def test_read_only_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist: give the path that `evaluate` wrote"):
        ResultsStore(tmp_path / "absent.sqlite", read_only=True)
    path = tmp_path / "results.sqlite"
    ResultsStore(path).close()
    with ResultsStore(path, read_only=True) as store, pytest.raises(InputError, match="cannot write results"):
        store.save(cell())


def test_a_path_that_cannot_hold_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot use .* as results store"):
        ResultsStore(tmp_path / "file" / "results.sqlite")
    with pytest.raises(InputError, match="choose a path in a folder you may write to"):
        ResultsStore(tmp_path)


def test_a_store_opens_once_another_process_has_written(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    ResultsStore(path).close()
    writer = sqlite3.connect(path, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, writer.rollback).start()
    with ResultsStore(path) as store:
        store.save(cell())
    writer.close()
