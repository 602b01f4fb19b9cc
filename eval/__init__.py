"""The robustness suite: evaluate, results store, compare, report."""
