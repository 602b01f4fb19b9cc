"""Hugging Face Hub: a repository is a checkpoint folder, so the same files serve here and there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import ModelHubMixin, snapshot_download

from ..configs import InputError
from .shipped import checkpoint_folder

if TYPE_CHECKING:
    from .classifier import Classifier


class HubAPI(ModelHubMixin):
    """``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` in terms of checkpoint folders."""

    def _save_pretrained(self, save_directory: Path) -> None:
        from .checkpoint import write_files

        write_files(cast("Classifier", self), save_directory)

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
    ) -> Classifier:
        """Load a classifier from a checkpoint folder or from a Hub repository, in evaluation mode.

        Only ``model.safetensors``, ``config.json``, the manifest and the card are downloaded, and checked like any
        checkpoint folder. Nothing is unpickled.

        Args:
            pretrained_model_name_or_path: A folder, the name of a shipped classifier, or a repository "user/name".
            revision: Branch, tag or commit of the repository.
            cache_dir: Where downloads are kept.
            force_download: Whether to download again what is there already.
            local_files_only: Whether to use only what was downloaded before.
            token: Access token for private repositories.

        Raises:
            InputError: If it is neither a folder nor a repository's name, or no sound checkpoint.
        """
        from .checkpoint import FILES, load_checkpoint

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
            source = snapshot_download(source, allow_patterns=list(FILES), library_name="warplca", **options)
        return load_checkpoint(source)
