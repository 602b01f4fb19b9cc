"""`warplca export`: a checkpoint in another format, with its evidence, checked before it is kept."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

FORMATS = ("onnx", "onnx-int8", "pt2", "aoti", "safetensors")


def export(args: Namespace) -> int:
    """Export a checkpoint."""
    from ..data import load_dataset
    from ..models import ExportCheck, load_checkpoint, save_checkpoint
    from ..pipeline.exports import EXPORTERS

    model = load_checkpoint(args.checkpoint)
    if args.results:
        from ..pipeline.evidence import collect_evidence

        model.about["evidence"] = collect_evidence(args.results, model, name=args.name)
    if args.format == "safetensors":
        save_checkpoint(model, args.out)
        print(f"wrote {args.out}")
        return 0
    check = EXPORTERS[args.format](
        model, Path(args.out), load_dataset(args.data, "test"), load_dataset(args.data, "train")
    )
    print(f"wrote {args.out} ({check.size / 1e6:.1f} MB)")
    if not isinstance(check, ExportCheck):
        print(
            f"measured on {check.images} images: accuracy {check.accuracy:.1%} in int8, {check.float_accuracy:.1%} in "
            f"float32, same prediction on {check.same_prediction:.1%}"
        )
        return 0
    print(
        f"checked against PyTorch on {check.images} images: max logit difference {check.max_difference:.2e},\n"
        f"within 1e-4 on {check.within_tolerance:.1%}, same prediction on {check.same_prediction:.2%}, "
        f"{check.outliers} outliers, of them shown to be threshold flips: {check.flips}"
    )
    double = check.double_difference
    print(f"in float64:  {'not available in this runtime' if double is None else f'{double:.1e}'}")
    print(f"one image:   {check.latency:.1f} ms, in PyTorch {check.eager_latency:.1f} ms (alternating runs)")
    return 0
