"""The comparison from end to end on real images, small enough for a test."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from stripes import section

from warplca.cli.main import main
from warplca.configs import ComparisonConfig, EvaluationPlan, InputError, from_dict
from warplca.configs.load import to_plain
from warplca.configs.plan import AttackSetting
from warplca.data import load_dataset
from warplca.eval import ResultsStore
from warplca.frontend import Equaliser, build_frontend
from warplca.models import create_classifier, load_checkpoint
from warplca.pipeline.comparison import run_comparison
from warplca.pipeline.examples import collect_examples
from warplca.pipeline.first_look import first_look

CONFIG = {
    "baseline": "conv",
    "train_images": 100,
    "train": {"epochs": 1, "batch_size": 40, "validation_images": 20},
    "arms": {
        "none": {},
        **{arm: {"model": {"frontend": section(arm)}} for arm in ("conv", "lca", "warp-lca")},
    },
    "plan": {
        "corruptions": ["gaussian_noise", "contrast"],
        "severities": [3],
        "corruption_images": 40,
        "clean_images": 60,
        "attacks": [{"attack": "fgsm", "threat": "linf 4/255"}],
        "attack_images": 10,
    },
    "selection": {"corruptions": ["gaussian_blur"], "severities": [3]},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    arguments = ["quickstart", "--config", str(config), "--out", str(folder / "run")]
    assert main(arguments) == 0
    return folder / "run", arguments


def test_everything_promised_is_there(finished):
    run, _ = finished
    for arm in CONFIG["arms"]:
        assert len(pd.read_csv(run / f"{arm}-0" / "curves.csv")) == 1
    page = (run / "report.html").read_text()
    assert 'src="http' not in page
    assert all(arm in page for arm in CONFIG["arms"])
    with ResultsStore(run / "results.sqlite", read_only=True) as store:
        frame = store.to_frame()
    assert len(frame) == 4 * (1 + 2 + 1)
    assert set(frame["images"]) == {60, 40, 10}


def test_the_exported_card_holds_the_chosen_arms_own_figures(finished):
    run, _ = finished
    card = json.loads((run / "best" / "config.json").read_text())["warplca"]
    arm = card["training"]["arm"]
    assert card["model"]["frontend"]["name"] == arm
    with ResultsStore(run / "results.sqlite", read_only=True) as store:
        frame = store.to_frame()
    clean = frame[(frame["model"] == arm) & (frame["kind"] == "clean")]["accuracy"].item()
    assert float(card["results"]["clean"]) == pytest.approx(clean, abs=1e-4)
    assert to_plain(load_checkpoint(run / "best").config)["frontend"] == card["model"]["frontend"]


def test_the_same_command_again_does_no_work_twice_and_says_the_same(finished, capsys):
    run, arguments = finished
    before = {path: path.stat().st_mtime_ns for path in run.glob("*-0/checkpoint/*")}
    table = ResultsStore(run / "results.sqlite", read_only=True).to_frame()
    capsys.readouterr()
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("*-0/checkpoint/*")} == before
    pd.testing.assert_frame_equal(ResultsStore(run / "results.sqlite", read_only=True).to_frame(), table)
    assert "Accuracy in %" in capsys.readouterr().out


def test_tables_name_the_baseline_first_and_then_the_arms_in_their_order(finished, capsys):
    _, arguments = finished
    assert main(arguments) == 0
    table = capsys.readouterr().out.partition("Accuracy in %")[2].partition("Images behind")[0]
    named = [line.split()[0] for line in table.splitlines() if line.split()[:1]]
    others = [arm for arm in CONFIG["arms"] if arm != CONFIG["baseline"]]
    assert [name for name in named if name in CONFIG["arms"]] == [CONFIG["baseline"], *others]


def test_the_exported_checkpoint_follows_the_choice(finished):
    run, arguments = finished
    card = run / "best" / "config.json"
    chosen = json.loads(card.read_text())["warplca"]["training"]["arm"]
    other = next(arm for arm in CONFIG["arms"] if arm != chosen)
    card.write_text(card.read_text().replace(f'"arm": "{chosen}"', f'"arm": "{other}"'))
    assert main(arguments) == 0
    assert json.loads(card.read_text())["warplca"]["training"]["arm"] == chosen


def test_unassessed_attacks_are_never_called_trusted(finished, capsys):
    run, arguments = finished
    page = " ".join((run / "report.html").read_text().split())
    assert page.count("not assessed: only fgsm were run") == 1  # one verdict, said once of all arms
    main(arguments)
    assert "accuracies under attack are upper bounds" in capsys.readouterr().out


def test_another_configuration_is_not_mixed_into_a_run(finished, capsys):
    _, arguments = finished
    assert main([*arguments, "train.learning_rate=0.05"]) == 2
    assert (
        "holds a run with another configuration (different: train; train.learning_rate)"
        in capsys.readouterr().err
    )


def test_pictures_show_what_an_equaliser_makes_of_an_image_and_of_a_reconstruction():
    torch.manual_seed(0)
    layer = build_frontend(section("lca", output="reconstruction"))
    stages = {"none": [Equaliser()], "lca": [layer, Equaliser()]}
    models = {arm: create_classifier("resnet10_slim", parts).eval() for arm, parts in stages.items()}
    for parts in stages.values():
        parts[-1].usual.fill_(0.5)
    test = load_dataset("cifar10-subset", "test")
    rows = collect_examples(models, test, EvaluationPlan(), count=2)
    image, _ = test.tensors([int((test.labels == test.labels.min()).argmax())])
    for arm, parts in stages.items():
        seen = image if arm == "none" else layer(image)
        wanted = parts[-1](seen).clamp(0, 1)[0].permute(1, 2, 0).detach()
        np.testing.assert_allclose(dict(rows[0].pictures)[f"{arm}: restored"], wanted, atol=1e-6)


def test_examples_say_who_is_right_and_whether_the_attack_succeeded():
    test = load_dataset("cifar10-subset", "test")
    one = test.subset([0])
    truth, wrong = int(one.labels[0]), (int(one.labels[0]) + 1) % 10
    models = {name: create_classifier("resnet10_slim", "none").eval() for name in ("right", "other", "third")}
    for name, model in models.items():
        head = model.get_classifier()
        with torch.no_grad():
            head.weight.mul_(1e-3)
            head.bias.zero_()[truth if name == "right" else wrong] = 1.0  # no small attack moves it
    plan = EvaluationPlan(
        corruptions=("fog",), severities=(2,), attacks=(AttackSetting("fgsm", "linf 1/255"),)
    )
    (row,) = collect_examples(models, one, plan, count=1)[:1]
    names = one.class_names
    marked = f"✓ right\n✗ {names[wrong]}: other, third"
    assert row.title == f"{names[truth].capitalize()} (image {one.indices[0]})"
    assert [caption for caption, _ in row.pictures[:4]] == [
        f"clean\n{marked}",
        f"fog 2\n{marked}",
        "fgsm on right, linf 1/255: failed\n✓ right",
        "what the attack changed, times 10",
    ]
    known = {"other": models["other"]}  # nothing to attack
    (alone,) = collect_examples(known, one, plan, count=1)[:1]
    assert not any("attack" in caption or "fgsm" in caption for caption, _ in alone.pictures)


def test_bad_comparisons_are_refused(tmp_path):
    with pytest.raises(InputError, match="baseline is 'convolution'; give one of the arms: none, conv"):
        from_dict(ComparisonConfig, {**CONFIG, "baseline": "convolution"}, where="test")
    with pytest.raises(
        InputError, match="unknown key 'model.frontnd' in arm 'conv'; did you mean 'model.frontend'"
    ):
        from_dict(ComparisonConfig, {**CONFIG, "arms": {"conv": {"model": {"frontnd": 1}}}}, where="test")
    too_many = from_dict(ComparisonConfig, {**CONFIG, "train_images": 5000}, where="test")
    with pytest.raises(InputError, match="train_images is 5000; cifar10-subset"):
        run_comparison(too_many, tmp_path, progress=False)


def test_the_first_look_tells_and_draws_what_it_measured(tmp_path):
    lines = []
    table = first_look(tmp_path, images=10, say=lines.append, progress=False)
    assert list(table.columns) == ["alone", "with front-end"]
    assert table.loc["gaussian_noise", "alone"] < table.loc["gaussian_noise", "with front-end"]
    assert lines[1].split() == ["alone", "behind", "cifar10"]
    for line, row in zip(lines[2:6], table.itertuples(), strict=True):
        told = [float(word) for word in line.split() if re.fullmatch(r"\d+\.\d", word)]
        assert told == [round(100 * row[1], 1), round(100 * row[2], 1)]
    assert max(map(len, lines[:6])) <= 80
    assert (tmp_path / "first-look.png").is_file()
