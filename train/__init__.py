"""Training: loop, losses, augmentation."""
