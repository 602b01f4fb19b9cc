"""Checkpoint folders: ``model.safetensors``, ``config.json``, ``README.md``, ``SHA256SUMS``; nothing is unpickled.

Those inside the package are found by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import timm
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.optim.swa_utils import AveragedModel

from .. import __version__
from ..configs import InputError
from ..configs.atomic import folder_written_whole, recover
from ..configs.errors import first_line
from ..configs.integrity import (
    MANIFEST,
    named_folder,
    names_in,
    refuse_pickle,
    refuse_pickles,
    verify_manifest,
    write_manifest,
)
from ..configs.load import to_plain
from ..configs.untrusted import folder_with, plain_file, read_json
from .card import model_card
from .card_checks import FORMAT, described
from .timm_api import TimmAPI, architecture, data_config, model_arguments

SHIPPED = Path(__file__).parent / "pretrained"


def shipped_checkpoints() -> list[str]:
    """Names of the classifiers inside the package, which ``load_checkpoint`` takes in place of a folder."""
    return names_in(SHIPPED)


def checkpoint_folder(source: str | Path) -> Path:
    """Return the folder that is meant: one of the user's, or else a shipped classifier of that name."""
    recover(Path(source))
    return named_folder(source, SHIPPED)


WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

FILES = (WEIGHTS, CONFIG, CARD, MANIFEST)

is_checkpoint = folder_with("warplca", FILES)
"""Tells whether a folder is a checkpoint and nothing else, and may therefore be replaced by another one."""


def save_checkpoint(
    model: nn.Module,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    training: Mapping[str, Any] | None = None,
    results: Mapping[str, str] | None = None,
    evidence: Mapping[str, Any] | None = None,
    image_size: tuple[int, int] | None = None,
    source: str | None = None,
) -> None:
    """Write a checkpoint folder, whole or not at all; an older checkpoint there is replaced, anything else refused.

    What is None is taken from ``model.about``, which a loaded model brings along.

    Args:
        model: The classifier, also compiled, averaged or spread over devices.
        folder: Folder to write.
        class_names: Names of the classes, in the order of the logits.
        training: Facts about the training (recipe, data, seed), as plain values.
        results: Measured figures for the model card, e.g. ``{"clean": "62.1 % of 1,000"}``.
        evidence: Measured cells, settings and verdict, as plain values; see :mod:`~warplca.models.card`.
        image_size: Height and width of the images it was trained on; None takes the backbone's, or 32 x 32.
        source: Training data as named for ``load_dataset``.

    Raises:
        InputError: If the folder holds anything but a checkpoint, cannot be written, or the disk is full; what was
            there before stays.
    """
    with folder_written_whole(Path(folder), ours=is_checkpoint) as target:
        write_files(
            model,
            target,
            class_names=class_names,
            training=training,
            results=results,
            evidence=evidence,
            image_size=image_size,
            source=source,
        )


WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(model: object) -> TimmAPI:
    """Return the classifier inside what compiles it, averages it or spreads it over devices.

    Raises:
        InputError: If there is none.
    """
    while isinstance(model, (*WRAPPERS, OptimizedModule)):
        model = model._orig_mod if isinstance(model, OptimizedModule) else model.module
    if not isinstance(model, TimmAPI):
        raise InputError(
            f"a checkpoint is of a classifier of warplca's, and this is a {type(model).__name__}; build one with "
            "create_classifier(backbone, frontend), or save other models with their own library."
        )
    return model


def write_files(model: nn.Module, folder: Path, **facts: Any) -> None:
    """Write a checkpoint's files into a folder; keyword arguments are those of :func:`save_checkpoint`."""
    model = unwrapped(model)
    config = describe(model, {**model.about, **{key: v for key, v in facts.items() if v is not None}})
    state = {
        name.replace("_orig_mod.", ""): tensor.detach().cpu().contiguous()  # of parts that are compiled
        for name, tensor in model.state_dict().items()
    }
    (folder / WEIGHTS).write_bytes(save(state))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(config), encoding="utf-8")
    write_manifest(folder, (WEIGHTS, CONFIG))  # the card is for people, who may edit it


