"""Does a front-end help a classifier that exists? Both are measured on the same images, and one sentence answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..configs import EvaluationPlan, InputError
from ..configs.errors import unknown_name
from ..data import ImageDataset
from ..eval import Comparison, CorruptionSource, Entry, Evaluation, Execution, ResultsStore, compare
from ..eval.compare.wording import NO_DIFFERENCE, difference_text, headline_tests, judgement
from ..eval.measure.inference import Model
from ..models import Classifier, as_classifier, create_classifier, harden, load_checkpoint, save_checkpoint
from .sharded import evaluate_sharded

FILES = (".onnx", ".pt2")


def open_classifier(checkpoint: str | Path, *, trust: bool = False) -> Model:
    """Open a checkpoint folder, the name of a shipped classifier, or an ONNX file or .pt2 archive: a black box.

    Args:
        checkpoint: Which.
        trust: Whether a .pt2 archive, which can run any code, may be opened.

    Raises:
        InputError: If it is none of these.
    """
    if Path(checkpoint).suffix in FILES:
        return as_classifier(checkpoint, trust=trust)
    return load_checkpoint(checkpoint)


def own_classifier(checkpoint: str | Path) -> Classifier:
    """Open a checkpoint to write another with front-ends before it.

    Raises:
        InputError: If it is none, or an exported file.
    """
    if Path(checkpoint).suffix in FILES:
        raise InputError(
            f"no front-end can be written into the exported file {checkpoint}; measure it with `warplca evaluate "
            "--harden`, or harden the checkpoint that it was exported from."
        )
    return load_checkpoint(checkpoint)


def timm_classifier(source: str) -> Classifier:
    """A trained timm model as a classifier of ours without a front-end.

    Args:
        source: ``NAME`` for timm's own weights, or ``NAME:FILE`` for weights in a safetensors file.

    Raises:
        InputError: If timm has no such model, or the weights cannot be had or do not fit.
    """
    import timm

    name, _, file = source.partition(":")
    if not timm.is_model(name.split(".")[0]):
        raise unknown_name("timm model", name, timm.list_models())
    known = timm.models.get_pretrained_cfg(name)
    if known is None or not (file or known.has_weights):
        raise InputError(
            f"timm has no weights for {name}; give a file of yours: --timm {name}:FILE.safetensors."
        )
    if not file:
        return create_classifier(name, None, known.num_classes, stem="original", pretrained=True).eval()
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}).") from error
    classes = next(
        (len(weights[key]) for key in (f"{known.classifier}.bias",) if key in weights), known.num_classes
    )
    model = create_classifier(name, None, classes, stem="original")
    try:
        model.backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"the weights of {file} do not fit {name}: {str(error).splitlines()[-1].strip()}."
        ) from error
    return model.eval()


def save_hardened(model: Classifier, frontend: str | None, out: str | Path) -> str:
    """Harden a classifier of ours, write it as a checkpoint, and return the names of its front-ends.

    Raises:
        InputError: If it is hardened already, or ``out`` holds something else.
    """
    hardened = cast(Classifier, harden(model, frontend))
    save_checkpoint(hardened, out, image_size=model.about.get("image_size"))
    return hardened.config.frontend_name


def evaluate_plug_in(
    model: Model,
    dataset: ImageDataset,
    plan: EvaluationPlan | str,
    frontend: str | None,
    *,
    name: Entry,
    results: str | Path,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    corruptions: CorruptionSource = CorruptionSource(),  # noqa: B008 - frozen
) -> tuple[Evaluation, Comparison]:
    """Measure a classifier without and with a front-end before it.

    Args:
        model: The classifier.
        dataset: The test images.
        plan: The conditions to measure.
        frontend: As for :func:`~warplca.models.harden`.
        name: Entry of the classifier in the results; the other row is called ``NAME + FRONT-END``.
        results: Results store.
        execution: As for ``evaluate_sharded``.
        corruptions: As for ``evaluate_sharded``.

    Returns:
        The rows of both, as ``evaluate`` gives them, and the comparison; see :func:`advice`.
    """
    hardened = harden(model, frontend, image_size=max(dataset.images[0].shape[:2]))
    both = replace(name, name=f"{name.name} + {frontend or 'front-end'}")
    frames = [
        evaluate_sharded(
            network, dataset, plan, results=results, name=entry, execution=execution, corruptions=corruptions
        )
        for network, entry in ((model, name), (hardened, both))
    ]
    with ResultsStore(results, read_only=True) as store:
        rows = store.to_frame(predictions=True)
    rows = rows[rows["model"].isin([name.name, both.name]) & (rows["dataset"] == dataset.name)]
    return Evaluation(pd.concat(frames, ignore_index=True)), compare(rows, baseline=name.name)


def advice(comparison: Comparison) -> str:
    """Say in a sentence whether to use the front-end, with what clean images lose and corrupted ones gain."""
    (model,) = [name for name in comparison.summary["model"] if name != comparison.baseline]
    rows = headline_tests(comparison, model).to_dict("records")
    found = {judgement(row) for row in rows}
    shown = "; ".join(difference_text(row) for row in rows)
    if found == {NO_DIFFERENCE}:
        return f"No difference that these images can show: {shown}."
    if "worse" not in found:
        return f"Use it: {shown}."
    if "better" not in found:
        return f"Do not use it: {shown}."
    return f"It depends on your images: {shown}."
