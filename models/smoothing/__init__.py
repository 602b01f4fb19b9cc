"""Randomised smoothing: a classifier by majority over noisy copies, with a radius that no attack can break."""
