"""A study: its presets, the order of its parts, its cost, its tables."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from stripes import QUIET, section
from study_config import PRESETS, StudyConfig
from study_estimate import cost_line, estimate_costs

from warplca.configs import InputError, from_dict, import_file, load_config, preset_names
from warplca.data import load_dataset
from warplca.eval import ResultsStore, evaluate
from warplca.models import build_classifier

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STUDY = {
    "common": {
        "baseline": "none",
        "train_images": 120,
        "train": {"epochs": 1, "batch_size": 40, "validation_images": 20},
        "arms": {
            "warp-lca": {
                "model": {"frontend": section("warp-lca")},
                "train": {"frontend": {"lam_spread": 2.0}},
            },
            "none": {},
        },
        "plan": {
            "corruptions": ["gaussian_noise"],
            "severities": [3, 5],
            "corruption_images": 20,
            "clean_images": 30,
            "attacks": [{"attack": "fgsm", "threat": f"linf {n}/255"} for n in (1, 4)],
            "attack_images": 10,
        },
    },
    "judged": {
        "attacks": [{"attack": "suite:quick", "threat": "linf 2/255"}],
        "attack_images": 4,
        "clean_images": 4,
    },
    "parts": {
        "standard": {"seeds": [0, 1]},
        "pilots": {
            "measure_on": "validation",
            "arms": {"none": {}, "conv": {"model": {"frontend": section("conv")}}},
            "plan": {"attacks": []},
        },
    },
}


def study(**changes):
    return from_dict(StudyConfig, STUDY | changes, where="test")


def test_rounds_give_every_part_one_seed_before_any_gets_two():
    order = [(name, tuple(comparison.seeds)) for name, comparison in study().rounds()]
    assert order == [("standard", (0,)), ("pilots", (0,)), ("standard", (0, 1))]


def test_a_part_s_arms_replace_the_common_ones_and_its_other_keys_are_laid_over_them():
    parts = study(data="x.npz").comparisons()
    assert list(parts["pilots"].arms) == ["none", "conv"]
    assert parts["pilots"].plan.attacks == ()
    assert parts["pilots"].plan.severities == (3, 5)
    assert {comparison.data for comparison in parts.values()} == {"x.npz"}


def test_mistakes_name_the_part():
    with pytest.raises(
        InputError, match=r"part 'noise': unknown key 'train.epoch'|unknown key .* in part 'noise'"
    ):
        study(parts={"noise": {"train": {"epoch": 3}}})
    with pytest.raises(InputError, match="the study has no parts"):
        study(parts={})
    with pytest.raises(InputError, match="unknown part 'standart' in the study; did you mean 'standard'"):
        study().only(["standart"])
    with pytest.raises(InputError, match="test: the key 'parts' is missing"):
        from_dict(StudyConfig, {"common": {}}, where="test")
    with pytest.raises(InputError, match="measuring on them, need validation images"):
        study(parts={"pilots": {"measure_on": "validation", "train": {"validation_images": 0}}})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "study-full" else ())
        for name in preset_names(PRESETS)
    ],
)
def test_every_arm_of_every_preset_can_be_built(name):
    import_file(BENCHMARKS / "ingredients.py")
    for comparison in load_config(StudyConfig, name, PRESETS).comparisons().values():
        for arm in comparison.arms:
            model = comparison.run(arm, 0).model
            if model.backbone != "wrn_28_10":  # 36 million weights a time
                build_classifier(model)


def test_cost_of_fast_adversarial_training_is_estimated_too_and_that_of_held_out_images():
    part = {"train": {"loss": {"name": "fast"}}, "measure_on": "validation", "plan": {"attacks": []}}
    costs = estimate_costs(study(parts={"fast": part}).comparisons()["fast"])
    assert [(cost.training > 0.0, cost.attacks) for cost in costs] == [(True, 0.0)] * 2


def test_cost_is_estimated_for_every_arm_and_grows_with_the_work():
    comparison = study().comparisons()["standard"]
    costs = list(estimate_costs(comparison))
    assert [cost.arm for cost in costs] == ["warp-lca", "none"]
    assert all(min(cost.training, cost.images, cost.attacks) > 0.0 for cost in costs)
    assert costs[0].total > costs[1].total
    assert all(cost_line(cost, 2).startswith(f"{cost.arm}: training ") for cost in costs)


@pytest.fixture(scope="module")
def command():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("study")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.slow
def test_the_command_leaves_tables_verdicts_and_costs_and_does_nothing_twice(
    tmp_path, command, monkeypatch, capsys
):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    runs, out = tmp_path / "runs", tmp_path / "out"
    arguments = [
        "study.py",
        str(tmp_path / "tiny.yaml"),
        "--data",
        "cifar10-subset",
        "--runs",
        str(runs),
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command.main() == 0
    assert "cost of standard, one run after the other:\n  warp-lca: training" in capsys.readouterr().out
    text = (out / "tiny.md").read_text()
    assert (out / "tiny-standard.png").stat().st_size > 5000
    with ResultsStore(runs / "standard" / "results.sqlite", read_only=True) as store:
        frame = store.to_frame()
    assert len(frame) == 2 * 2 * (1 + 2 + 2)
    clean = frame[(frame["model"] == "none") & (frame["kind"] == "clean")]["accuracy"].mean()
    assert f"| none | 2 | {100 * clean:.1f} [" in text
    with ResultsStore(runs / "standard" / "verdicts.sqlite", read_only=True) as store:
        assert set(store.to_frame()["model"]) == {"warp-lca", "none"}
    assert not (runs / "pilots" / "verdicts.sqlite").exists()
    assert (runs / "standard" / "selection.sqlite").exists()
    assert not (runs / "pilots" / "selection.sqlite").exists()  # the plan has measured the held-out images
    with ResultsStore(runs / "pilots" / "results.sqlite", read_only=True) as store:
        scores = store.to_frame().groupby("model")["accuracy"].mean()
    exported = json.loads((runs / "pilots" / "best" / "config.json").read_text())
    assert exported["warplca"]["training"]["arm"] == scores.idxmax()
    costs = json.loads((runs / "standard" / "warp-lca-0" / "costs.json").read_text())
    assert 0.0 < costs["active"] < 1.0
    stamps = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/checkpoint/*")}
    assert command.main() == 0
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/*/checkpoint/*")} == stamps
    assert (out / "tiny.md").read_text() == text


def test_tables_wait_for_the_baseline_of_a_part_that_is_still_measured(tmp_path, command, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    part = study().comparisons()["standard"]
    (tmp_path / "standard").mkdir()
    model = build_classifier(part.run("warp-lca", 0).model).eval()
    store = tmp_path / "standard" / "results.sqlite"
    evaluate(
        model,
        load_dataset("cifar10-subset", "test"),
        "clean",
        results=store,
        name="warp-lca",
        execution=QUIET,
    )
    arguments = ["--data", "cifar10-subset", "--tables", "--runs", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["study.py", str(tmp_path / "tiny.yaml"), *arguments])
    assert command.main() == 0
    assert "## standard\n\nNo results yet." in (tmp_path / "tiny.md").read_text()


def test_tables_name_what_has_not_been_run(tmp_path, command, monkeypatch):
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "study.py",
            "study-small",
            "--data",
            "x.npz",
            "--tables",
            "--runs",
            str(tmp_path),
            "--out",
            str(tmp_path),
        ],
    )
    assert command.main() == 0
    assert "## fast\n\nNo results yet." in (tmp_path / "study-small.md").read_text()


def test_a_mistake_ends_in_one_sentence(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "study-smal", "--data", "x.npz"])
    assert command.main() == 2
    assert capsys.readouterr().err.startswith("error: unknown study preset 'study-smal'")


def test_changes_may_stand_anywhere_on_the_command_line(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    parse = importlib.import_module("study").parse
    for line in (
        "s.yaml a=1 b=2 --data D --parts x y",
        "s.yaml --data D --parts x a=1 y b=2",
        "s.yaml --data D a=1 b=2",
    ):
        args = parse(line.split())
        assert (args.study, args.data, sorted(args.overrides)) == ("s.yaml", "D", ["a=1", "b=2"])
        assert args.parts == (["x", "y"] if "--parts" in line else [])


def test_a_part_without_runs_keeps_what_was_written_of_it(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    write_study = importlib.import_module("study_report").write_study
    text = write_study("mine", study(), tmp_path / "runs", tmp_path).read_text()
    assert text.count("No results yet.") == 2
    kept = text.replace("## pilots\n\nNo results yet.", "## pilots\n\nThree networks.\n\n| a | b |")
    (tmp_path / "mine.md").write_text(kept)
    assert write_study("mine", study(), tmp_path / "runs", tmp_path).read_text() == kept
