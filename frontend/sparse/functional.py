"""The two linear maps of convolutional sparse coding, as pure functions.

``analyse`` (Phi^T) is a strided convolution with ``same`` padding; ``synthesise`` (Phi) is its exact
adjoint, the transposed convolution, at every kernel size, stride and image size. The synthesis is
computed as a convolution that yields one block of pixels per position, followed by ``pixel_shuffle``
(the sub-pixel convolution of Shi et al., CVPR 2016): the same sums as ``conv_transpose2d``, which CPU
libraries compute several times slower.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def state_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the code's (height, width), ceil(H / stride) by ceil(W / stride), for an image of ``size``."""
    return -(-size[0] // stride), -(-size[1] // stride)


def left_padding(kernel_size: int) -> int:
    """Return the number of pixels by which the first atom overhangs the image."""
    return (kernel_size - 1) // 2


def analyse(images: Tensor, atoms: Tensor, stride: int) -> Tensor:
    """Correlate images with every atom: Phi^T x.

    Args:
        images: (N, C, H, W).
        atoms: (M, C, k, k).
        stride: Step between neighbouring atoms, 1 to k.

    Returns:
        The drive, (N, M, ceil(H / stride), ceil(W / stride)).
    """
    kernel = atoms.shape[-1]
    if kernel % 2 == 0:  # symmetric padding falls one short where the kernel is even
        images = F.pad(images, (0, 1, 0, 1))
    return F.conv2d(images, atoms, stride=stride, padding=left_padding(kernel))


def synthesis_kernel(atoms: Tensor, stride: int) -> Tensor:
    """Rearrange atoms into the kernel of the blocked synthesis.

    With B pixels per block side, the pixel r of block q gets code position p = (B / stride) q + e through
    the atom's row r + left - stride e. Offsets e that reach no row are left out.

    Args:
        atoms: (M, C, k, k).
        stride: Step between neighbouring atoms.

    Returns:
        (C * B * B, M, E, E), to be used by :func:`synthesise`.
    """
    features, channels, kernel, _ = atoms.shape
    block = _block(stride)
    first, last = _offsets(kernel, stride)
    rows = torch.arange(block, device=atoms.device)[:, None] + left_padding(kernel)
    rows = rows - stride * torch.arange(first, last + 1, device=atoms.device)[None, :]
    rows = torch.where((rows >= 0) & (rows < kernel), rows, kernel)  # row `kernel` is the zero row
    padded = F.pad(atoms, (0, 1, 0, 1))
    blocks = padded[:, :, rows][..., rows]  # (M, C, B, E, B, E)
    blocks = blocks.permute(1, 2, 4, 0, 3, 5)
    extent = last - first + 1
    return blocks.reshape(channels * block * block, features, extent, extent)


def synthesise(code: Tensor, kernel: Tensor, kernel_size: int, stride: int, size: tuple[int, int]) -> Tensor:
    """Add up the atoms that a code selects: Phi a, the exact adjoint of :func:`analyse`.

    Args:
        code: (N, M, ceil(H / stride), ceil(W / stride)).
        kernel: From :func:`synthesis_kernel`.
        kernel_size: The atoms' side k.
        stride: Step between neighbouring atoms.
        size: (H, W) of the images to make.

    Returns:
        (N, C, H, W).
    """
    block = _block(stride)
    hop = block // stride
    first, _ = _offsets(kernel_size, stride)
    counts = [-(-length // block) for length in size]
    before = -first
    after = [
        hop * (count - 1) + kernel.shape[-1] - before - have
        for count, have in zip(counts, code.shape[2:], strict=True)
    ]
    if hop == 1:
        # Symmetric padding costs nothing inside the convolution; what it adds at the front is sliced away.
        padding = [max(before, extra, 0) for extra in after]
        skip = [pad - before for pad in padding]
    else:
        padding = [before, before]
        skip = [0, 0]
        extra = [max(have - before, 0) for have in after]
        if any(extra):
            code = F.pad(code, (0, extra[1], 0, extra[0]))
    blocks = F.conv2d(code, kernel, stride=hop, padding=padding)
    blocks = blocks[:, :, skip[0] : skip[0] + counts[0], skip[1] : skip[1] + counts[1]]
    return F.pixel_shuffle(blocks, block)[:, :, : size[0], : size[1]]


def _block(stride: int) -> int:
    """Side of the pixel block per position: at stride 1, two code positions share one block."""
    return stride if stride > 1 else 2


def _offsets(kernel: int, stride: int) -> tuple[int, int]:
    """First and last code offset that reach a block of pixels."""
    left = left_padding(kernel)
    return -((kernel - 1 - left) // stride), (_block(stride) - 1 + left) // stride
