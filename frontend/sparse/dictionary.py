"""The convolutional dictionary: unit-norm atoms and the two maps they define."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...configs.errors import InputError
from .functional import state_size
from .operator import ConvOperator
from .spectrum import Preconditioner, preconditioner, spectral_bound


class ConvDictionary(nn.Module):
    """M atoms of C x k x k pixels, one every ``stride`` pixels, with ``same`` padding.

    Atoms are stored raw in ``weight`` and normalised on use, so that an average of weights (EMA, SWA)
    stays valid; keep weight decay off them. The spectral bound L is a buffer: it is renewed at the first
    training forward pass after every change of the weights and whenever the module changes to evaluation, and saved
    with the weights. Changes through ``weight.data`` go unseen: call ``refresh``.

    Args:
        in_channels: C.
        features: M, the number of atoms.
        kernel_size: k, odd or even.
        stride: 1 to k.
        preconditioned: Whether the operator holds a preconditioner; it follows the atoms as L does, and is not saved.
    """

    lipschitz: Tensor
    precondition_matrix: Tensor
    precondition_lipschitz: Tensor

    def __init__(
        self,
        in_channels: int,
        features: int,
        kernel_size: int,
        stride: int,
        *,
        preconditioned: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("features", features),
            ("kernel_size", kernel_size),
        ):
            if value < 1:
                raise InputError(f"{name} is {value}; give a whole number of at least 1.")
        if not 1 <= stride <= kernel_size:
            raise InputError(
                f"stride is {stride} with kernel_size {kernel_size}; give a stride from 1 to {kernel_size}, "
                "else some pixels belong to no atom."
            )
        self.stride = stride
        self.preconditioned = preconditioned
        self._read: tuple[object, float] | None = None
        self._made: tuple[object, ConvOperator] | None = None
        self.weight = nn.Parameter(torch.empty(features, in_channels, kernel_size, kernel_size))
        nn.init.normal_(self.weight)  # after it is registered: see models.bounded
        self.register_buffer("lipschitz", torch.ones(()))
        if preconditioned:
            self.register_buffer(
                "precondition_matrix", torch.zeros(features, features, 1, 1), persistent=False
            )
            self.register_buffer("precondition_lipschitz", torch.ones(()), persistent=False)
        self.refresh()

    @property
    def atoms(self) -> Tensor:
        """Unit-norm atoms, (M, C, k, k); the gradient flows through the normalisation."""
        norm = self.weight.flatten(1).norm(dim=1).clamp_min(torch.finfo(self.weight.dtype).tiny)
        return self.weight / norm[:, None, None, None]

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the spectral bound anew; call it after changing ``weight`` by hand.

        Raises:
            InputError: If an atom is zero or not finite.
        """
        norms = self.weight.flatten(1).norm(dim=1)
        bad = torch.nonzero(~(torch.isfinite(norms) & (norms > 0))).flatten()
        if len(bad):
            raise InputError(
                f"atom {int(bad[0])} of the dictionary is zero or not finite; "
                "replace it (for instance by random values) before use."
            )
        self._solve_spectrum()

    @torch.no_grad()
    def _solve_spectrum(self) -> None:
        self.lipschitz.copy_(spectral_bound(self.atoms, self.stride))
        self._precondition()
        if not torch.compiler.is_compiling():  # versions are not seen there
            self._solved_for = self._version_of_weights()

    def _precondition(self) -> None:
        if self.preconditioned:
            made = preconditioner(self.atoms, self.stride)
            self.precondition_matrix.copy_(made.matrix)
            self.precondition_lipschitz.copy_(made.lipschitz)

    def _version_of_weights(self) -> tuple[object, ...]:
        """Tell weights apart without looking at them, which would wait for the device."""
        weight = self.weight
        if weight.is_inference():  # those have no version
            return (object(),)
        return id(weight), weight._version, weight.device, weight.dtype

    def bound(self) -> float:
        """Return L as a number, read from the device once after each change."""
        if self.lipschitz.is_inference():
            return float(self.lipschitz)
        version = id(self.lipschitz), self.lipschitz._version
        if self._read is None or self._read[0] != version:
            self._read = version, float(self.lipschitz)
        return self._read[1]

    def operator(self) -> ConvOperator:
        """Return Phi and Phi^T for the present atoms, ready for many iterations."""
        learning = self.training and self.weight.requires_grad and torch.is_grad_enabled()
        if learning and (torch.compiler.is_compiling() or self._solved_for != self._version_of_weights()):
            self._solve_spectrum()
        if self._learns_nothing():
            version = self._version_of_weights(), self.lipschitz._version
            if self._made is None or self._made[0] != version:
                self._made = version, self._operator()
            return self._made[1]
        return self._operator()

    def _learns_nothing(self) -> bool:
        """Whether one operator serves many calls: on a GPU its preparation costs as many launches as a cycle."""
        if torch.compiler.is_compiling() or self.weight.device.type == "cpu":
            return False
        learning = torch.is_grad_enabled() and self.weight.requires_grad
        return not (learning or self.weight.is_inference() or torch.is_inference_mode_enabled())

    def _operator(self) -> ConvOperator:
        conditioning = None
        if self.preconditioned:
            conditioning = Preconditioner(
                self.precondition_matrix.clone(), self.precondition_lipschitz.clone()
            )
        return ConvOperator.from_atoms(self.atoms, self.stride, self.lipschitz.clone(), conditioning)

    def analyse(self, images: Tensor) -> Tensor:
        """Phi^T x: images (N, C, H, W) -> drive (N, M, ceil(H/s), ceil(W/s))."""
        self.check_size(images)
        return self.operator().analyse(images)

    def synthesise(self, code: Tensor, size: tuple[int, int]) -> Tensor:
        """Phi a: code (N, M, ceil(H/s), ceil(W/s)) -> images (N, C, H, W), the adjoint of ``analyse``."""
        return self.operator().synthesise(code, size)

    def check_size(self, images: Tensor, *, any_size: bool = False) -> None:
        """Refuse images of a wrong shape or, unless any size will do, smaller than an atom."""
        _, channels, kernel, _ = self.weight.shape
        if images.ndim != 4 or images.shape[1] != channels:
            raise InputError(f"images have shape {tuple(images.shape)}; expected (N, {channels}, H, W).")
        if not images.is_floating_point():
            raise InputError(f"images are {images.dtype}; expected floating point pixels in [0, 1].")
        if not any_size and min(images.shape[2:]) < kernel:
            raise InputError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels are smaller than the {kernel} x {kernel} "
                "atoms; give larger images or a front-end with a smaller kernel_size."
            )

    def check_state(self, state: Tensor, images: Tensor) -> None:
        """Refuse an initial state that does not fit the images (N, C, H, W)."""
        size = state_size((images.shape[2], images.shape[3]), self.stride)
        expected = (len(images), len(self.weight), *size)
        if tuple(state.shape) != expected:
            raise InputError(
                f"the state has shape {tuple(state.shape)}; expected {expected} for these images."
            )

    def train(self, mode: bool = True) -> ConvDictionary:
        """Switch mode; on the way to evaluation the bound is brought up to date and stays frozen."""
        if self.training and not mode and self.weight.requires_grad:
            self.refresh()
        super().train(mode)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
        self._precondition()

    def extra_repr(self) -> str:
        """Describe the dictionary in ``print(module)``."""
        features, channels, kernel, _ = self.weight.shape
        return f"in_channels={channels}, features={features}, kernel_size={kernel}, stride={self.stride}"
