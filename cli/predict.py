"""`warplca predict`: classes of image files, from a checkpoint in any format."""

from __future__ import annotations

from argparse import Namespace


def predict(args: Namespace) -> int:
    """Print the most probable classes of each image, and how sparse its code is."""
    import torch

    from ..configs import InputError
    from ..models import open_predictor

    if args.top < 1:
        raise InputError(f"--top is {args.top}; give 1 or more.")
    predictor = open_predictor(args.checkpoint, native=args.native)
    for path in args.images:
        logits, active = predictor.answer(predictor.read(path))
        probabilities = torch.from_numpy(logits[0]).softmax(0)
        best = probabilities.topk(min(args.top, len(probabilities)))
        told = ", ".join(
            f"{predictor.name(int(index))} {float(value):.1%}" for value, index in zip(*best, strict=True)
        )
        sparsity = "" if active is None else f"; {float(active[0]):.2%} of the code is active"
        print(f"{path}: {told}{sparsity}")
    return 0
