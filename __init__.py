"""WARP-LCA sparse-coding front-ends for robust image classifiers."""

__version__ = "0.1.0"
