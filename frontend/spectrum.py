"""The largest eigenvalue of Phi^T Phi for every image size at once.

On an unbounded grid the strided convolution is block-diagonal in frequency: at frequency w it is the
matrix A(w) of C s^2 rows (polyphase components of the image) and M columns (atoms). Its largest squared
singular value over all w bounds ||Phi^T Phi||_2 on every finite image, because a finite image is a
restriction of the unbounded one. Power iteration would bound it from below, for one size only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 1.01  # covers what lies between the points of the frequency grid


@torch.no_grad()
def spectral_bound(atoms: Tensor, stride: int) -> Tensor:
    """Return L >= ||Phi^T Phi||_2 as a scalar tensor of the atoms' dtype, without gradient.

    Args:
        atoms: (M, C, k, k).
        stride: Step between neighbouring atoms.
    """
    polyphase = _polyphase(atoms.to(torch.promote_types(atoms.dtype, torch.float32)), stride)
    taps = polyphase.shape[-1]
    grid = max(16, 6 * taps)
    symbol = torch.fft.rfft2(polyphase, s=(grid, grid))  # real filters: half the plane holds every modulus
    symbol = symbol.permute(2, 3, 0, 1).flatten(0, 1)  # (frequencies, C s^2, M)
    rows, columns = symbol.shape[1:]
    gram = symbol @ symbol.mH if rows <= columns else symbol.mH @ symbol
    return (torch.linalg.eigvalsh(gram)[:, -1].max() * MARGIN).to(atoms.dtype)


def _polyphase(atoms: Tensor, stride: int) -> Tensor:
    """Split atoms into (C s^2, M, taps, taps): the filters between code and each image phase."""
    features, channels, kernel, _ = atoms.shape
    taps = -(-kernel // stride)
    excess = taps * stride - kernel
    padded = F.pad(atoms, (0, excess, 0, excess))
    split = padded.reshape(features, channels, taps, stride, taps, stride)
    return split.permute(1, 3, 5, 0, 2, 4).reshape(channels * stride * stride, features, taps, taps)
