"""PyTorch's own formats: the torch.export archive (.pt2), and AOTInductor's compiled one.

Both are zip archives. PyTorch's loader evaluates text of theirs as expressions and unpickles some entries, and
AOTInductor's hold machine code: opening one needs the caller's consent. It is looked through all the same, so that
entries which only a pickle needs are refused.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...configs import InputError
from ...configs.errors import first_line
from ...configs.untrusted import check_zip, parse_json, plain_file
from .checked import ExportCheck, Run, export_checked, read_metadata

METADATA_FILE = "warplca.json"

NATIVE_FOLDER = "data/aotinductor/"

EXTRA = "extra/"


class ProgramBackend:
    """torch.export archives."""

    name = "torch.export"
    double = True

    def write(self, model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
        """Write a module with a dynamic batch."""
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "No complete tensor found"
            )  # channels-last weights are complete
            torch.export.save(
                exported(model, images), path, extra_files={METADATA_FILE: json.dumps(metadata)}
            )

    def open(self, path: Path) -> Run:
        """Open an archive."""
        return _runner(load_program(path, trust=True)[0])  # it was just written here


class CompiledBackend:
    """AOTInductor archives: the same program compiled to machine code for this kind of processor, not for a GPU."""

    name = "AOTInductor"
    double = True

    def write(self, model: nn.Module, images: Tensor, path: Path, metadata: Mapping[str, Any]) -> None:
        """Compile a module with a dynamic batch."""
        torch._inductor.aoti_compile_and_package(exported(model, images), package_path=str(path))
        with zipfile.ZipFile(path, "a") as archive:
            root = archive.namelist()[0].split("/")[0]  # PyTorch's reader wants all entries in one folder
            archive.writestr(f"{root}/{EXTRA}{METADATA_FILE}", json.dumps(metadata))

    def open(self, path: Path) -> Run:
        """Open an archive that was just compiled here."""
        return _runner(torch._inductor.aoti_load_package(str(path)))


def export_program(
    model: nn.Module, path: str | Path, images: Tensor, *, sparsity: bool = True
) -> ExportCheck:
    """Write a torch.export archive (.pt2), checked as :func:`~warplca.models.export.export_checked` describes.

    ``torch.export.load(path).module()(images)`` gives logits and, with a sparse code, its share of active units;
    with ``sparsity=False`` the logits alone.
    """
    return export_checked(ProgramBackend(), model, path, images, sparsity=sparsity)


def export_compiled(
    model: nn.Module, path: str | Path, images: Tensor, *, sparsity: bool = True
) -> ExportCheck:
    """Write an AOTInductor archive, checked as :func:`~warplca.models.export.export_checked` describes.

    Raises:
        InputError: If there is no C++ compiler, or the check fails.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "AOTInductor compiles to machine code and found no C++ compiler; install g++ or clang (or set CXX), or "
            "export to torch.export (.pt2) or ONNX, which need none."
        ) from error
    return export_checked(CompiledBackend(), model, path, images, sparsity=sparsity)


def exported(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Return the program of a module for images of this shape, at any batch size; it holds none of the images."""
    example = images.new_zeros(2, *images.shape[1:])
    with torch.no_grad():
        return torch.export.export(
            model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )


def load_program(path: str | Path, *, trust: bool = False) -> tuple[Any, dict[str, Any]]:
    """Open a .pt2 archive and return its callable and the description in the file.

    Args:
        path: A torch.export or AOTInductor archive.
        trust: Whether code in it may run: only from a source that you trust like a program.

    Raises:
        InputError: If it is no such archive, holds pickles, or there is no consent.
    """
    path = plain_file(path)
    compiled = any(name.startswith(NATIVE_FOLDER) for name in _entries(path))
    if not trust:
        what = "machine code (AOTInductor)" if compiled else "a program of PyTorch's"
        raise InputError(
            f"{path} holds {what}, which can run anything with all your rights when it is opened; it was not opened. "
            "If you trust its source like a program's, consent with --trust (in Python trust=True); checkpoint folders "
            "and ONNX files need no trust."
        )
    _refuse_pickles(path)
    try:
        if compiled:
            text = torch._C.PyTorchFileReader(str(path)).get_record(EXTRA + METADATA_FILE)
            return torch._inductor.aoti_load_package(str(path)), read_metadata(text, path)
        extra = {METADATA_FILE: ""}
        program = torch.export.load(path, extra_files=extra)
    except InputError:
        raise
    except Exception as error:  # torch's own readers raise whatever a damaged entry leads them to
        raise InputError(f"{path} cannot be read as a .pt2 archive: {first_line(error)}") from error
    return program.module(), read_metadata(extra[METADATA_FILE] or "{}", path)


def _entries(path: Path) -> list[str]:
    """Return the names of an archive's entries below its one folder, without PyTorch."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, path)
            found = archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no .pt2 archive, or is truncated.") from error
    names = [name.partition("/")[2] for name in found]
    if "archive_format" not in names or "version" in found:  # what torch.save or an older torch.export wrote
        raise InputError(f"{path} is no .pt2 archive of a present torch.export; it was not opened.")
    return names


def _refuse_pickles(path: Path) -> None:
    """Refuse an archive with entries that PyTorch would unpickle without restriction."""
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names: list[str] = reader.get_all_records()
    except RuntimeError as error:
        raise InputError(f"{path} is no .pt2 archive, or is truncated.") from error
    for name in names:
        if name.endswith("_config.json") and _wants_pickle(
            parse_json(reader.get_record(name), f"{path}, {name}")
        ):
            raise _pickled(path, name)
        if name.startswith("data/sample_inputs/") or name.endswith(".pt"):
            try:
                torch.load(io.BytesIO(reader.get_record(name)), weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                raise _pickled(path, name) from error


def _wants_pickle(config: Any) -> bool:
    entries = config.get("config", {}) if isinstance(config, dict) else {}
    return any(isinstance(entry, dict) and entry.get("use_pickle") for entry in entries.values())


def _pickled(path: Path, name: str) -> InputError:
    return InputError(
        f"{path} holds a pickle ({name}), which can run any program when it is opened; it was not opened. Export the "
        "model again with `warplca export`."
    )


def _runner(call: Any) -> Run:
    def run(images: Tensor) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = call(images)
        outputs = outputs if isinstance(outputs, list | tuple) else (outputs,)
        return [output.numpy() for output in outputs]

    return run
