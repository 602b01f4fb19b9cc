"""Suites of attacks in an evaluation: the suite's own figures, resumed, within a budget, and reported in full."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from stripes import QUIET, QUIET_SUITE
from torch import Tensor, nn

from warplca.attacks import SUITES, as_attack, as_suite, run_suite, suite_attacks
from warplca.configs.errors import InputError
from warplca.configs.plan import PLANS, AttackSetting, EvaluationPlan
from warplca.data import ImageDataset
from warplca.eval import Execution, ResultsStore, compare, evaluate, write_report
from warplca.eval.report.tables import suite_table
from warplca.eval.results.records import choose_images
from warplca.eval.results.suites import attack_sentences

THREAT = "linf 0.06"
PLAN = EvaluationPlan(
    attacks=(AttackSetting("fgsm", THREAT), AttackSetting("suite:quick", THREAT)),
    attack_images=24,
    batch_size=8,
)
SUITE = EvaluationPlan(attacks=PLAN.attacks[1:], attack_images=24, batch_size=8)


class Small(nn.Module):
    """A fixed convolutional classifier that counts its calls."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 4 * 5, 3))
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return 20 * self.layers(images - 0.5)


def noise() -> ImageDataset:
    """Random images with the labels that the classifier gives them, a few of them wrong."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 9, 11, 3), dtype=np.uint8)
    with torch.no_grad():
        labels = Small()(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).argmax(dim=1).numpy()
    labels[::9] = (labels[::9] + 1) % 3
    return ImageDataset("noise", images, labels, ("a", "b", "c"))


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return noise()


def attacked(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["kind"] == "attack"].reset_index(drop=True)


def test_a_suite_row_says_what_the_suite_says(dataset: ImageDataset) -> None:
    model = Small().eval()
    row = attacked(evaluate(model, dataset, SUITE, execution=QUIET)).iloc[0]
    images, labels = dataset.tensors(choose_images(dataset.labels, 24, seed=0))
    result = run_suite(model, images, labels, THREAT, "quick", batch_size=8, session=QUIET_SUITE)
    assert (row["condition"], row["threat"], row["images"], row["status"]) == (
        "suite:quick",
        THREAT,
        24,
        "complete",
    )
    assert row["accuracy"] == pytest.approx(result.robust_accuracy)
    assert 0 < row["accuracy"] < result.clean_accuracy < 1
    assert row["verdict"] == str(result.verdict)
    broken = sum(int(part.rsplit(" of ")[0].rsplit(" ")[1]) for part in row["attribution"].split(", "))
    assert broken == int(result.success.sum())
    assert row["attribution"].startswith(f"clean {int((~result.correct).sum())}, fgsm ")


def test_a_second_run_computes_nothing(dataset: ImageDataset, tmp_path: Path) -> None:
    model = Small().eval()
    first = evaluate(model, dataset, PLAN, results=tmp_path / "r.sqlite", execution=QUIET)
    calls = model.calls
    second = evaluate(model, dataset, PLAN, results=tmp_path / "r.sqlite", execution=QUIET)
    assert model.calls == calls
    pd.testing.assert_frame_equal(first, second)


def test_an_interrupted_suite_goes_on_after_its_last_batch(dataset: ImageDataset) -> None:
    whole_model, model, store = Small().eval(), Small().eval(), ResultsStore()
    whole = evaluate(whole_model, dataset, SUITE, execution=QUIET)

    def interrupt(*_: object) -> None:
        if model.calls > 400:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, dataset, SUITE, results=store, execution=QUIET)
    handle.remove()
    model.calls = 0
    resumed = evaluate(model, dataset, SUITE, results=store, execution=QUIET)
    assert model.calls < whole_model.calls - 200
    same = ["condition", "correct", "status", "verdict", "attribution", "mean_confidence"]
    pd.testing.assert_frame_equal(resumed[same], whole[same])


def test_a_budget_gives_a_labelled_bound_that_a_later_run_lowers(
    dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, store = Small().eval(), ResultsStore()
    clock = SimpleNamespace(monotonic=itertools.count(0.0, 10.0).__next__)
    monkeypatch.setattr("warplca.configs.execution.time", clock)
    cut = attacked(
        evaluate(model, dataset, SUITE, results=store, execution=Execution(budget=0.5, progress=False))
    ).iloc[0]
    monkeypatch.undo()
    assert cut["status"] == "bound so far"
    assert cut["verdict"] == "not trusted because The budget ended before the masking checks."
    comparison = compare(store, baseline="Small")
    assert "(bound so far: the budget ended)" in comparison.verdicts["Small"]
    assert "their figures are bounds so far" in comparison.to_text()
    whole = attacked(evaluate(model, dataset, SUITE, results=store, execution=QUIET)).iloc[0]
    assert whole["status"] == "complete"
    assert whole["accuracy"] < cut["accuracy"]
    assert (
        whole["attribution"]
        == attacked(evaluate(Small().eval(), dataset, SUITE, execution=QUIET))["attribution"][0]
    )


def test_what_the_budget_leaves_out_has_no_figure(dataset: ImageDataset) -> None:
    frame = attacked(
        evaluate(Small().eval(), dataset, PLAN, execution=Execution(budget=1e-9, progress=False))
    )
    assert frame["status"].tolist() == ["not run", "not run"]
    assert frame["accuracy"].isna().all()
    assert frame["notes"][0] == "The budget ended before this attack."
    with pytest.raises(InputError, match="budget is 0 minutes; expected a number above 0"):
        evaluate(Small(), dataset, PLAN, execution=Execution(budget=0))


@pytest.fixture
def mixed(dataset: ImageDataset) -> ResultsStore:
    """Two models, to one of which an attack of the plan does not apply."""
    store = ResultsStore()
    plan = EvaluationPlan(
        attacks=(AttackSetting("fgsm", THREAT), AttackSetting("bpda-calls", THREAT)), attack_images=24
    )

    class Rounded(Small):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images + ((images * 8).round() / 8 - images).detach())

    for name, model in {"open": Small(), "rounded": Rounded()}.items():
        evaluate(model, dataset, plan, results=store, name=name, execution=QUIET)
    return store


def test_an_attack_that_does_not_apply_is_a_named_row(mixed: ResultsStore) -> None:
    frame = attacked(mixed.to_frame())
    assert frame["status"].tolist() == ["complete", "not applicable", "complete", "complete"]
    row = frame.iloc[1]
    assert np.isnan(row["accuracy"])
    assert row["notes"] == "Not applicable: the model cuts its gradient nowhere; use another attack."
    assert any(
        "bpda-calls linf 0.06 (not applicable)" in line
        for line in attack_sentences(frame[frame["model"] == "open"])
    )


def test_the_worst_case_and_the_comparison_cope_with_it(mixed: ResultsStore, tmp_path: Path) -> None:
    comparison = compare(mixed, baseline="open")
    frame = attacked(mixed.to_frame()).set_index(["model", "condition"])
    summary = comparison.summary.set_index("model")
    assert summary.at["open", f"worst {THREAT}"] == frame.at[("open", "fgsm"), "accuracy"]
    of_rounded = frame.loc["rounded", "accuracy"]
    assert summary.at["rounded", f"worst {THREAT}"] <= of_rounded.min()
    assert "bpda-calls" not in set(comparison.tests["condition"])
    write_report(tmp_path / "r.html", mixed, baseline="open")
    assert "not applicable" in (tmp_path / "r.html").read_text()


def test_a_threat_under_which_a_model_met_no_attack_has_no_headline(dataset: ImageDataset) -> None:
    class Closed(Small):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).detach()

    store, plan = ResultsStore(), EvaluationPlan(attacks=PLAN.attacks[:1], attack_images=24)
    for name, model in {"open": Small(), "closed": Closed()}.items():
        evaluate(model, dataset, plan, results=store, name=name, execution=QUIET)
    comparison = compare(store, baseline="open")
    assert not [column for column in comparison.summary.columns if column.startswith("worst")]
    assert comparison.left_out == (f"worst {THREAT} (no attack ran on closed)",)
    note = attacked(store.to_frame())["notes"].iloc[1]
    assert "carry no gradient back to the pixels" in note
    assert "use one without gradients, such as 'square'" in note


def test_surrogates_attack_by_transfer_and_change_the_suite(dataset: ImageDataset) -> None:
    model, store, other = Small().eval(), ResultsStore(), Small(seed=1).train()
    evaluate(model, dataset, SUITE, results=store, execution=QUIET)
    frame = evaluate(model, dataset, SUITE, results=store, surrogates={"other": other}, execution=QUIET)
    details = json.loads(store.to_frame(predictions=True)["details"].iloc[-1])
    assert "transfer-from-other" in [name for name, *_ in details["broken"]]
    assert other.training
    calls = model.calls
    again = evaluate(model, dataset, SUITE, results=store, surrogates={"other": other}, execution=QUIET)
    assert model.calls == calls
    pd.testing.assert_frame_equal(frame, again)
    with torch.no_grad():
        other.layers[0].bias.add_(0.1)  # pyright: ignore[reportAttributeAccessIssue]
    evaluate(model, dataset, SUITE, results=store, surrogates={"other": other}, execution=QUIET)
    assert model.calls > calls


def test_the_report_puts_verdicts_first_and_says_which_attack_broke_how_many(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    store = ResultsStore()
    evaluate(Small(), dataset, SUITE, results=store, name="conv", execution=QUIET)
    write_report(tmp_path / "r.html", store, baseline="conv")
    page = (tmp_path / "r.html").read_text()
    row = attacked(store.to_frame()).iloc[0]
    assert page.index("Can I trust it?") < page.index('<section id="words">')
    assert row["attribution"] in page
    assert "Worst case per image over all attacks of a suite" in page
    assert "loss rises along the attack" in page
    assert f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]" in page


def test_the_suites_figure_stands_beside_that_of_pgd_alone(dataset: ImageDataset) -> None:
    store = ResultsStore()
    evaluate(Small().eval(), dataset, SUITE, results=store, name="conv", execution=QUIET)
    table = suite_table(compare(store, baseline="conv"))
    images, labels = dataset.tensors(choose_images(dataset.labels, 24, seed=0))
    plain = {name: as_attack(name) for name in ("fgsm", "pgd-10")}
    alone = run_suite(Small().eval(), images, labels, THREAT, plain, batch_size=8, session=QUIET_SUITE)
    left = sum(name not in ("clean", *plain) for name in alone.broken_by)
    assert table is not None
    assert [row[table.columns.index("pgd-10")] for row in table.rows] == [f"{100 * left / 24:.1f}"]
    assert left < int(alone.correct.sum())


def test_suites_are_named_and_presets_say_how_many_images() -> None:
    single = as_suite("pgd")
    assert (list(single.attacks), single.checked) == (["pgd"], False)
    for name in SUITES:
        suite = as_suite(f"suite:{name}")
        assert suite.checked
        assert list(suite.attacks) == list(suite_attacks(name))
    with pytest.raises(InputError, match="unknown attack suite 'standart'; did you mean 'standard'"):
        as_suite("suite:standart")
    with pytest.raises(InputError, match="unknown attack 'pdg'; did you mean 'pgd'"):
        as_suite("pdg")
    counts = [PLANS[name].attack_images for name in ("attacks-quick", "attacks", "attacks-all")]
    assert counts == [100, 500, None]
    assert all(as_suite(setting.attack).attacks for plan in PLANS.values() for setting in plan.attacks)


# Each attempt is a fresh process, killed with SIGKILL after a random time; the driver reports what each left behind.
DRIVER = """
import json, os, random, signal, sqlite3, sys, time
import torch
from warplca.eval import ResultsStore, evaluate
sys.path.insert(0, sys.argv[2])
from stripes import QUIET
from test_eval_suite import SUITE, Small, noise

