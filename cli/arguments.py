"""What each command accepts, and its help texts. Imports nothing heavy: `--help` answers at once."""

from __future__ import annotations

import argparse

from ..configs.plan import PLANS
from .options import (
    CHECKPOINT_HELP,
    DATA_HELP,
    FILES_HELP,
    OWN_DATA_HELP,
    budget,
    config,
    device,
    imports,
    measured,
    print_config,
    table,
    trust,
)

FORMATS = ("onnx", "onnx-int8", "pt2", "aoti", "safetensors")


def _quickstart(commands: argparse._SubParsersAction) -> None:
    text = "train four small classifiers on embedded real photographs, measure and compare them (minutes, 2 cores)"
    parser = commands.add_parser("quickstart", help=text, description=text)
    imports(parser)
    parser.add_argument(
        "--fast", action="store_true", help="a one-minute version that only shows that it works"
    )
    parser.add_argument(
        "--out", default=None, help="folder for all results (default: runs/quickstart[-fast])"
    )
    device(parser)
    config(parser, "comparison", default=None)


def _prime(commands: argparse._SubParsersAction) -> None:
    text = "learn a dictionary and a state predictor from unlabelled images"
    parser = commands.add_parser("prime", help=text, description=text)
    parser.add_argument("--data", required=True, help=f"training images: {DATA_HELP}")
    parser.add_argument("--out", required=True, help="folder for the primed front-end")
    device(parser)
    config(parser, "prime", default="64x9s2")


def _train(commands: argparse._SubParsersAction) -> None:
    text = (
        "train a classifier end to end; the same command continues a stopped run, and under torchrun or accelerate "
        "launch several processes share it"
    )
    parser = commands.add_parser("train", help=text, description=text)
    imports(parser)
    config(parser, "train", default="warp-lca")
    parser.add_argument("--data", default=None, help=f"in place of the configuration's: {DATA_HELP}")
    parser.add_argument("--out", required=True, help="folder of the run")
    parser.add_argument(
        "--init",
        default=None,
        help="fine-tune: a checkpoint, or a safetensors file of a network, whose weights the backbone starts from",
    )
    device(parser)


