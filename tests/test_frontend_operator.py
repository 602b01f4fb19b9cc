"""Analysis and synthesis: adjoint, equal to the textbook operators, with exact gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from warplca.configs import InputError
from warplca.frontend import ConvDictionary
from warplca.frontend.sparse.functional import state_size
from warplca.frontend.sparse.operator import ConvOperator
from warplca.frontend.sparse.spectrum import spectral_bound

geometry = st.integers(1, 10).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, min(k, 4))))
sizes = st.tuples(st.integers(10, 40), st.integers(10, 33))


def operator(atoms: torch.Tensor, stride: int) -> ConvOperator:
    return ConvOperator.from_atoms(atoms, stride, spectral_bound(atoms, stride))


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(geometry, sizes, st.integers(0, 99))
def test_synthesis_is_the_adjoint_of_analysis(geometry, size, seed):
    kernel, stride = geometry
    phi = operator(draw(seed, 5, 3, kernel, kernel), stride)
    images = draw(seed + 1, 2, 3, *size)
    code = draw(seed + 2, 2, 5, *state_size(size, stride))
    left = (phi.synthesise(code, size) * images).sum()
    right = (code * phi.analyse(images)).sum()
    assert abs(left - right) <= 1e-5 * max(abs(left), 1.0)
    assert abs(left - right) <= 1e-10 * code.norm() * images.norm() * kernel


@settings(max_examples=40, deadline=None)
@given(geometry, sizes)
def test_synthesis_equals_the_cropped_transposed_convolution(geometry, size):
    kernel, stride = geometry
    atoms = draw(0, 4, 3, kernel, kernel)
    code = draw(1, 2, 4, *state_size(size, stride))
    left = (kernel - 1) // 2
    whole = F.conv_transpose2d(code, atoms, stride=stride)
    whole = F.pad(whole, (0, left + size[1], 0, left + size[0]))
    expected = whole[:, :, left : left + size[0], left : left + size[1]]
    found = operator(atoms, stride).synthesise(code, size)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_one_active_unit_paints_its_atom_where_it_belongs():
    atoms = draw(0, 3, 2, 5, 5)
    code = torch.zeros(1, 3, 9, 7, dtype=torch.float64)
    code[0, 1, 4, 3] = 2.0
    image = operator(atoms, 2).synthesise(code, (17, 14))
    top, left = 2 * 4 - 2, 2 * 3 - 2
    torch.testing.assert_close(image[0, :, top : top + 5, left : left + 5], 2 * atoms[1])
    assert image.abs().sum() == pytest.approx(float(2 * atoms[1].abs().sum()))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 1), (5, 2), (6, 3)])
def test_gradients_agree_with_finite_differences(kernel, stride):
    atoms = draw(0, 3, 2, kernel, kernel).requires_grad_()
    images = draw(1, 1, 2, 9, 7).requires_grad_()
    code = draw(2, 1, 3, *state_size((9, 7), stride)).requires_grad_()
    one = torch.ones(())
    assert torch.autograd.gradcheck(
        lambda x, a: ConvOperator.from_atoms(a, stride, one).analyse(x), (images, atoms)
    )
    assert torch.autograd.gradcheck(
        lambda c, a: ConvOperator.from_atoms(a, stride, one).synthesise(c, (9, 7)), (code, atoms)
    )


@pytest.mark.parametrize(
    ("kernel", "stride"), [(3, 1), pytest.param(7, 1, marks=pytest.mark.slow), (4, 2), (9, 2), (8, 3), (9, 4)]
)
def test_spectral_bound_holds_at_every_size_and_is_tight_on_a_large_image(kernel, stride):
    smooth = draw(3, 12, 3, kernel, kernel).cumsum(-1).cumsum(-2)  # coherent, as learned atoms are
    atoms = smooth / smooth.flatten(1).norm(dim=1)[:, None, None, None]
    phi = operator(atoms, stride)
    for size in [(kernel, kernel), (16, 16), (37, 31), (32, 64)]:
        assert power_iteration(phi, size, 100) <= phi.lipschitz
    assert power_iteration(phi, (160, 160), 400) >= 0.98 * phi.lipschitz


def power_iteration(phi: ConvOperator, size: tuple[int, int], iterations: int) -> torch.Tensor:
    vector = draw(4, 1, len(phi.atoms), *state_size(size, phi.stride))
    norm = vector.norm()
    for _ in range(iterations):
        vector = phi.analyse(phi.synthesise(vector / norm, size))
        norm = vector.norm()
    return norm


def test_dictionary_normalises_raw_atoms_and_renews_its_bound():
    dictionary = ConvDictionary(3, 8, 5, 2)
    with torch.no_grad():
        dictionary.weight.mul_(7.0)
    torch.testing.assert_close(dictionary.atoms.flatten(1).norm(dim=1), torch.ones(8))
    with torch.no_grad():
        dictionary.weight.copy_(torch.ones_like(dictionary.weight))
    dictionary.train()
    before = dictionary.lipschitz.clone()
    phi = dictionary.operator()
    assert phi.lipschitz > 2 * before  # eight equal atoms
    assert dictionary.eval().lipschitz == phi.lipschitz


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 8, 5, 6), "stride is 6 with kernel_size 5; give a stride from 1 to 5"),
        ((3, 8, 5, 0), "stride is 0"),
        ((3, 0, 5, 1), "features is 0"),
    ],
)
def test_impossible_geometry_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ConvDictionary(*arguments)


def test_bad_images_and_zero_atoms_are_refused():
    dictionary = ConvDictionary(3, 8, 9, 2)
    with pytest.raises(InputError, match=r"8 x 20 pixels are smaller than the 9 x 9 atoms"):
        dictionary.analyse(torch.rand(1, 3, 8, 20))
    with pytest.raises(InputError, match=r"shape \(1, 1, 32, 32\); expected \(N, 3, H, W\)"):
        dictionary.analyse(torch.rand(1, 1, 32, 32))
    with pytest.raises(InputError, match=r"torch.uint8; expected floating point"):
        dictionary.analyse(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with torch.no_grad():
        dictionary.weight[3] = 0
    with pytest.raises(InputError, match="atom 3 of the dictionary is zero"):
        dictionary.refresh()
