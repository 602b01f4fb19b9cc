"""The `denoise` command."""

from __future__ import annotations

import argparse
from argparse import Namespace

from ..configs import InputError


def denoise(args: Namespace) -> int:
    """Denoise image files."""
    if args.lam is not None and not args.lam > 0:
        raise InputError(f"--lam is {args.lam}; give a number above 0.")
    if args.iterations < 1:
        raise InputError(f"--iterations is {args.iterations}; give 1 or more.")
    import logging

    from ..pipeline.denoise import FRONTEND, denoise_files

    # It would say of each image that its lambda is not the one of priming, which is how this command works.
    logging.getLogger("warplca.frontend.pretrained").setLevel(logging.ERROR)
    options = {"frontend": args.frontend or FRONTEND, "lam": args.lam, "iterations": args.iterations}
    denoise_files(args.images, args.out, **options, overwrite=args.overwrite, say=print)
    return 0


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    text = "remove noise from PNG or JPEG photographs of any size; its strength is estimated from each"
    parser = commands.add_parser("denoise", help=text, description=text)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG or JPEG files")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results, DIR/NAME.png")
    parser.add_argument(
        "--lam", type=float, default=None, help="threshold; by default chosen from the estimated noise"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    parser.add_argument("--frontend", default=None, help="primed front-end, a name or a folder")
    parser.add_argument(
        "--iterations",
        type=int,
        default=30,
        help="cycles in all, shared among the shifts of the atoms' grid (default: %(default)s)",
    )
