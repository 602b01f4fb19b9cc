"""How to fine-tune a trained network behind a front-end: rates, rates by layer, a teacher. One line of a CSV a run.

    OMP_NUM_THREADS=1 python benchmarks/fine_tuning.py --data cifar10.npz --init cifar10-quick --out runs/fine-tuning

Each run puts the front-end of an arm (benchmarks/gpu/arms/) before the network of --init, trains both on for one pass
over --images training images, and measures --measured of the 5,000 held-out training images, clean and under the four
corruptions that CIFAR-10-C keeps for choices, at severity 3. The variant "untouched" is not trained. Lines that the CSV
has are not made again. Held-out is what no run of ours trains on by `train.validation_images=5000`: a network that was
trained on all images, such as the shipped ones, has seen them, and then the figures tell what is kept.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from warplca.configs import EvaluationPlan, RunConfig, load_config
from warplca.data import EXTRA_CORRUPTIONS, ImageDataset, corrupt, load_dataset
from warplca.eval import Execution, evaluate
from warplca.models import Classifier, build_classifier
from warplca.train import Interrupted, train
from warplca.train.initial import start_from

ARMS = Path(__file__).parent / "gpu" / "arms"
SEVERITY, HELD_OUT = 3, 5000
VARIANTS = {
    "untouched": [],
    "plain": [],
    "rate / 3": ["train.learning_rate={third}"],
    "rate / 10": ["train.learning_rate={tenth}"],
    "layers 0.8": ["train.layer_decay=0.8"],
    "layers 0.65": ["train.layer_decay=0.65"],
    "teacher 0.5": ["train.loss={{name: distillation, weight: 0.5}}"],
    "teacher 1": ["train.loss={{name: distillation, weight: 1.0}}"],
}


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="CIFAR-10, a source as `warplca train` takes it")
    options.add_argument("--init", default="cifar10-quick", help="(default: %(default)s)")
    options.add_argument("--arms", nargs="+", default=["warp-lca", "conv"], help="(default: %(default)s)")
    options.add_argument("--variants", nargs="+", default=list(VARIANTS), help="(default: all)")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="(default: %(default)s)")
    options.add_argument("--images", type=int, default=1536, help="to train on (default: %(default)s)")
    options.add_argument("--batch-size", type=int, default=64, help="(default: %(default)s)")
    options.add_argument("--rate", type=float, default=0.1, help="of training (default: %(default)s)")
    options.add_argument("--measured", type=int, default=400, help="held-out images (default: %(default)s)")
    options.add_argument(
        "--also", nargs="*", default=[], help="further KEY=VALUE of every run; give it another --out"
    )
    options.add_argument("--out", type=Path, default=Path("runs/fine-tuning"), help="(default: %(default)s)")
    return options


def configured(args: argparse.Namespace, arm: str, variant: str, seed: int) -> RunConfig:
    """The run of an arm."""
    rates = {"third": args.rate / 3, "tenth": args.rate / 10}
    changes = [word.format(**rates) for word in VARIANTS[variant]]
    common = [f"train.{key}" for key in ("validation_images=0", "epochs=1", "warmup=0.1", "save_minutes=60")]
    common += [
        f"train.learning_rate={args.rate}",
        f"train.batch_size={args.batch_size}",
        f"train.seed={seed}",
    ]
    words = [*common, f"train.init={args.init}", "model.num_classes=10", *args.also, *changes]
    return load_config(RunConfig, ARMS / f"{arm}.yaml", "train", words)


def conditions(held_out: ImageDataset) -> dict[str, ImageDataset]:
    """What is measured, by name."""
    made = {"clean": held_out}
    for name in EXTRA_CORRUPTIONS:
        images = corrupt(np.asarray(held_out.images), name, severity=SEVERITY, indices=held_out.indices)
        made[name] = ImageDataset(name, images, held_out.labels, held_out.class_names)
    return made


def tuned(config: RunConfig, variant: str, images: ImageDataset, folder: Path) -> Classifier:
    """The network after its run, or before it."""
    if variant != "untouched":
        try:
            return train(config, images, folder, progress=False, device="cpu")
        except Interrupted as stop:
            raise SystemExit(f"{stop}; the same command goes on") from None
    model = build_classifier(config.model)
    start_from(model, str(config.train.init))
    return model.eval()


def main() -> None:
    """Run from the command line."""
    args = parser().parse_args()
    torch.set_num_threads(1)
    rest, held_out = load_dataset(args.data, "train").split(HELD_OUT, seed=0)
    images = rest.split(args.images, seed=1)[1]
    measured = conditions(held_out.split(args.measured, seed=1)[1])
    path = args.out / "fine-tuning.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for variant in args.variants:
        for arm in args.arms:
            for seed in args.seeds if variant != "untouched" else args.seeds[:1]:
                key = {"arm": arm, "variant": variant, "seed": seed}
                if any(key.items() <= row.items() for row in rows):
                    continue
                began = time.process_time()
                config = configured(args, arm, variant, seed)
                name = f"{arm}-{variant}-{seed}".replace(" ", "").replace("/", "by")
                model = tuned(config, variant, images, args.out / name)
                row = {**key, "seconds": round(time.process_time() - began, 1)}
                for condition, dataset in measured.items():
                    found = evaluate(
                        model, dataset, EvaluationPlan(batch_size=100), execution=Execution(progress=False)
                    )
                    row[condition] = float(found["accuracy"].iloc[0])
                rows.append(row)
                pd.DataFrame(rows).to_csv(path, index=False)
                print(row, flush=True)
    print_means(pd.DataFrame(rows))


def print_means(rows: pd.DataFrame) -> None:
    """The table: means over seeds in percent."""
    rows["corrupted"] = rows[list(EXTRA_CORRUPTIONS)].mean(axis=1)
    shown = ["clean", *EXTRA_CORRUPTIONS, "corrupted"]
    means = 100 * rows.groupby(["arm", "variant"], sort=False)[shown].mean()
    means["spread of clean"] = 100 * rows.groupby(["arm", "variant"])["clean"].std()
    print(means.round(1).to_string())


if __name__ == "__main__":
    main()