def describe(model: TimmAPI, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's ``config.json``: timm's keys, so that timm can rebuild the model, and our own."""
    if not model.num_classes:
        raise InputError("the model has no classification layer; call reset_classifier(num_classes) first.")
    class_names = list(about.get("class_names", ()))
    cfg = data_config(model.config, model.in_chans, about.get("image_size"))
    return {
        "architecture": architecture(model.config.backbone),
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        **({"label_names": class_names} if class_names else {}),
        "model_args": model_arguments(model.config, model.in_chans),
        "pretrained_cfg": {**cfg, "num_classes": model.num_classes},
        "warplca": {
            "format": FORMAT,
            "version": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "model": to_plain(model.config),
            "class_names": class_names,
            "source": str(about.get("source", "")),
            "training": dict(about.get("training", {})),
            "results": dict(about.get("results", {})),
            "evidence": dict(about.get("evidence", {})),
        },
    }


def read_card(folder: str | Path) -> dict[str, Any]:
    """Return a checkpoint's ``config.json``, after checking the folder's files.

    Raises:
        InputError: If the folder or its config.json is missing, was not written by warplca, differs from its
            manifest, or if there is a pickle.
    """
    folder = checkpoint_folder(folder)
    if folder.is_file():
        refuse_pickle(folder)
    if not folder.is_dir():
        known = f", or a shipped one: {', '.join(shipped_checkpoints())}" if shipped_checkpoints() else ""
        raise InputError(
            f"there is no checkpoint folder {folder}; give the folder that `warplca train` wrote{known}."
        )
    path = folder / CONFIG
    refuse_pickles(folder)
    if not path.is_file():
        inner = folder / "checkpoint"
        hint = str(inner) if inner.is_dir() else "a checkpoint folder that `warplca train` wrote"
        raise InputError(f"{folder} holds no config.json; give {hint}.")
    verify_manifest(folder, (WEIGHTS, CONFIG))
    return described(read_json(path), path)


def load_weights(model: TimmAPI, path: Path) -> None:
    """Load a safetensors file into a classifier; every tensor must match by name and shape."""
    state = read_weights(path)
    own = model.state_dict()
    differing = sorted(own.keys() ^ state.keys())
    differing += [
        name
        for name in own
        if name in state
        and own[name].shape != state[name].shape
        and not name.endswith("_extra_state")
        and not getattr(model.get_submodule(name.rpartition(".")[0]), "any_length", False)
    ]
    if differing:
        raise InputError(
            f"{path} belongs to another architecture: {len(differing)} tensors differ from {model.config.backbone!r} "
            f"with front-end {model.config.frontend_name!r}, first {differing[0]!r}; load it with its own config.json."
        )
    bad = next(
        (name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()),
        None,
    )
    if bad is not None:
        raise InputError(
            f"{path} holds weights that are not finite, first in {bad!r}: that network is broken."
        )
    model.load_state_dict(state)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        InputError: If it is missing, truncated or no such file.
    """
    if not path.exists():
        raise InputError(f"{path.parent} holds no model.safetensors; copy the whole checkpoint folder.")
    try:
        return load_file(plain_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): it is truncated or no safetensors file."
        ) from error


def _from_hub(repository: str, options: Mapping[str, Any]) -> str:
    """Download a repository's files and return their folder."""
    try:
        return snapshot_download(repository, allow_patterns=list(FILES), library_name="warplca", **options)
    except (OSError, ValueError, HfHubHTTPError) as error:  # what the Hub's client raises
        raise InputError(
            f"{repository} cannot be had from the Hub ({first_line(error)}); check its name, the network and your "
            "access, or give a folder."
        ) from error


class HubAPI(ModelHubMixin):
    """``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` in terms of checkpoint folders."""

    def _save_pretrained(self, save_directory: Path) -> None:
        write_files(cast(TimmAPI, self), save_directory)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Load a checkpoint folder."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Load a classifier from a checkpoint folder or from a Hub repository, in evaluation mode.

        Only ``model.safetensors``, ``config.json``, the manifest and the card are downloaded, and checked like any
        checkpoint folder. Nothing is unpickled.

        Args:
            pretrained_model_name_or_path: A folder, the name of a shipped classifier, or a repository "user/name".
            revision: Branch, tag or commit of the repository.
            cache_dir: Folder in which downloads are kept.
            force_download: Whether to download again what is there already.
            local_files_only: Whether to use only what was downloaded before.
            token: Access token for private repositories.

        Raises:
            InputError: If it is neither a folder nor a repository's name, or no sound checkpoint.
        """
        source = str(pretrained_model_name_or_path)
        if not checkpoint_folder(source).is_dir():
            if len(source.split("/")) != 2 or source.startswith((".", "/")):
                raise InputError(
                    f"there is no checkpoint folder {source}; give a folder, or a Hub repository as 'user/name'."
                )
            options: dict[str, Any] = {
                "revision": revision,
                "cache_dir": cache_dir,
                "force_download": force_download,
                "local_files_only": local_files_only,
                "token": token,
            }
            source = _from_hub(source, options)
        return cls.from_folder(source)
