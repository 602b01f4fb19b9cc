"""The largest eigenvalue of Phi^T Phi for every image size at once, and a preconditioner that lowers it.

On an unbounded grid the strided convolution is block-diagonal in frequency: at frequency w it is the
matrix A(w) of C s^2 rows (polyphase components of the image) and M columns (atoms). Its largest squared
singular value over all w bounds ||Phi^T Phi||_2 on every finite image, because a finite image is a
restriction of the unbounded one. Power iteration would bound it from below, for one size only.

With the preconditioner the atoms at one place settle their competition in a single step:

    u <- u + eta P (Phi^T (x - Phi a) + a - u) + mu (u - u_before),    P = (G + damping I)^-1

with G the Gram matrix of the atoms. P is positive definite, so the fixed points are those of plain dynamics. Atoms that
share a place are the most alike, and P takes apart what they have in common; it acts on each place alone, as a
pointwise convolution. Source: block-diagonal preconditioning (Saad, "Iterative methods for sparse linear systems",
2003, chapter 10), the damping after Levenberg and Marquardt.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs.device import precisely

MARGIN = 1.01  # covers what lies between the points of the frequency grid


@torch.no_grad()
def spectral_bound(atoms: Tensor, stride: int) -> Tensor:
    """Return L >= ||Phi^T Phi||_2 as a scalar tensor of the atoms' dtype, without gradient.

    It is computed in single precision at least, even under autocast: rounding to 8 bits would spoil the eigenvalues.

    Args:
        atoms: (M, C, k, k).
        stride: Step between neighbouring atoms.
    """
    with precisely(atoms):
        polyphase = _polyphase(at_least_single(atoms), stride)
        taps = polyphase.shape[-1]
        grid = max(16, 6 * taps)
        symbol = torch.fft.rfft2(
            polyphase, s=(grid, grid)
        )  # real filters: half the plane holds every modulus
        symbol = symbol.permute(2, 3, 0, 1).flatten(0, 1)  # (frequencies, C s^2, M)
        rows, columns = symbol.shape[1:]
        gram = symbol @ symbol.mH if rows <= columns else symbol.mH @ symbol
        return (torch.linalg.eigvalsh(gram)[:, -1].max() * MARGIN).to(atoms.dtype)


def at_least_single(values: Tensor) -> Tensor:
    """Return values in float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _polyphase(atoms: Tensor, stride: int) -> Tensor:
    """Split atoms into (C s^2, M, taps, taps): the filters between code and each image phase."""
    features, channels, kernel, _ = atoms.shape
    taps = -(-kernel // stride)
    excess = taps * stride - kernel
    padded = F.pad(atoms, (0, excess, 0, excess))
    split = padded.reshape(features, channels, taps, stride, taps, stride)
    return split.permute(1, 3, 5, 0, 2, 4).reshape(channels * stride * stride, features, taps, taps)


DAMPING = 3.0  # of atoms of unit norm; from 2 to 5 nearly alike, see docs/priming.md


class Preconditioner(NamedTuple):
    """P and what bounds steps with it.

    Attributes:
        matrix: P, (M, M, 1, 1), symmetric and positive definite; no gradient.
        lipschitz: Scalar bound L_P on the norm of P^(1/2) Phi^T Phi P^(1/2). Where every unit is active, steps below
            2 (1 + mu) / L_P are stable. Where only some are, P mixes them with the others and there is no such bound:
            1 / L_P with mu up to 0.85 was stable on random active sets, with 0.9 not always. Hence the guard.
    """

    matrix: Tensor
    lipschitz: Tensor


@torch.no_grad()
def preconditioner(atoms: Tensor, stride: int) -> Preconditioner:
    """Return P for atoms (M, C, k, k) of unit norm, in their dtype, computed as :func:`spectral_bound` is."""
    with precisely(atoms):
        rows = at_least_single(atoms).flatten(1)
        values, vectors = torch.linalg.eigh(rows @ rows.mT)
        root = (vectors * (values.clamp_min(0.0) + DAMPING).rsqrt()) @ vectors.mT
        bound = spectral_bound((root @ rows).view(atoms.shape), stride)
        return Preconditioner((root @ root)[:, :, None, None].to(atoms.dtype), bound.to(atoms.dtype))
