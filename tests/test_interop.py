"""Classifiers in other people's toolboxes, as they are."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from stripes import section

from warplca.data import load_dataset
from warplca.models import create_classifier, save_checkpoint

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def toolboxes():
    return runpy.run_path(str(EXAMPLES / "other_toolboxes.py"))


@pytest.mark.parametrize("arm", [None, "conv", "lca", "warp-lca"])
def test_foolbox_attacks_every_arm_as_it_is(toolboxes, arm):
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", section(arm)).eval()
    images, _ = load_dataset("cifar10-subset", "test").tensors(range(8))
    with torch.no_grad():
        labels = model(images).argmax(1)  # attack what it answers
    adversarial = toolboxes["foolbox_pgd"](model, images, labels)
    epsilon = toolboxes["EPSILON"]
    assert 0.5 * epsilon < (adversarial - images).abs().max() <= epsilon + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    cross_entropy = torch.nn.functional.cross_entropy
    with torch.no_grad():
        assert cross_entropy(model(adversarial), labels) > cross_entropy(model(images), labels)


def test_the_example_tells_what_is_left_or_missing(toolboxes, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    save_checkpoint(create_classifier("resnet10_slim", section("warp-lca")), tmp_path / "c")
    monkeypatch.setattr(sys, "argv", ["other_toolboxes.py", str(tmp_path / "c")])
    toolboxes["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("foolbox: ")
    assert "left at Linf 4/255, largest change 4.00/255" in lines[0]
    assert [line.split(":")[0] for line in lines] == ["foolbox", "torchattacks", "art"]


def test_timm_scripts_run_with_warplca_models(tmp_path, monkeypatch, capsys):
    """The wrapper runs any script as it is, with its own arguments."""
    (tmp_path / "script.py").write_text(
        "import sys, timm\nassert __name__ == '__main__'\n"
        "print(sys.argv[1:], timm.create_model(sys.argv[2], num_classes=3).num_classes)\n"
    )
    arguments = ["timm_script.py", str(tmp_path / "script.py"), "--model", "warplca_resnet10_slim"]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(EXAMPLES / "timm_script.py"), run_name="__main__")
    assert capsys.readouterr().out == "['--model', 'warplca_resnet10_slim'] 3\n"
