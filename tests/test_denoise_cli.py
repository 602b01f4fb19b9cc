"""`warplca denoise`: files in, files out, every mistake one sentence."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from warplca.cli.main import main
from warplca.configs.errors import InputError
from warplca.data import load_dataset
from warplca.frontend import WarpLCA, noise_level, save_frontend, shipped_frontends
from warplca.frontend.pretrained import NoiseRule, load_noise_rule, save_noise_rule
from warplca.frontend.tiles import OVERLAP, ramp, spans
from warplca.pipeline.denoise import FRONTEND, Restorer, denoise, denoise_files
from warplca.pipeline.photograph import read_photograph


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """A real photograph of odd size, (131, 97, 3), uint8, of less contrast so that noise is hardly clipped."""
    with Image.open(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))) as image:
        return (40 + 0.68 * np.asarray(image.convert("RGB"))[20:151, 180:277]).astype(np.uint8)


@pytest.fixture(scope="module")
def noisy(photograph: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 25, photograph.shape)
    return (photograph + noise).clip(0, 255).round().astype(np.uint8)


def run(capsys, *arguments: object) -> str:
    assert main(["denoise", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments: object) -> str:
    try:
        code = main(["denoise", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    message = capsys.readouterr().err
    assert code == 2, message
    assert message.startswith("warplca: ")
    assert message.count("\n") == 1, message
    return message


def error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one.astype(float) - other) ** 2)))


def test_noise_goes_down_and_is_reported(
    capsys, tmp_path: Path, photograph: np.ndarray, noisy: np.ndarray
) -> None:
    Image.fromarray(noisy).save(tmp_path / "in.png")
    text = run(capsys, tmp_path / "in.png", "--out", tmp_path / "out")
    assert "97 x 131 pixels" in text
    estimated = float(text.split("noise ")[1].split(" of 255")[0])
    assert estimated == pytest.approx(25, rel=0.15)
    assert float(text.split("lambda ")[1].split(",")[0]) > 0
    result = np.asarray(Image.open(tmp_path / "out" / "in.png"))
    assert result.shape == photograph.shape
    assert error(result, photograph) < 0.45 * error(noisy, photograph)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["in.png"]


def test_every_kind_of_file(capsys, tmp_path: Path, noisy: np.ndarray) -> None:
    rgb = Image.fromarray(noisy[:41, :37])
    alpha = Image.fromarray((np.arange(41 * 37).reshape(41, 37) % 256).astype(np.uint8))
    files = {
        "jpeg.jpg": rgb,
        "gray.png": rgb.convert("L"),
        "rgba.png": Image.merge("RGBA", [*rgb.split(), alpha]),
        "la.png": Image.merge("LA", [rgb.convert("L"), alpha]),
        "palette.png": rgb.quantize(200),
        "bits.png": rgb.convert("1"),
        "deep.png": Image.fromarray(noisy[:41, :37, 0].astype(np.uint16) * 257),
        "small.png": rgb.crop((0, 0, 5, 3)),
    }
    for name, image in files.items():
        image.save(tmp_path / name)
    run(capsys, *(tmp_path / name for name in files), "--out", tmp_path / "out", "--iterations", 3)
    modes = {name: Image.open(tmp_path / "out" / f"{Path(name).stem}.png").mode for name in files}
    assert modes == {
        "jpeg.jpg": "RGB",
        "gray.png": "L",
        "rgba.png": "RGBA",
        "la.png": "LA",
        "palette.png": "RGB",
        "bits.png": "L",
        "deep.png": "I;16",
        "small.png": "RGB",
    }
    for name, image in files.items():
        assert Image.open(tmp_path / "out" / f"{Path(name).stem}.png").size == image.size
    for name in ("rgba", "la"):
        result = Image.open(tmp_path / "out" / f"{name}.png")
        assert np.array_equal(np.asarray(result)[..., -1], np.asarray(alpha))
    deep = np.asarray(Image.open(tmp_path / "out" / "deep.png")).astype(float)
    assert error(deep / 257, noisy[:41, :37, 0]) < 40
    assert len(np.unique(deep)) > 256


def test_sixteen_bit_colour_is_said_to_lose_bits(capsys, tmp_path: Path, noisy: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "deep.png"), noisy[:33, :33].astype(np.uint16) * 257)
    assert "read with 8 of its 16 bits a channel" in run(
        capsys, tmp_path / "deep.png", "--out", tmp_path / "out", "--iterations", 1
    )


def test_upright_and_profile_kept(tmp_path: Path, capsys, noisy: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(noisy[:40, :60]).save(tmp_path / "turned.jpg", exif=exif, icc_profile=b"profile")
    run(capsys, tmp_path / "turned.jpg", "--out", tmp_path / "out", "--iterations", 1)
    result = Image.open(tmp_path / "out" / "turned.png")
    assert result.size == (40, 60)
    assert result.info["icc_profile"] == b"profile"


def test_mistakes_are_one_sentence_and_change_nothing(capsys, tmp_path: Path, noisy: np.ndarray) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(noisy).save(good)
    before = good.read_bytes()
    assert "there is no image" in refused(capsys, tmp_path / "none.png", "--out", tmp_path / "out")
    assert "would overwrite an input" in refused(capsys, good, "--out", tmp_path)
    (tmp_path / "sub").mkdir()
    Image.fromarray(noisy).save(tmp_path / "sub" / "good.jpg")
    assert "two images would become" in refused(
        capsys, good, tmp_path / "sub" / "good.jpg", "--out", tmp_path / "out"
    )
    assert "is a file; give a folder" in refused(capsys, good, "--out", good)
    (tmp_path / "text.png").write_text("no image")
    assert "it is not a PNG or JPEG picture" in refused(
        capsys, tmp_path / "text.png", "--out", tmp_path / "out"
    )
    (tmp_path / "cut.png").write_bytes(before[:2000])
    assert "cannot be read" in refused(capsys, tmp_path / "cut.png", "--out", tmp_path / "out")
    Image.fromarray(noisy).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert "pixels of kind 'CMYK'" in refused(capsys, tmp_path / "cmyk.jpg", "--out", tmp_path / "out")
    frames = [Image.fromarray(noisy), Image.fromarray(noisy[::-1])]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    assert "animation of 2 frames" in refused(capsys, tmp_path / "moving.png", "--out", tmp_path / "out")
    Image.fromarray(noisy[:2, :2]).save(tmp_path / "tiny.png")
    assert "too few to estimate its noise; give lambda" in refused(
        capsys, tmp_path / "tiny.png", "--out", tmp_path / "out"
    )
    assert "--lam is -1.0" in refused(capsys, good, "--out", tmp_path / "out", "--lam", -1)
    assert "--iterations is 0" in refused(capsys, good, "--out", tmp_path / "out", "--iterations", 0)
    assert "did you mean 'cifar10-64x9s2'" in refused(
        capsys, good, "--out", tmp_path / "out", "--frontend", "cifar10-64x9s3"
    )
    assert good.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_a_bad_picture_does_not_stop_the_others(capsys, tmp_path: Path, noisy: np.ndarray) -> None:
    (tmp_path / "bad.png").write_text("no image")
    for name in ("first", "last"):
        Image.fromarray(noisy[:20, :20]).save(tmp_path / f"{name}.png")
    given = [str(tmp_path / f"{name}.png") for name in ("first", "none", "bad", "last")]
    assert main(["denoise", *given, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert [line.partition(" -> ")[0] for line in out.splitlines()] == [given[0], given[3]]
    assert [path in line for path, line in zip(given[1:3], err.splitlines(), strict=True)] == [True, True]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["first.png", "last.png"]
    with pytest.raises(InputError, match="bad.png cannot be read"):
        denoise_files(given[2:], tmp_path / "other", Restorer(FRONTEND))


def test_tiny_image_with_lambda_given(capsys, tmp_path: Path, noisy: np.ndarray) -> None:
    Image.fromarray(noisy[:2, :1]).save(tmp_path / "tiny.png")
    run(capsys, tmp_path / "tiny.png", "--out", tmp_path / "out", "--lam", 0.5)
    assert Image.open(tmp_path / "out" / "tiny.png").size == (1, 2)


def test_frontend_without_a_rule_asks_for_lambda(capsys, tmp_path: Path, noisy: np.ndarray) -> None:
    Image.fromarray(noisy[:20, :20]).save(tmp_path / "in.png")
    torch.manual_seed(0)
    save_frontend(WarpLCA(features=6, kernel_size=5).eval(), tmp_path / "own", card="")
    arguments = (tmp_path / "in.png", "--out", tmp_path / "out", "--frontend", tmp_path / "own")
    assert "has no rule that chooses lambda" in refused(capsys, *arguments)
    assert "lambda 0.7" in run(capsys, *arguments, "--lam", 0.7)
    save_noise_rule(tmp_path / "own", NoiseRule(0.2, 0.5))
    assert load_noise_rule(tmp_path / "own") == NoiseRule(0.2, 0.5)
    assert "in.png is there already; choose another folder, or give --overwrite" in refused(
        capsys, *arguments
    )
    assert "lambda 0." in run(capsys, *arguments, "--overwrite")
    (tmp_path / "own" / "noise_rule.json").write_text("{}")
    assert "fit it again" in refused(capsys, *arguments, "--overwrite")


@pytest.mark.parametrize("frontend", [FRONTEND, "cifar10-64x9s2-soft"])
def test_lambda_follows_the_rule(photograph: np.ndarray, noisy: np.ndarray, frontend: str) -> None:
    found = []
    learned = WarpLCA.from_pretrained(FRONTEND).settings
    for pixels in (photograph, noisy):
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        found.append(denoise(image, frontend=frontend, iterations=1))
        rule = (
            NoiseRule(learned.lam, learned.adaptive_lam)
            if frontend == FRONTEND
            else load_noise_rule(frontend)
        )
        noise = float(noise_level(image[None])) / float(image.std(correction=0))
        assert found[-1].lam[0] == pytest.approx(
            (rule.lam**2 + (rule.strength * noise) ** 2) ** 0.5, rel=1e-4
        )
        assert found[-1].noise == pytest.approx(float(noise_level(image[None])))
    assert found[1].lam[0] > found[0].lam[0]
    gray = torch.from_numpy(noisy).float().mean(2)[None] / 255
    alone = denoise(gray, frontend=frontend, iterations=1)
    assert alone.pixels.shape == gray.shape
    equal = denoise(gray.expand(3, -1, -1), frontend=frontend, iterations=1)
    assert alone.lam[0] == pytest.approx(3**0.5 * equal.lam[0], rel=0.05)


def test_noise_that_the_front_end_was_not_primed_on_is_remarked(photograph: np.ndarray) -> None:
    image = torch.from_numpy(photograph[:40, :40]).permute(2, 0, 1).float() / 255
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    remarks = [denoise((image + sigma * noise).clamp(0, 1)).remark for sigma in (0.0, 0.1, 0.5)]
    smooth = denoise(torch.full_like(image, 0.5)).remark
    assert [bool(remark) for remark in remarks[1:]] == [False, True]
    assert "primed on" in remarks[2]
    assert "so little noise" in smooth
    assert not denoise(torch.full_like(image, 0.5), frontend="cifar10-64x9s2-soft").remark


def test_tiles_agree_with_the_whole(noisy: np.ndarray) -> None:
    image = torch.from_numpy(noisy).permute(2, 0, 1).float() / 255
    tall = torch.cat([image, image.flip(1)], dim=1)
    whole = denoise(tall).pixels
    tiled = denoise(tall, tile=150).pixels
    assert tiled.shape == whole.shape
    assert float((whole - tiled).square().mean().sqrt()) < 0.01  # tiles are standardised each for itself
    untouched = denoise(tall, tile=262).pixels
    assert torch.equal(untouched, whole)


@given(st.integers(1, 3000), st.integers(100, 600), st.integers(1, 9))
def test_tiles_cover_overlap_and_lie_on_the_grid(length: int, tile: int, stride: int) -> None:
    found = spans(length, tile, stride)
    assert found[0].start == 0
    assert found[-1].stop == length
    for one, other in pairwise(found):
        assert one.stop - other.start >= OVERLAP
        assert other.start % stride == 0
    assert all(span.stop - span.start <= tile + stride for span in found)
    weights = torch.zeros(length)
    for span in found:
        weights[span] += ramp(span, length)
    assert float(weights.min()) > 0


def test_shipped_frontends_have_rules_that_rise_with_the_noise() -> None:
    names = [
        name for name in shipped_frontends("warp-lca") if not name.endswith("-restore")
    ]  # that has its own
    assert names
    for name in names:
        rule = load_noise_rule(name)
        assert rule.lam > 0
        assert rule.strength > 0.3
        assert "fit_noise_rule.py" in rule.command


def test_reading_keeps_every_value(tmp_path: Path) -> None:
    values = load_dataset("cifar10-subset", "test").images[0]
    Image.fromarray(values).save(tmp_path / "a.png")
    read = read_photograph(tmp_path / "a.png").pixels
    assert np.array_equal((read.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), values)


def test_pictures_with_a_clear_colour_and_jpegs_of_two_pictures(
    capsys, tmp_path: Path, noisy: np.ndarray
) -> None:
    image = Image.fromarray(noisy[:20, :24])
    clear = tuple(int(value) for value in noisy[3, 5])
    image.save(tmp_path / "clear.png", transparency=clear)
    image.save(tmp_path / "two.jpg", format="MPO", save_all=True, append_images=[image.rotate(180)])
    run(capsys, tmp_path / "clear.png", tmp_path / "two.jpg", "--out", tmp_path / "out")
    with Image.open(tmp_path / "out" / "clear.png") as found:
        assert found.mode == "RGBA"
        opacity = np.asarray(found)[..., 3]
    assert opacity[3, 5] == 0
    assert opacity.mean() > 250
    with Image.open(tmp_path / "out" / "two.png") as found:
        restored = np.asarray(found).astype(float)
    assert np.abs(restored - noisy[:20, :24]).mean() < np.abs(restored - noisy[:20, :24][::-1, ::-1]).mean()
