"""A classifier as it is in foolbox, torchattacks and the Adversarial Robustness Toolbox (whichever are installed).

    pip install foolbox torchattacks adversarial-robustness-toolbox
    python other_toolboxes.py [CHECKPOINT]

torchattacks and ART fix versions of their own of common packages: an environment of their own is best.
"""

import importlib.util
import sys

import torch
from torch import nn

from warplca.data import load_dataset
from warplca.models import create_classifier, load_checkpoint

EPSILON = 4 / 255


def foolbox_pgd(model, images, labels):
    """Attack with foolbox."""
    import foolbox

    # foolbox's own step is a thirtieth of epsilon: five of them reach a sixth of the ball.
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    _, adversarial, _ = foolbox.attacks.LinfPGD(steps=5, rel_stepsize=1 / 3)(
        wrapped, images, labels, epsilons=EPSILON
    )
    return adversarial


def torchattacks_pgd(model, images, labels):
    """Attack with torchattacks."""
    import torchattacks

    return torchattacks.PGD(model, eps=EPSILON, alpha=EPSILON / 3, steps=5)(images, labels)


def art_pgd(model, images, labels):
    """Attack with ART."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(images.shape[1:]), model.num_classes, clip_values=(0.0, 1.0)
    )
    attack = ProjectedGradientDescent(
        classifier, eps=EPSILON, eps_step=EPSILON / 3, max_iter=5, verbose=False
    )
    return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))


def main():
    """Attack 32 photographs with each toolbox and print the accuracy that is left."""
    torch.manual_seed(0)
    model = load_checkpoint(sys.argv[1]) if len(sys.argv) > 1 else create_classifier("resnet18", "warp-lca")
    model.eval()
    images, labels = load_dataset("cifar10-subset", "test").tensors(range(32))
    toolboxes = {"foolbox": foolbox_pgd, "torchattacks": torchattacks_pgd, "art": art_pgd}
    for name, attack in toolboxes.items():
        if importlib.util.find_spec(name) is None:
            sys.stdout.write(f"{name}: not installed\n")
            continue
        adversarial = attack(model, images, labels)
        with torch.no_grad():
            accuracy = (model(adversarial).argmax(1) == labels).float().mean()
        size = (adversarial - images).abs().max()
        figures = f"{accuracy:.1%} left at Linf {EPSILON * 255:.0f}/255, largest change {size * 255:.2f}/255"
        sys.stdout.write(f"{name}: {figures}\n")


if __name__ == "__main__":
    main()