def _evaluate(commands: argparse._SubParsersAction) -> None:
    text = "measure a checkpoint: clean, corrupted, attacked; finished cells are not measured again"
    parser = commands.add_parser("evaluate", help=text, description=text)
    imports(parser)
    measured(parser)
    parser.add_argument(
        "--plan",
        default=None,
        help=f"{', '.join(PLANS)}, or a YAML file (default: quick; with --harden plug-in, which takes about a minute)",
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that make corrupted images ahead")
    budget(parser, "start no further attack after so long: the best bound so far; the same command goes on")
    parser.add_argument(
        "--corrupted",
        default=None,
        metavar="DIR",
        help="read corrupted images from these files (CIFAR-10-C's layout)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="changes to the plan, e.g. attack_images=100"
    )
    print_config(parser)
    table(parser)


def _harden(commands: argparse._SubParsersAction) -> None:
    text = (
        "put a front-end before a trained classifier, which stays as it is, and write both as one checkpoint"
    )
    parser = commands.add_parser("harden", help=text, description=text)
    imports(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--checkpoint", default=None, help=CHECKPOINT_HELP)
    which.add_argument(
        "--timm",
        default=None,
        metavar="NAME[:FILE]",
        help="a model of timm's with its own weights, or with those of a safetensors file",
    )
    parser.add_argument(
        "--frontend",
        default=None,
        metavar="NAME",
        help="a chain or primed front-end by name, or a folder (default: the chain for the model's image size)",
    )
    parser.add_argument("--out", required=True, help="folder of the new checkpoint")


def _certify(commands: argparse._SubParsersAction) -> None:
    text = (
        "prove how far the smoothed classifier (majority over Gaussian copies of an image) keeps its class, and attack "
        "the same classifier; images that are done are not certified again"
    )
    parser = commands.add_parser("certify", help=text, description=text)
    imports(parser)
    measured(parser)
    parser.add_argument(
        "--sigma",
        nargs="+",
        type=float,
        required=True,
        metavar="S",
        help="standard deviations of the noise in pixels of [0, 1]; each is another smoothed classifier",
    )
    parser.add_argument(
        "--samples",
        nargs="+",
        type=int,
        default=[10_000],
        metavar="N",
        help="noisy copies of each image, fixed beforehand; several, rising, are planned looks, which share the "
        "failure probability of 0.001 (default: 10000)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=500,
        help="test images, class-balanced; 0 for all (default: %(default)s)",
    )
    budget(parser, "stop after so long; the same command goes on")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the images and the noise (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=100, help="copies in one pass (default: %(default)s)"
    )
    parser.add_argument(
        "--no-attack", action="store_true", help="leave out the attack on the smoothed classifier"
    )
    parser.add_argument(
        "--tell",
        action="store_true",
        help="give a front-end with adaptive lambda the true sigma in place of its estimate",
    )
    parser.add_argument("--clip", action="store_true", help="clip noisy copies to [0, 1]")
    table(parser)


def _compare(commands: argparse._SubParsersAction) -> None:
    text = "compare the models of a results store, with intervals and paired tests"
    parser = commands.add_parser("compare", help=text, description=text)
    parser.add_argument("--results", default="results.sqlite", help="results store (default: %(default)s)")
    parser.add_argument("--baseline", required=True, help="name of the model to compare with")
    parser.add_argument("--dataset", default=None, help="which data set's results, if the store has several")
    parser.add_argument(
        "--report", default=None, help="write a self-contained HTML report to this file as well"
    )
    table(parser)


def _export(commands: argparse._SubParsersAction) -> None:
    text = "export a checkpoint, checked against PyTorch on real images"
    parser = commands.add_parser("export", help=text, description=text)
    imports(parser)
    parser.add_argument("--checkpoint", required=True, help=CHECKPOINT_HELP)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="onnx",
        help="onnx, onnx-int8, pt2 (torch.export), aoti (AOTInductor, needs a C++ compiler), safetensors "
        "(default: %(default)s)",
    )
    parser.add_argument("--out", required=True, help="file, or with safetensors folder, to write")
    parser.add_argument(
        "--data", default=None, help=f"images to check on: {DATA_HELP} (default: {OWN_DATA_HELP})"
    )
    device(parser, "cpu; elsewhere only the check computes there, as every file is written for the CPU")
    parser.add_argument(
        "--results", default=None, help="results store whose figures for this network go along as evidence"
    )
    parser.add_argument("--name", default=None, help="its name in that store, if it has several")
    parser.add_argument("--dataset", default=None, help="which data set's results, if the store has several")


def _corrupt(commands: argparse._SubParsersAction) -> None:
    text = "write the corrupted versions of a test set in the layout of CIFAR-10-C"
    parser = commands.add_parser("corrupt", help=text, description=text)
    parser.add_argument("--data", required=True, help=f"test images: {DATA_HELP}")
    parser.add_argument("--out", required=True, help="folder for the .npy files")
    parser.add_argument(
        "--only",
        nargs="+",
        default=None,
        metavar="NAME",
        help="these corruptions, or the groups standard (15, the default) and all (19)",
    )
    parser.add_argument(
        "--severity", nargs="+", type=int, default=None, metavar="N", help="1 to 5 (default: all)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random corruptions (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")


def _data(commands: argparse._SubParsersAction) -> None:
    text = "fetch the official CIFAR-10-C files (2.9 GB), checksummed; the same command continues a stopped download"
    parser = commands.add_parser("data", help=text, description=text)
    parser.add_argument("name", choices=("cifar10-c",), help="what to fetch")
    parser.add_argument("--out", default="data/CIFAR-10-C", help="folder for it (default: %(default)s)")


def _denoise(commands: argparse._SubParsersAction) -> None:
    text = "remove noise from PNG or JPEG photographs of any size; its strength is estimated from each"
    parser = commands.add_parser("denoise", help=text, description=text)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG or JPEG files")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results, DIR/NAME.png")
    parser.add_argument(
        "--lam", type=float, default=None, help="threshold; by default chosen from the estimated noise"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    device(parser)
    text = "primed front-end, a name or a folder (default: cifar10-64x9s2-restore)"
    parser.add_argument("--frontend", default=None, help=text)
    parser.add_argument(
        "--iterations",
        type=int,
        default=None,
        help="cycles in all, shared among the shifts of the atoms' grid (default: 30; of front-ends primed to restore "
        "their own, without shifts)",
    )


def _info(commands: argparse._SubParsersAction) -> None:
    text = "describe a checkpoint: what it is, how robust, by what evidence; without one, list those in the package"
    parser = commands.add_parser("info", help=text, description=text)
    imports(parser)
    parser.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    parser.add_argument("--all", action="store_true", help="every setting and every measured cell as well")


def _predict(commands: argparse._SubParsersAction) -> None:
    text = "classify image files with a checkpoint in any format, and show how sparse codes are and what gates decided"
    parser = commands.add_parser("predict", help=text, description=text)
    imports(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="image files; resized to what the model takes"
    )
    parser.add_argument("--checkpoint", required=True, help=FILES_HELP)
    parser.add_argument("--top", type=int, default=5, help="classes to name (default: %(default)s)")
    device(parser)
    trust(parser)


def _keys(commands: argparse._SubParsersAction) -> None:
    text = "list the keys that KEY=VALUE may set: default, type, meaning, and which front-end or loss they belong to"
    parser = commands.add_parser("config", help=text, description=text)
    imports(parser)
    parser.add_argument(
        "kind",
        nargs="?",
        choices=("train", "comparison", "prime", "plan"),
        default="train",
        help="whose keys: of `train`, of `quickstart`, of `prime`, of the plans of `evaluate` (default: %(default)s)",
    )
    parser.add_argument(
        "key", nargs="?", default=None, help="only keys that hold this text, or of this front-end"
    )
    table(parser)


COMMANDS = (
    _quickstart,
    _prime,
    _train,
    _evaluate,
    _harden,
    _certify,
    _compare,
    _export,
    _corrupt,
    _data,
    _denoise,
    _info,
    _predict,
    _keys,
)
