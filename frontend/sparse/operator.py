"""The convolutional dictionary as a pair of adjoint linear maps that autograd knows to be adjoint.

Autograd's own backward of a strided convolution is ``conv_transpose``, several times slower on CPUs than
the blocked synthesis. Since each map is the other's adjoint, the backward of one is the forward of the
other; and the gradient for the atoms is the same correlation of images with code in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.grad
from torch import Tensor

from ...configs.device import on_tensor_cores, precisely
from ...configs.errors import InputError
from . import functional
from .spectrum import Preconditioner


@dataclass(frozen=True)
class ConvOperator:
    """Phi and Phi^T for fixed atoms.

    Attributes:
        atoms: (M, C, k, k), unit norm each.
        stride: Step between neighbouring atoms.
        kernel: The atoms rearranged for the blocked synthesis; holds no gradient.
        lipschitz: L >= ||Phi^T Phi||_2, a scalar tensor without gradient.
        convolution_dtype: Data type of the convolutions, for instance bfloat16; their results come back in
            the dtype of the input. None: autocast's dtype where it is on, else the input's own.
        preconditioner: P for these atoms, where the dictionary was asked for one.
        cast: Atoms, kernel and P in the dtype of the convolutions; see :meth:`cast_for`.
    """

    atoms: Tensor
    stride: int
    kernel: Tensor
    lipschitz: Tensor
    convolution_dtype: torch.dtype | None = None
    preconditioner: Preconditioner | None = None
    cast: tuple[Tensor, Tensor, Tensor | None] | None = None

    @classmethod
    def from_atoms(
        cls, atoms: Tensor, stride: int, lipschitz: Tensor, preconditioner: Preconditioner | None = None
    ) -> ConvOperator:
        """Prepare the operator; the kernel for the synthesis is made once."""
        kernel = functional.synthesis_kernel(atoms.detach(), stride)
        return cls(atoms, stride, kernel, lipschitz, preconditioner=preconditioner)

    def analyse(self, images: Tensor) -> Tensor:
        """Phi^T x: (N, C, H, W) -> (N, M, ceil(H/s), ceil(W/s))."""
        return self._in_dtype(self._analyse, images)

    def synthesise(self, code: Tensor, size: tuple[int, int]) -> Tensor:
        """Phi a: (N, M, ceil(H/s), ceil(W/s)) -> (N, C, H, W)."""
        return self._in_dtype(partial(self._synthesise, size=size), code)

    def precondition(self, values: Tensor) -> Tensor:
        """P v: (N, M, h, w) -> the same shape.

        Raises:
            InputError: If the dictionary was not asked for a preconditioner.
        """
        if self.preconditioner is None:
            raise InputError(
                "this dictionary has no preconditioner; build it with preconditioned=True, as WarpLCA does."
            )
        dtype = self.dtype_for(values)
        matrix = self._weights(dtype)[2]
        with precisely(values):
            return F.conv2d(values.to(dtype), matrix).to(values.dtype)  # type: ignore[arg-type]

    def bound(self, *, preconditioned: bool) -> Tensor:
        """Return the bound on step sizes: L, or that of the preconditioned dynamics."""
        if preconditioned and self.preconditioner is not None:
            return self.preconditioner.lipschitz
        return self.lipschitz

    def detached(self) -> ConvOperator:
        """Return the same maps without gradient to the atoms."""
        return replace(self, atoms=self.atoms.detach(), cast=None)

    def computing_in(self, dtype: torch.dtype | None) -> ConvOperator:
        """Return the same maps with another ``convolution_dtype``."""
        return replace(self, convolution_dtype=dtype, cast=None)

    def cast_for(self, values: Tensor) -> ConvOperator:
        """Return the same maps with atoms cast once, in the present gradient mode, for many convolutions of values.

        They are arranged as :meth:`arranged` arranges values.
        """
        dtype = self.dtype_for(values)
        last = on_tensor_cores(values, dtype)
        if dtype == self.atoms.dtype and not last:
            return self
        atoms, kernel, matrix = self._weights(dtype)
        if last:
            atoms, kernel = (w.contiguous(memory_format=torch.channels_last) for w in (atoms, kernel))
        return replace(self, cast=(atoms, kernel, matrix))

    def arranged(self, values: Tensor) -> Tensor:
        """Return the same values in the order in memory that their convolutions want: channels last on tensor cores."""
        if not on_tensor_cores(values, self.dtype_for(values)):
            return values
        return values.contiguous(memory_format=torch.channels_last)

    def dtype_for(self, values: Tensor) -> torch.dtype:
        """Return the data type of convolutions of ``values``."""
        if self.convolution_dtype is not None:
            return self.convolution_dtype
        if values.dtype == torch.float32 and torch.is_autocast_enabled(values.device.type):
            return torch.get_autocast_dtype(values.device.type)
        return values.dtype

    def _in_dtype(self, apply: Callable[[Tensor, Tensor, Tensor], Tensor], values: Tensor) -> Tensor:
        dtype = self.dtype_for(values)
        atoms, kernel, _ = self._weights(dtype)
        with precisely(values):  # autocast must not look into the maps
            return apply(values.to(dtype), atoms, kernel).to(values.dtype)

    def _weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return atoms, kernel and P in a dtype."""
        if self.cast is not None and self.cast[0].dtype == dtype:
            return self.cast
        matrix = None if self.preconditioner is None else self.preconditioner.matrix.to(dtype)
        return self.atoms.to(dtype), self.kernel.to(dtype), matrix

    def _analyse(self, images: Tensor, atoms: Tensor, kernel: Tensor) -> Tensor:
        if _plain(images, atoms):
            return functional.analyse(images, atoms, self.stride)
        return _Analyse.apply(images, atoms, kernel, self.stride)  # type: ignore[no-any-return]

    def _synthesise(self, code: Tensor, atoms: Tensor, kernel: Tensor, size: tuple[int, int]) -> Tensor:
        if _plain(code, atoms):
            return functional.synthesise(code, kernel, atoms.shape[-1], self.stride, size)
        return _Synthesise.apply(code, atoms, kernel, self.stride, size)  # type: ignore[no-any-return]


