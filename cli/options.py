"""Options that several commands have."""

from __future__ import annotations

import argparse

from ..configs.load import preset_names

DATA_HELP = (
    "cifar10-subset (embedded), a .npz file, torchvision:DIR (torchvision-download:DIR fetches it first), a folder "
    "with train/<class>/ and test/<class>/, or files:SIZE:DIR, which leaves the images on disk"
)
OWN_DATA_HELP = "what the checkpoint was trained on; where that is not here, the embedded set if it fits"
CHECKPOINT_HELP = "folder that `warplca train` wrote, or a shipped classifier's name"
FILES_HELP = f"{CHECKPOINT_HELP}; an .onnx file, a .pt2 archive"
OVERRIDES_HELP = "changes to the configuration, e.g. train.epochs=30 model.frontend.lam=0.3"


def imports(parser: argparse.ArgumentParser) -> None:
    """Files of the user's that register classes."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE.py",
        help="a Python file of yours to run first, which registers front-ends; may be given several times",
    )


def trust(parser: argparse.ArgumentParser) -> None:
    """Consent to programs."""
    text = "open a .pt2 archive, which can run any code: only one that you trust"
    parser.add_argument("--trust", action="store_true", help=text)


def device(
    parser: argparse.ArgumentParser, default: str = "the accelerator if there is one, else cpu"
) -> None:
    """Where to compute."""
    parser.add_argument(
        "--device",
        default=None,
        metavar="DEVICE",
        help=f"where to compute: cpu, cuda, cuda:1, mps, ... (default: {default})",
    )


def table(parser: argparse.ArgumentParser) -> None:
    """How to print a table."""
    parser.add_argument(
        "--format",
        dest="table",
        choices=("text", "json", "csv"),
        default="text",
        help="how to print the table; with json and csv nothing else goes to stdout (default: %(default)s)",
    )


def quiet(parser: argparse.ArgumentParser) -> None:
    """The option of every command."""
    text = "no progress, neither bars nor lines (as the variable TQDM_DISABLE=1 of the environment)"
    parser.add_argument("--quiet", action="store_true", help=text)


def print_config(parser: argparse.ArgumentParser) -> None:
    """Print the configuration and stop."""
    text = "print the whole configuration as YAML, as this command would run with it, and stop"
    parser.add_argument("--print-config", action="store_true", help=text)


def measured(parser: argparse.ArgumentParser) -> None:
    """Options of commands that measure a checkpoint and keep what they found."""
    parser.add_argument("--checkpoint", required=True, help=FILES_HELP)
    trust(parser)
    parser.add_argument("--data", default=None, help=f"test images: {DATA_HELP} (default: {OWN_DATA_HELP})")
    parser.add_argument("--results", default="results.sqlite", help="results store (default: %(default)s)")
    parser.add_argument(
        "--name", default=None, help="the model's name in the results (default: that of the run's folder)"
    )
    parser.add_argument(
        "--model-seed",
        type=int,
        default=None,
        help="training seed that distinguishes networks of one name (default: the checkpoint's)",
    )
    parser.add_argument(
        "--replace", action="store_true", help="delete results of another network under this name and seed"
    )
    parser.add_argument(
        "--harden",
        nargs="?",
        const="",
        default=None,
        metavar="NAME",
        help="put a front-end before the classifier, which stays as it is: a chain or primed front-end by name, or a "
        "folder; without a name the chain for its image size",
    )
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="let NVIDIA GPUs round float32 to TF32 in convolutions: faster, other rounding, and the results say so",
    )
    device(parser)


def budget(parser: argparse.ArgumentParser, text: str) -> None:
    """Minutes."""
    parser.add_argument("--budget", type=float, default=None, metavar="MINUTES", help=text)


def config(parser: argparse.ArgumentParser, kind: str, default: str | None) -> None:
    """Presets and overrides of a kind, and a way to look at the outcome."""
    shown = f" (default: {default})" if default else ""
    parser.add_argument(
        "--config",
        default=default,
        help=f"YAML file, or one of: {', '.join(preset_names(kind))}; several joined by +, later ones win{shown}",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES_HELP)
    print_config(parser)
