"""Classifiers inside the package: found by name everywhere, as good as their cards say."""

import re

import pytest
import torch
from huggingface_hub import ModelCard

from warplca.cli.main import main
from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.frontend.pretrained import SHIPPED as FRONTENDS
from warplca.models import Classifier, load_checkpoint, open_predictor, read_card, shipped_checkpoints
from warplca.models.checkpoint import SHIPPED as MODELS


@pytest.mark.parametrize("name", shipped_checkpoints())
def test_its_accuracy_is_that_of_its_card(name):
    model = load_checkpoint(name)
    images, labels = load_dataset("cifar10-subset", "test").tensors(range(300))
    with torch.no_grad():
        correct = float((model(images).argmax(1) == labels).double().mean())
    measured = [cell for cell in read_card(name)["warplca"]["evidence"]["cells"] if cell["kind"] == "clean"]
    assert correct == pytest.approx(measured[0]["accuracy"], abs=0.08)  # three standard errors of 300 images


CARDS = sorted(card for folder in (MODELS, FRONTENDS) for card in folder.glob("*/README.md"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_its_card_is_one_that_the_hub_takes(card):
    data = ModelCard.load(card, ignore_metadata_errors=False).data
    assert (data.license, data.datasets) == ("mit", ["uoft-cs/cifar10"])


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_it_names_no_path_of_the_machine_that_trained_it(card):
    files = [card, *card.parent.glob("*.json")]
    assert not [
        line for file in files for line in file.read_text().splitlines() if re.search(r"[ \"]/\w", line)
    ]


def test_a_name_serves_wherever_a_folder_does(capsys, tmp_path):
    name = shipped_checkpoints()[0]
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = load_checkpoint(name)(image)
    assert torch.equal(Classifier.from_pretrained(name)(image), expected)
    assert open_predictor(name).answer(image)[0] == pytest.approx(expected.detach().numpy(), abs=1e-4)
    assert main(["info", name]) == 0
    assert "The files match SHA256SUMS." in capsys.readouterr().out


def test_a_folder_of_the_user_s_comes_before_a_shipped_one(tmp_path, monkeypatch):
    name = shipped_checkpoints()[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="holds no config.json"):
        load_checkpoint(name)


def test_an_unknown_one_names_those_there_are():
    with pytest.raises(InputError, match=rf"or a shipped one: {shipped_checkpoints()[0]}"):
        load_checkpoint("cifar10-slim-warp-lcq")
