"""What an attack hands back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AttackResult:
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
    """

    adversarial: Tensor
    predictions: Tensor
    correct: Tensor
    success: Tensor
    queries: int
    gradients: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def clean_accuracy(self) -> float:
        """Share of images classified rightly before the attack, 0 to 1."""
        return float(self.correct.double().mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of images that the attack did not break, 0 to 1."""
        return 1.0 - float(self.success.double().mean())
