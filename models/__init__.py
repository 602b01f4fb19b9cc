"""Classifiers: a front-end before a timm backbone; checkpoints and export."""
