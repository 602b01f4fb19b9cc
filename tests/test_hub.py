"""A checkpoint folder is a Hub repository: written, read back, and with its evidence in the card."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from stripes import QUIET, section

from warplca.configs import AttackSetting, EvaluationPlan, InputError
from warplca.data import load_dataset
from warplca.eval import evaluate
from warplca.models import (
    Classifier,
    checkpoint,
    create_classifier,
    load_checkpoint,
    read_card,
    save_checkpoint,
)
from warplca.models.card import model_card, summary
from warplca.pipeline.exports import collect_evidence

PLAN = EvaluationPlan(
    corruptions=("gaussian_noise", "contrast"),
    severities=(2, 4),
    corruption_images=20,
    attacks=(AttackSetting("fgsm", "linf 2/255"),),
    attack_images=10,
    clean_images=40,
)


def classifier():
    torch.manual_seed(0)
    return create_classifier("resnet10_slim", section("warp-lca")).eval()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    model = classifier()
    store = tmp_path_factory.mktemp("results") / "r.sqlite"
    frame = evaluate(
        model, load_dataset("cifar10-subset", "test"), PLAN, results=store, name="ours", execution=QUIET
    )
    return model, store, frame


class FakeApi:
    """The two calls of the Hub's client that pushing needs, into a local folder."""

    root: Path

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, private=None, exist_ok=False):
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return type("Url", (), {"repo_id": repo_id})

    def upload_folder(self, *, repo_id, folder_path, **rest):
        for file in Path(folder_path).iterdir():
            (self.root / repo_id / file.name).write_bytes(file.read_bytes())
        return f"https://hub/{repo_id}"


def test_push_and_from_pretrained_keep_logits_and_evidence(measured, tmp_path, monkeypatch):
    model, store, _ = measured
    model.about = {"class_names": list("abcdefghij"), "evidence": collect_evidence(store, model)}
    FakeApi.root = tmp_path
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", FakeApi)
    assert model.push_to_hub("someone/robust") == "https://hub/someone/robust"
    asked = []

    def download(repo_id, *, allow_patterns, revision, **rest):
        asked.append((repo_id, sorted(allow_patterns), revision))
        return str(tmp_path / repo_id)

    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    again = Classifier.from_pretrained("someone/robust", revision="main")
    files = ["README.md", "SHA256SUMS", "config.json", "model.safetensors"]
    assert asked == [("someone/robust", files, "main")]
    assert sorted(path.name for path in (tmp_path / "someone/robust").iterdir()) == files
    x = load_dataset("cifar10-subset", "test").tensors(range(4))[0]
    assert torch.equal(again(x), model(x))
    assert again.about["evidence"] == model.about["evidence"]
    again.save_pretrained(tmp_path / "third")
    third = Classifier.from_pretrained(tmp_path / "third")
    assert torch.equal(third(x), model(x))
    assert third.about["class_names"] == list("abcdefghij")


def test_what_is_neither_folder_nor_repository_is_explained(tmp_path):
    with pytest.raises(InputError, match=r"there is no checkpoint folder .*nowhere; give a folder, or a Hub"):
        Classifier.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(InputError, match="give a folder, or a Hub repository as 'user/name'"):
        Classifier.from_pretrained("name")


def test_the_card_shows_every_measured_cell_and_settings(measured, tmp_path):
    model, store, frame = measured
    evidence = collect_evidence(store, model)
    assert len(evidence["cells"]) == len(frame)
    save_checkpoint(model, tmp_path / "c", evidence=evidence)
    text = (tmp_path / "c" / "README.md").read_text()
    clean = frame[frame["kind"] == "clean"].iloc[0]
    interval = f"{100 * clean['low']:.1f} to {100 * clean['high']:.1f} %"
    assert f"| clean | {100 * clean['accuracy']:.1f} % | {interval} | 40 |" in text
    assert "| fgsm, linf 2/255 |" in text
    noise = frame[frame["condition"] == "gaussian_noise"].sort_values("severity")["accuracy"]
    assert "| corruption | severity 2 | severity 4 |" in text
    assert "| gaussian_noise | " + " | ".join(f"{100 * a:.1f} %" for a in noise) + " |" in text
    assert "Mean over these 4 cells, 20 images each" in text
    assert evidence["fingerprint"] in text
    assert "cifar10" in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "timm"
    results = front["model-index"][0]["results"]
    assert results[0]["metrics"][0]["value"] == pytest.approx(clean["accuracy"], abs=1e-4)
    assert len(results) == 2  # clean and attacked; corruptions are in the table


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (None, "Not assessed for gradient masking"),
        ("trusted", "\ntrusted"),
        (
            {"standard, linf 8/255": "not trusted because x"},
            "| standard, linf 8/255 | not trusted because x |",
        ),
    ],
)
def test_the_verdict_stands_beside_adversarial_figures(verdict, expected):
    cell = {"kind": "attack", "condition": "pgd", "threat": "linf 8/255", "accuracy": 0.1, "images": 10}
    config = {
        "warplca": {
            "version": "1",
            "torch": "2",
            "timm": "1",
            "model": {"backbone": "resnet18", "frontend": {"name": "none"}},
            "class_names": [],
            "training": {"loss": {"name": "trades", "beta": 6.0, "steps": None}},
            "results": {},
            "evidence": {"cells": [cell], "verdict": verdict, "anything else": "kept"},
        },
        "num_classes": 10,
        "pretrained_cfg": {"input_size": [3, 32, 32]},
    }
    for text in (model_card(config), summary(config)):
        assert expected in text
        assert "| pgd, linf 8/255 | 10.0 % |  | 10 |" in text
        assert "| anything else | kept |" in text
        assert "| loss.name | trades |\n| loss.beta | 6.0 |\n" in text
        assert "steps" not in text


def test_evidence_is_of_this_very_network(measured, tmp_path):
    model, store, _ = measured
    other = classifier()
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with pytest.raises(InputError, match="has no results of this network"):
        collect_evidence(store, other)
    with pytest.raises(InputError, match="there is no results store"):
        collect_evidence(tmp_path / "none.sqlite", model)
    with pytest.raises(InputError, match="unknown model 'our' in .*did you mean 'ours'"):
        collect_evidence(store, model, name="our")
    assert json.loads(json.dumps(collect_evidence(store, model))) == collect_evidence(store, model)


def test_results_are_carried_along_unless_replaced(tmp_path):
    model = classifier()
    save_checkpoint(model, tmp_path / "a", class_names=list("abcdefghij"), results={"clean": "61 %"})
    loaded = load_checkpoint(tmp_path / "a")
    save_checkpoint(loaded, tmp_path / "b")
    assert (tmp_path / "a" / "config.json").read_text() == (tmp_path / "b" / "config.json").read_text()
    save_checkpoint(loaded, tmp_path / "b", results={"clean": "62 %"})
    assert read_card(tmp_path / "b")["warplca"]["results"] == {"clean": "62 %"}
