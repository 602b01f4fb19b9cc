"""The command line: one sentence for every mistake, exit code 2, never a traceback."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from warplca.cli.main import main
from warplca.configs import ComparisonConfig, RunConfig, load_config, preset_names
from warplca.data import load_dataset
from warplca.models import build_classifier, create_classifier, read_card, save_checkpoint
from warplca.models.checkpoint import shipped_checkpoints


def refused(capsys, *arguments: str) -> str:
    """Run a command that must fail; return what it says."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    message = capsys.readouterr().err
    assert code == 2, message
    assert "Traceback" not in message
    assert message.startswith("warplca: ")
    assert message.count("\n") == 1, message
    return message


SCHEDULES = ("annealed", "denoising", "fine-tuned", "frozen", "scratch")


@pytest.fixture
def checkpoint(tmp_path):
    save_checkpoint(
        create_classifier("resnet10_slim", "conv"),
        tmp_path / "checkpoint",
        class_names=load_dataset("cifar10-subset", "test").class_names,
    )
    return tmp_path / "checkpoint"


def test_help_lists_every_command_and_needs_no_arguments(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for command in ("quickstart", "prime", "train", "evaluate", "compare", "export", "corrupt", "info"):
        assert command in text
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0


def test_typing_mistakes_name_the_neighbour(capsys, tmp_path):
    assert "did you mean 'train'?" in refused(capsys, "trian")
    assert "did you mean '--out'?" in refused(capsys, "train", "--out", tmp_path, "--oout", "x")
    assert "did you mean 'warp-lca'?" in refused(capsys, "train", "--config", "warplca", "--out", tmp_path)
    mistyped = refused(capsys, "train", "--out", tmp_path, "train.epoch=3")
    assert "unknown key 'train.epoch' in the command line; did you mean 'train.epochs'?" in mistyped
    assert "train.epochs is 'ten'; expected int" in refused(
        capsys, "train", "--out", tmp_path, "train.epochs=ten"
    )
    assert "has no value; write key=value" in refused(capsys, "train", "--out", tmp_path, "train.epochs")
    assert "unknown backbone 'resnet-18'" in refused(
        capsys, "train", "--out", tmp_path, "model.backbone=resnet-18"
    )


def test_config_files_are_named_in_errors(capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {frontnd: conv}\n")
    message = refused(capsys, "train", "--config", file, "--out", tmp_path / "run")
    assert "unknown key 'model.frontnd' in mine.yaml; did you mean 'model.frontend'?" in message
    file.write_text("model: [1, 2\n")
    assert "mine.yaml is not valid YAML" in refused(
        capsys, "train", "--config", file, "--out", tmp_path / "run"
    )
    file.write_text("train: {label_smoothing: 2.0}\n")
    assert "mine.yaml: train.label_smoothing is 2.0" in refused(
        capsys, "train", "--config", file, "--out", tmp_path / "run"
    )
    message = refused(capsys, "train", "--config", tmp_path / "absent.yaml", "--out", tmp_path / "run")
    assert "does not exist" in message


def test_bad_data_files_are_explained(capsys, tmp_path, checkpoint):
    evaluate = [
        "evaluate",
        "--checkpoint",
        checkpoint,
        "--results",
        tmp_path / "r.sqlite",
        "--plan",
        "clean",
        "--data",
    ]
    assert "there is no data set" in refused(capsys, *evaluate, tmp_path / "absent.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 not really")
    assert "broken.npz" in refused(capsys, *evaluate, broken)
    floats = tmp_path / "floats.npz"
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
    labels = np.arange(4)
    names = np.array(load_dataset("cifar10-subset", "test").class_names)
    np.savez(
        floats,
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        class_names=names,
    )
    assert "uint8" in refused(capsys, *evaluate, floats)


def test_bad_checkpoints_plans_and_stores_are_explained(capsys, tmp_path, checkpoint):
    assert "there is no checkpoint folder" in refused(capsys, "info", tmp_path / "absent")
    assert "there is no checkpoint folder" in refused(
        capsys, "export", "--checkpoint", "absent", "--out", "x.onnx"
    )
    evaluate = ["evaluate", "--checkpoint", checkpoint, "--results", tmp_path / "r.sqlite"]
    assert "did you mean 'quick'?" in refused(capsys, *evaluate, "--plan", "quik")
    assert "did you mean 'gaussian_noise'?" in refused(capsys, *evaluate, "corruptions=[gausian_noise]")
    assert "severity 7" in refused(capsys, *evaluate, "severities=[7]")
    assert "there is no results store" in refused(
        capsys, "compare", "--results", tmp_path / "absent.sqlite", "--baseline", "conv"
    )


def test_info_without_a_checkpoint_lists_the_classifiers_of_the_package(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    found = re.findall(r"^(\S+)\n  clean: ([\d.]+) %", text, re.MULTILINE)
    assert [name for name, _ in found] == shipped_checkpoints()
    for name, clean in found:
        cells = read_card(name)["warplca"]["evidence"]["cells"]
        most = max((cell for cell in cells if cell["kind"] == "clean"), key=lambda cell: cell["images"])
        assert float(clean) == pytest.approx(100 * most["accuracy"], abs=0.051)


def test_info_prints_the_card(capsys, checkpoint):
    assert main(["info", str(checkpoint)]) == 0
    text = capsys.readouterr().out
    assert "resnet10_slim with conv" in text
    assert json.loads((checkpoint / "config.json").read_text())["num_classes"] == 10


def test_an_unexpected_error_leaves_its_traceback_in_a_file(capsys, tmp_path, monkeypatch, checkpoint):
    from warplca.cli import commands

    def fail(args):
        raise ZeroDivisionError("by zero")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(commands.RUN, "info", fail)
    assert main(["info", str(checkpoint)]) == 1
    message = capsys.readouterr().err
    assert "unexpected ZeroDivisionError (by zero)" in message
    assert "Traceback" not in message
    assert "Traceback" in (tmp_path / "warplca-error.log").read_text()


@pytest.mark.parametrize("name", preset_names("train"))
def test_every_training_preset_is_valid(name):
    arm = "warp-lca+" if name in SCHEDULES else ""  # they change a front-end's settings
    assert load_config(RunConfig, arm + name, "train").train.epochs > 0


@pytest.mark.parametrize("name", preset_names("comparison"))
def test_every_comparison_preset_is_valid(name):
    config = load_config(ComparisonConfig, name, "comparison")
    for arm in config.arms:
        run = config.run(arm, seed=3)
        assert run.train.seed == 3
        assert build_classifier(run.model).feature_info[0]["reduction"] == 2
    assert {config.run(arm, seed=0).model.frontend_name for arm in config.arms} == {
        "none",
        "conv",
        "lca",
        "warp-lca",
    }


def test_help_is_instant_because_it_loads_no_torch():
    script = (
        "import sys\nfrom warplca.cli.main import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 0
