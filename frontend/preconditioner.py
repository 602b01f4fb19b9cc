"""A preconditioner for the dynamics: the atoms at one place settle their competition in a single step.

    u <- u + eta P (Phi^T (x - Phi a) + a - u) + mu (u - u_before),    P = (G + damping I)^-1

with G the Gram matrix of the atoms. P is positive definite, so the fixed points are those of plain dynamics. Atoms that
share a place are the most alike, and P takes apart what they have in common; it acts on each place alone, as a
pointwise convolution. Source: block-diagonal preconditioning (Saad, "Iterative methods for sparse linear systems",
2003, chapter 10), the damping after Levenberg and Marquardt.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .spectrum import spectral_bound

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
    """Return P for atoms (M, C, k, k) of unit norm, in their dtype."""
    rows = atoms.flatten(1).to(torch.promote_types(atoms.dtype, torch.float32))
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    root = (vectors * (values.clamp_min(0.0) + DAMPING).rsqrt()) @ vectors.mT
    bound = spectral_bound((root @ rows).view(atoms.shape), stride)
    return Preconditioner((root @ root)[:, :, None, None].to(atoms.dtype), bound.to(atoms.dtype))
