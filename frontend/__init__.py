"""Thresholds, dictionary, solver, LCA, predictor, WARP-LCA, priming, sparse-coding metrics."""
