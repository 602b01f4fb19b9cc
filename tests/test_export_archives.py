"""A .pt2 archive is looked through before it is opened: pickles are never executed, machine code needs consent."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stripes import section

from warplca.cli.main import main
from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.models import create_classifier, export_compiled, open_predictor, save_checkpoint
from warplca.models.export.checked import Deployed, metadata
from warplca.models.export.onnx_file import OnnxBackend
from warplca.models.export.program import ProgramBackend, load_program

NAMES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def answers(model, images):
    """Logits, and the share of active units of each image's code."""
    logits, encoding = model.inspect(images)
    return logits, encoding.figures()["active_fraction"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One classifier in every format; that files agree with PyTorch before they are kept is tested elsewhere."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = create_classifier("resnet10_slim", section("warp-lca")).eval()
    model.about = {"class_names": NAMES}
    images = load_dataset("cifar10-subset", "test").tensors(range(20))[0]
    save_checkpoint(model, folder / "folder")
    for backend, name in ((ProgramBackend(), "m.pt2"), (OnnxBackend(), "m.onnx")):
        backend.write(Deployed(model), images, folder / name, metadata(model, images))
    return folder, model


def rewritten(source, target, changes):
    """Copy an archive with some records changed or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        names = old.namelist()
        root = names[0].split("/")[0]
        for name in names:
            short = name.removeprefix(f"{root}/")
            new.writestr(name, changes.pop(short) if short in changes else old.read(name))
        for short, data in changes.items():
            new.writestr(f"{root}/{short}", data)
    return target


def pickled(target) -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": Payload(target)}, buffer)
    return buffer.getvalue()


def test_pickles_inside_an_archive_are_refused_and_never_executed(files, tmp_path):
    source = files[0] / "m.pt2"
    target = tmp_path / "executed"
    with zipfile.ZipFile(source) as archive:
        root = archive.namelist()[0].split("/")[0]
        config_name = next(n for n in archive.namelist() if n.endswith("weights_config.json"))
        config = json.loads(archive.read(config_name))
    sample = rewritten(source, tmp_path / "sample.pt2", {"data/sample_inputs/model.pt": pickled(target)})
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    weights = {
        config_name.removeprefix(f"{root}/"): json.dumps(config),
        f"data/weights/{first['path_name']}": pickled(target),
    }
    weight = rewritten(source, tmp_path / "weight.pt2", weights)
    for path in (sample, weight):
        with pytest.raises(InputError, match=r"holds a pickle .* was not opened"):
            load_program(path, trust=True)
    saved = tmp_path / "saved.pt2"
    torch.save({"x": Payload(target)}, saved)
    plain = tmp_path / "plain.pt2"
    plain.write_bytes(pickle.dumps(Payload(target)))
    older = tmp_path / "older.pt2"
    with zipfile.ZipFile(older, "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_state_dict.pt", pickled(target))
    for path in (saved, plain, older):
        with pytest.raises(InputError, match=r"is no \.pt2 archive"):
            load_program(path)
    assert not target.exists()


def test_machine_code_needs_consent(files, tmp_path):
    path = rewritten(files[0] / "m.pt2", tmp_path / "x.pt2", {"data/aotinductor/model/x.so": b"\x7fELF"})
    with pytest.raises(InputError, match=r"holds machine code \(AOTInductor\).*consent with --trust"):
        open_predictor(path)


def test_truncated_and_foreign_files_are_explained(files, tmp_path):
    whole = (files[0] / "m.pt2").read_bytes()
    (tmp_path / "half.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"is no \.pt2 archive, or is truncated"):
        open_predictor(tmp_path / "half.pt2")
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"bad\.onnx cannot be read as ONNX"):
        open_predictor(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match=r"there is no file .*none\.onnx"):
        open_predictor(tmp_path / "none.onnx")


@pytest.mark.parametrize("name", ["folder", "m.pt2", "m.onnx"])
def test_every_format_gives_the_same_answer(files, name):
    folder, model = files
    predictor = open_predictor(folder / name, trust=name == "m.pt2")
    assert predictor.input_size == (3, 32, 32)
    assert list(predictor.class_names) == NAMES
    images = load_dataset("cifar10-subset", "test").tensors(range(20, 26))[0]
    logits, figures = predictor.answer(images)
    expected = answers(model, images)
    np.testing.assert_allclose(logits, expected[0].detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(figures["active_fraction"], expected[1].detach().numpy(), atol=1e-3)


@pytest.mark.parametrize("name", ["folder", "m.pt2", "m.onnx"])
def test_predict_names_classes_and_sparsity(files, name, tmp_path, capsys):
    folder, model = files
    pixels = load_dataset("cifar10-subset", "test").images[3]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).resize((71, 50)).convert("L").save(tmp_path / "b.jpg")
    arguments = ["predict", str(tmp_path / "a.png"), str(tmp_path / "b.jpg"), "--top", "2", "--trust"]
    assert main([*arguments, "--checkpoint", str(folder / name)]) == 0
    lines = capsys.readouterr().out.splitlines()
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255.0
    with torch.no_grad():
        logits, active = answers(model, images)
    value, index = logits[0].softmax(0).max(0)
    assert lines[0].startswith(f"{tmp_path / 'a.png'}: {NAMES[int(index)]} {float(value):.1%}, ")
    assert lines[0].endswith(f"; {float(active[0]):.2%} of the code is active")
    assert len(lines) == 2


def test_predict_explains_mistakes(files, tmp_path, capsys):
    checkpoint = ["--checkpoint", str(files[0] / "folder")]
    (tmp_path / "text.png").write_text("no image")
    for image, message in (("none.png", "there is no image"), ("text.png", "cannot be read as an image")):
        assert main(["predict", str(tmp_path / image), *checkpoint]) == 2
        assert message in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "text.png"), *checkpoint, "--top", "0"]) == 2
    assert "--top is 0; give 1 or more" in capsys.readouterr().err


def test_info_says_how_robust_and_by_what_evidence(files, capsys):
    assert main(["info", str(files[0] / "folder"), "--all"]) == 0
    text = capsys.readouterr().out
    assert "images 3 x 32 x 32, 10 classes (plane, car" in text
    assert "## How robust, by what evidence\n\nNothing recorded." in text
    assert "The files match SHA256SUMS." in text


@pytest.mark.slow
def test_a_compiled_archive_predicts_with_consent(files, tmp_path):
    _, model = files
    images = load_dataset("cifar10-subset", "test").tensors(range(20))[0]
    export_compiled(model, tmp_path / "m.pt2", images)
    with pytest.raises(InputError, match="holds machine code"):
        open_predictor(tmp_path / "m.pt2")
    predictor = open_predictor(tmp_path / "m.pt2", trust=True)
    assert list(predictor.class_names) == NAMES
    np.testing.assert_allclose(predictor.answer(images)[0], model(images).detach().numpy(), atol=1e-4)
