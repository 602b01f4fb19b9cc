"""Small sections of every kind of front-end."""

from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "gabor_frontend.py"
SMALL = {"features": 8, "kernel_size": 5}
SECTIONS = {
    "none": "none",
    "conv": {"name": "conv", **SMALL},
    "lca": {"name": "lca", **SMALL, "iterations": 2, "threshold": "soft"},
    "warp-lca": {"name": "warp-lca", **SMALL, "iterations": 2, "predictor_width": 4, "predictor_depth": 1},
    "reconstruction": {
        "name": "lca",
        **SMALL,
        "iterations": 2,
        "output": "reconstruction",
        "threshold": "soft",
    },
    "equaliser": {"name": "equaliser", "strength": 0.5},
    "gabor": {"name": "gabor", **SMALL},
    "chain": [
        {"name": "lca", **SMALL, "iterations": 2, "output": "reconstruction", "threshold": "soft"},
        {"name": "equaliser"},
        {"name": "conv", **SMALL},
    ],
}
