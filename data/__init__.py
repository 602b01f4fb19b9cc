"""Data sets, the embedded CIFAR-10 subset, the CIFAR-10-C generator and reader."""
