"""`warplca evaluate` with attacks: suites, budgets, and mistakes in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from warplca.cli.main import main
from warplca.data import ImageDataset, load_dataset, save_npz
from warplca.models import create_classifier, save_checkpoint

NAMES = tuple("abcdefghij")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command for a small untrained classifier on images that it mostly classifies rightly."""
    folder = tmp_path_factory.mktemp("cli")
    model = create_classifier("resnet10_slim").eval()
    test = load_dataset("cifar10-subset", "test").subset(range(8))
    labels = model(test.tensors()[0]).argmax(dim=1).numpy()
    images = ImageDataset("labelled", test.images, labels, NAMES, np.arange(8))
    save_npz(folder / "data.npz", images, images)
    save_checkpoint(model, folder / "model", class_names=NAMES, training={}, results={})
    return [
        "evaluate",
        "--checkpoint",
        str(folder / "model"),
        "--data",
        str(folder / "data.npz"),
        "--plan",
        "clean",
    ]


def test_a_budget_is_labelled_and_the_same_command_goes_on(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ["--results", str(tmp_path / "r.sqlite")]
    plan = ["attacks=[{attack: fgsm, threat: linf 8/255}, {attack: bpda-smooth, threat: linf 8/255}]"]
    assert main([*command, *results, "--budget", "1e-9", *plan]) == 0
    out = capsys.readouterr().out
    assert "fgsm linf 8/255 (not run): The budget ended before this attack." in out
    assert main([*command, *results, *plan]) == 0
    out = capsys.readouterr().out
    assert (
        "bpda-smooth linf 8/255 (not applicable): Not applicable: the model holds no iterative layer" in out
    )
    assert "not assessed: only fgsm were run, without adaptive attacks" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--budget", "0"], "budget is 0.0 minutes; expected a number above 0"),
        (["attacks=[{attack: pgd, threat: linf 0}]"], "epsilon is 0.0; expected a finite number above 0"),
        (["attacks=[{attack: pgd, threat: linf -8/255}]"], "epsilon is -0.03"),
        (
            ["attacks=[{attack: suite:quik, threat: linf 8/255}]"],
            "unknown attack suite 'quik'; did you mean 'quick'",
        ),
        (["attacks=[{attack: pdg, threat: linf 8/255}]"], "unknown attack 'pdg'; did you mean 'pgd'"),
        (["attacks=[{atack: pgd, threat: linf 8/255}]"], "atack"),
    ],
)
def test_mistakes_are_one_sentence(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], message: str
) -> None:
    assert main([*command, "--results", str(tmp_path / "r.sqlite"), *changes]) == 2
    assert message in capsys.readouterr().err


def test_changes_to_the_plan_may_stand_before_and_after_options(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["clean_images=4", "--results", str(tmp_path / "r.sqlite"), "batch_size=2"]
    assert main([*command, *changes, "--name", "late", "seed=3"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "4"
    assert main([*command, *changes, "--nam", "late", "clean_imges=4"]) == 2
    assert "clean_imges" in capsys.readouterr().err
