"""Threat models and attacks on any callable that maps pixels in [0, 1] to logits."""
