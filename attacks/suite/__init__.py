"""Suites: several attacks in turn, the worst case of each image, and whether the figure can be trusted."""
