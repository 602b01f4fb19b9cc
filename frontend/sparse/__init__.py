"""Convolutional sparse coding: thresholds, dictionary, dynamics, solver, gradients, LCA and WARP-LCA."""
