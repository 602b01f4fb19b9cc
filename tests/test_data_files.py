"""Sets that stay on disk: the same images, batches and weights as in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stripes import QUIET, config, stripes

from warplca.configs import EvaluationPlan, InputError
from warplca.data import ImageDataset, load_dataset
from warplca.data.files import FileImages
from warplca.eval import evaluate
from warplca.train import train
from warplca.train.policy import cut_out
from warplca.train.sampling import CUT, StepOrder, mixed_seed
from warplca.train.source import BatchSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stripes as PNG files, which lose nothing: 24 to train on, 8 in val/."""
    root = tmp_path_factory.mktemp("stripes")
    dataset = stripes(32)
    for number, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
        place = root / ("train" if number < 24 else "val") / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03d}.png")
    return root


def in_memory(dataset: ImageDataset) -> ImageDataset:
    return ImageDataset(dataset.name, dataset.images[:], dataset.labels, dataset.class_names)


def test_images_are_read_when_asked_for_and_are_those_of_the_files(folder):
    dataset = load_dataset(f"files:16:{folder}", "train")
    assert isinstance(dataset.images, FileImages)
    assert (len(dataset), dataset.size) == (24, (16, 16))
    file = dataset.images.files[5]
    assert np.array_equal(dataset.images[5], np.asarray(Image.open(file)))
    assert np.array_equal(dataset.images[[5, 2]][0], dataset.images[5])
    assert dataset.images[3:3].shape == (0, 16, 16, 3)
    assert len(load_dataset(f"files:16:{folder}", "test")) == 8
    kept, held_out = dataset.split(8, seed=0)
    assert isinstance(kept.images, FileImages)
    row = held_out.indices[3]
    assert np.array_equal(held_out.images[3], dataset.images[int(row)])
    assert torch.equal(held_out.tensors([3])[0], dataset.tensors([int(row)])[0])
    assert held_out.fingerprint != kept.fingerprint != dataset.fingerprint


def test_an_image_is_scaled_until_its_shorter_side_fits_and_cut_in_the_middle(tmp_path):
    pixels = np.zeros((40, 90, 3), np.uint8)
    pixels[:, 25:65] = 200  # the middle square
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / split / "a" / "x.png")
    image = load_dataset(f"files:20:{tmp_path}", "train").images[0]
    assert image.shape == (20, 20, 3)
    assert (image[:, 3:-3] == 200).all()
    assert np.abs(image.astype(int) - 200).max() <= 40  # bicubic rings at the cut, no black beyond it


@pytest.mark.parametrize(
    ("loss", "policy"), [("standard", "none"), ("standard", "augmix"), ("jsd", "augmix")]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_memory(folder, loss, policy, workers):
    on_disk = load_dataset(f"files:16:{folder}", "train")
    recipe = config(loss={"name": loss}, augment={"policy": policy, "workers": workers, "noise": 0.1}).train
    sources = [
        BatchSource(dataset, recipe, StepOrder(24, 10, 0), torch.device("cpu"))
        for dataset in (on_disk, in_memory(on_disk))
    ]
    for mine, other in zip(*(source.shares(1, 5) for source in sources), strict=True):
        assert torch.equal(mine.batch.images, other.batch.images)
        assert torch.equal(mine.batch.labels, other.batch.labels)
        assert len(mine.batch.views) == len(other.batch.views)
        assert all(torch.equal(a, b) for a, b in zip(mine.batch.views, other.batch.views, strict=True))
    plain = [torch.cat(list(source.plain_batches())) for source in sources]
    assert torch.equal(*plain)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("loss", ["standard", "jsd"])
def test_random_cuts_are_made_in_the_whole_picture(tmp_path, workers, loss):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 23, 61, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        (tmp_path / "train" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "train" / f"class{number % 2}" / f"{number}.png")
    on_disk = load_dataset(f"files:16:{tmp_path}", "train")
    policy = "augmix" if loss == "jsd" else "none"
    augment = {"smallest_area": 0.1, "workers": workers, "policy": policy}
    recipe = config(loss={"name": loss}, augment=augment, crop_padding=0, flip=False, batch_size=6).train
    (share,) = BatchSource(on_disk, recipe, StepOrder(6, 6, 0), torch.device("cpu")).shares(0, 1)
    originals = pixels[[int(Path(on_disk.images.files[i]).stem) for i in StepOrder(6, 6, 0).chosen(0)]]
    expected = [
        cut_out(image, (16, 16), 0.1, mixed_seed(0, CUT, 0, row)) for row, image in enumerate(originals)
    ]
    cut = (share.batch.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(cut, np.stack(expected))
    assert len(share.batch.views) == (2 if loss == "jsd" else 0)


def test_training_and_evaluation_agree_with_those_of_memory(folder, tmp_path):
    on_disk = load_dataset(f"files:16:{folder}", "train")
    recipe = config("conv", validation_images=6)
    first, second = (
        train(recipe, dataset, tmp_path / name, progress=False)
        for name, dataset in (("disk", on_disk), ("memory", in_memory(on_disk)))
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    test = load_dataset(f"files:16:{folder}", "test")
    plan = EvaluationPlan(corruptions=("gaussian_noise",), severities=(3,))
    tables = [evaluate(first, dataset, plan, execution=QUIET) for dataset in (test, in_memory(test))]
    assert tables[0]["accuracy"].tolist() == tables[1]["accuracy"].tolist()


def test_mistakes_are_explained(folder, tmp_path):
    with pytest.raises(
        InputError, match="names no size and folder; write for instance files:224:/data/imagenet"
    ):
        load_dataset(f"files:{folder}", "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        load_dataset(f"files:8:{tmp_path}", "train")
    for split, name in (("train", "cat"), ("train", "dog"), ("test", "cat")):
        (tmp_path / split / name).mkdir(parents=True)
        (tmp_path / split / name / "x.png").write_bytes(b"no image")
    assert load_dataset(f"files:8:{tmp_path}", "test").class_names == ("cat", "dog")  # as in train
    with pytest.raises(InputError, match="x.png cannot be read as an image"):
        FileImages([str(tmp_path / "train" / "cat" / "x.png")], (8, 8))[0]
