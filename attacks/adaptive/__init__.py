"""Attacks that know the defence: other gradients through layers, modules and calls, and attacks on the code."""
