"""Each command does its job on real images, the way a user chains them."""

import numpy as np
import pytest
import torch

from warplca.cli.main import main
from warplca.data import corrupt, load_dataset, save_npz
from warplca.frontend import WarpLCA


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A .npz file with a few of the embedded images."""
    path = tmp_path_factory.mktemp("data") / "small.npz"
    train, test = load_dataset("cifar10-subset", "train"), load_dataset("cifar10-subset", "test")
    save_npz(path, train.subset(range(120)), test.subset(range(30)))
    return str(path)


def test_prime_train_evaluate_compare_export(small_data, tmp_path, capsys):
    layer = [
        f"frontend.{size}" for size in ("features=8", "kernel_size=5", "iterations=2", "predictor_depth=3")
    ]
    plan = [
        f"plan.{stage}=2"
        for stage in ("dictionary_steps", "predictor_steps", "unrolled_steps", "solve_cycles")
    ]
    primed = tmp_path / "primed"
    sizes = ["images=120", "plan.batch_size=16", "plan.target_images=16"]
    assert main(["prime", "--data", small_data, "--out", str(primed), *layer, *plan, *sizes]) == 0
    assert "warp_energy" in capsys.readouterr().out
    assert isinstance(WarpLCA.from_pretrained(primed), WarpLCA)

    run = tmp_path / "run"
    model = [
        "model.frontend.features=8",
        "model.frontend.kernel_size=5",
        "model.frontend.iterations=2",
        f"model.frontend.weights={primed}",
    ]
    recipe = [
        "train.epochs=1",
        "train.frontend.frozen_epochs=0",
        "train.batch_size=50",
        "train.validation_images=0",
    ]
    assert main(["train", "--data", small_data, "--out", str(run), *model, *recipe]) == 0

    results = tmp_path / "results.sqlite"
    evaluate = [
        "evaluate",
        "--data",
        small_data,
        "--results",
        str(results),
        "--plan",
        "clean",
        "corruptions=[fog]",
    ]
    for name in ("first", "second"):
        assert (
            main([*evaluate, "severities=[2]", "--checkpoint", str(run / "checkpoint"), "--name", name]) == 0
        )
    assert "fog" in capsys.readouterr().out

    report = tmp_path / "report.html"
    compare = ["compare", "--results", str(results), "--baseline", "first", "--report", str(report)]
    assert main(compare) == 0
    assert "no significant difference" in capsys.readouterr().out
    assert "second" in report.read_text()

    assert main(["export", "--checkpoint", str(run / "checkpoint"), "--out", str(tmp_path / "m.onnx")]) == 0
    assert "max logit difference" in capsys.readouterr().out
    folder = tmp_path / "again"
    arguments = [
        "export",
        "--checkpoint",
        str(run / "checkpoint"),
        "--format",
        "safetensors",
        "--out",
        str(folder),
    ]
    assert main(arguments) == 0
    assert main(["info", str(folder)]) == 0
    assert "resnet10_slim with warp-lca" in capsys.readouterr().out


def test_corrupt_writes_what_the_library_makes(small_data, tmp_path):
    arguments = [
        "corrupt",
        "--data",
        small_data,
        "--out",
        str(tmp_path),
        "--only",
        "contrast",
        "--severity",
        "2",
        "4",
    ]
    assert main(arguments) == 0
    written = np.load(tmp_path / "contrast.npy")
    test = load_dataset(small_data, "test")
    assert len(written) == 2 * len(test)
    expected = corrupt(test.images, "contrast", severity=4, seed=0, indices=test.indices)
    np.testing.assert_array_equal(written[len(test) :], expected)


def test_a_checkpoint_keeps_its_answers_through_the_command_line(small_data, tmp_path):
    from warplca.models import load_checkpoint

    arguments = ["train", "--config", "conv", "--data", small_data, "--out", str(tmp_path), "train.epochs=1"]
    assert main([*arguments, "train.validation_images=20"]) == 0
    model = load_checkpoint(tmp_path / "checkpoint")
    images, _ = load_dataset(small_data, "test").tensors()
    with torch.no_grad():
        assert torch.equal(model(images), load_checkpoint(tmp_path / "checkpoint")(images))