def _plain(values: Tensor, atoms: Tensor) -> bool:
    """Tell whether no gradient is asked for."""
    return not (torch.is_grad_enabled() and (values.requires_grad or atoms.requires_grad))


def _atoms_gradient(images: Tensor, code: Tensor, atoms: Tensor, stride: int) -> Tensor:
    """Correlate images with code: the gradient of <Phi a, x> = <a, Phi^T x> for the atoms."""
    kernel = atoms.shape[-1]
    if kernel % 2 == 0:
        images = F.pad(images, (0, 1, 0, 1))
    return torch.nn.grad.conv2d_weight(
        images, list(atoms.shape), code, stride=stride, padding=functional.left_padding(kernel)
    )


class _Analyse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, atoms: Tensor, kernel: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images, atoms, kernel)
        ctx.stride = stride
        return functional.analyse(images, atoms, stride)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        images, atoms, kernel = ctx.saved_tensors
        for_images = for_atoms = None
        with precisely(gradient):  # in attacks, a backward pass runs under autocast too
            if ctx.needs_input_grad[0]:
                size = (images.shape[2], images.shape[3])
                for_images = _Synthesise.apply(gradient, atoms, kernel, ctx.stride, size)
            if ctx.needs_input_grad[1]:
                for_atoms = _atoms_gradient(images, gradient, atoms, ctx.stride)
        return for_images, for_atoms, None, None  # type: ignore[return-value]


class _Synthesise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, code: Tensor, atoms: Tensor, kernel: Tensor, stride: int, size: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(code, atoms, kernel)
        ctx.stride = stride
        return functional.synthesise(code, kernel, atoms.shape[-1], stride, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (gradient,) = gradients
        code, atoms, kernel = ctx.saved_tensors
        for_code = for_atoms = None
        with precisely(gradient):
            if ctx.needs_input_grad[0]:
                for_code = _Analyse.apply(gradient, atoms, kernel, ctx.stride)
            if ctx.needs_input_grad[1]:
                for_atoms = _atoms_gradient(gradient, code, atoms, ctx.stride)
        return for_code, for_atoms, None, None, None  # type: ignore[return-value]
