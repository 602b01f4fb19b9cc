"""The outcome of an attack, and the figures that it shares with the outcome of a suite."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


class Accuracies:
    """Figures of an outcome on N images.

    Attributes:
        correct: (N,) whether the clean image was classified rightly.
        success: (N,) whether the image was broken; true wherever ``correct`` is false.
    """

    correct: Tensor
    success: Tensor

    @property
    def clean_accuracy(self) -> float:
        """Share of images classified rightly before the attack, 0 to 1."""
        return float(self.correct.double().mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of images that no attack broke, 0 to 1: an upper bound on the true robust accuracy."""
        return 1.0 - float(self.success.double().mean())


@dataclass(frozen=True)
class AttackResult(Accuracies):
    """Outcome of one attack on N images.

    Attributes:
        adversarial: (N, C, H, W) images in [0, 1] inside the ball. An image that the model got wrong
            before the attack comes back unchanged; one that withstood comes back as the attack's last
            try, or unchanged where the attack keeps none.
        predictions: (N,) classes of ``adversarial`` on the real forward pass.
        correct: (N,) whether the clean image was classified rightly.
        success: (N,) whether ``adversarial`` is misclassified (for attacks on a stand-in: in batches of many
            and of one); true wherever ``correct`` is false.
        queries: Images that the attack passed forward (the checks around it not counted).
        gradients: Images that the attack passed backward.
        seconds: Wall-clock time of the attack and its checks.
        notes: Everything that makes the figure less than it looks, in sentences; empty if nothing does.
        zero_gradients: Images passed backward whose gradient came out as zero in every pixel.
    """

    adversarial: Tensor
    predictions: Tensor
    correct: Tensor
    success: Tensor
    queries: int
    gradients: int
    seconds: float
    notes: tuple[str, ...] = ()
    zero_gradients: int = 0
