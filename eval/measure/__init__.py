"""Measuring a model: which cells a plan has, their images, predictions and attacks."""
