"""The results store: what was measured, image by image."""
