"""The same photograph through every door: predict, both readers of folders, denoise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.data.files import read_image
from warplca.data.pictures import MOST_PIXELS, read_picture
from warplca.models import Predictor
from warplca.pipeline.photograph import read_photograph

SIDE = (21, 34)
RAMP = np.add.outer(np.arange(SIDE[0]) * 5, np.arange(SIDE[1]) * 3).astype(np.uint8)
COLOURS = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)
GREY = np.repeat(RAMP[..., None], 3, axis=2)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(COLOURS).copy()).save(path, exif=exif)


def cleared(path: Path) -> None:
    opacity = np.full(SIDE, 255, np.uint8)
    opacity[:, :17] = 0
    hidden = COLOURS.copy()
    hidden[:, :17] = (255, 0, 255)
    Image.fromarray(np.dstack([hidden, opacity])).save(path)


WHITE_LEFT = np.where((np.arange(SIDE[1]) < 17)[None, :, None], 255, COLOURS)
WRITERS = {
    "rgb.png": (lambda path: Image.fromarray(COLOURS).save(path), COLOURS),
    "grey.png": (lambda path: Image.fromarray(RAMP).save(path), GREY),
    "deep.png": (lambda path: Image.fromarray(RAMP.astype(np.uint16) * 257).save(path), GREY),
    "deep.tif": (lambda path: Image.fromarray(RAMP.astype(np.uint16) * 257).save(path), GREY),
    "long.tif": (lambda path: Image.fromarray(RAMP.astype(np.int32) * 257).save(path), GREY),
    "float.tif": (lambda path: Image.fromarray(RAMP.astype(np.float32) / 255).save(path), GREY),
    "palette.png": (lambda path: Image.fromarray(GREY).quantize(256).save(path), GREY),
    "turned.png": (turned, COLOURS),
    "clear.png": (cleared, WHITE_LEFT),
    "cmyk.tif": (lambda path: Image.fromarray(COLOURS).convert("CMYK").save(path), COLOURS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_door_shows_the_same_pixels(tmp_path: Path, name: str) -> None:
    write, expected = WRITERS[name]
    path = tmp_path / "train" / "a" / name
    path.parent.mkdir(parents=True)
    write(path)
    seen = {"reader": read_image(path), "folder": load_dataset(tmp_path, "train").images[0]}
    predictor = Predictor(lambda images: (np.zeros((1, 2)), None), (3, *SIDE), ())
    seen["predict"] = (predictor.read(path)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    if name.endswith(".png") and name != "clear.png":  # which keeps its opacity beside the pixels
        pixels = read_photograph(path).pixels.permute(1, 2, 0).numpy() * 255
        seen["denoise"] = np.broadcast_to(pixels.round().astype(np.uint8), (*SIDE, 3))
    for door, pixels in seen.items():
        assert np.abs(pixels.astype(int) - expected).max() <= 2, door


def test_predict_cuts_out_as_training_does(tmp_path: Path) -> None:
    path = tmp_path / "train" / "a" / "x.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(COLOURS).save(path)
    predictor = Predictor(lambda images: (np.zeros((1, 2)), None), (3, 16, 16), ())
    shown = (predictor.read(path)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert np.array_equal(shown, load_dataset(f"files:16:{tmp_path}", "train").images[0])
    grey = Predictor(lambda images: (np.zeros((1, 2)), None), (1, *SIDE), ()).read(path)
    luma = COLOURS @ np.array([0.299, 0.587, 0.114]) / 255
    assert np.abs(grey[0, 0].numpy() - luma).max() < 0.005


def test_what_has_no_white_and_what_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(RAMP.astype(np.float32) * 40).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=r"grey values from 0 to 7960 in 32 bits, of which 0 to 1 are read"):
        read_picture(tmp_path / "x.tif")
    Image.fromarray(COLOURS).save(tmp_path / "y.png")
    monkeypatch.setattr("warplca.data.pictures.MOST_PIXELS", 700)
    with pytest.raises(InputError, match=r"y\.png has 34 x 21 pixels; at most 0 million are read"):
        read_picture(tmp_path / "y.png")
    assert MOST_PIXELS == 120_000_000