torch.set_num_threads(1)
folder, data = sys.argv[1], noise()

def run(path):
    evaluate(Small().eval(), data, SUITE, results=path, execution=QUIET)

def left(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT count(*) FROM outcomes").fetchone()[0]

def table(path):
    with ResultsStore(path, read_only=True) as store:
        frame = store.to_frame(predictions=True)
    columns = ["condition", "correct", "status", "verdict", "attribution", "mean_confidence"]
    return frame[columns].assign(answers=[p.tolist() for p in frame["predictions"]]).to_numpy().tolist()

random.seed(0)
kept, path = [0], f"{folder}/killed.sqlite"
for attempt in range(8):
    child = os.fork()
    if child == 0:
        run(path)
        os._exit(0)
    time.sleep(random.uniform(0.05, 0.6))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if os.path.exists(path):
        kept.append(left(path))
run(path)
run(f"{folder}/whole.sqlite")
print(json.dumps({"kept": kept, "killed": table(path), "whole": table(f"{folder}/whole.sqlite"), "all": left(path)}))
"""


@pytest.mark.slow
def test_kills_lose_no_finished_batch_and_change_no_figure(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout
    outcome = json.loads(output.splitlines()[-1])
    assert outcome["killed"] == outcome["whole"]
    assert outcome["kept"] == sorted(outcome["kept"])
    assert any(0 < count < outcome["all"] for count in outcome["kept"])
