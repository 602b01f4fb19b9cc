"""The preconditioner: its algebra, its bound, the fixed points it keeps, the atoms it follows."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from warplca.configs import InputError
from warplca.frontend import LCA, THRESHOLDS, ConvDictionary, Problem, Schedule, WarpLCA, save_frontend, solve
from warplca.frontend.sparse.dynamics import step
from warplca.frontend.sparse.functional import state_size
from warplca.frontend.sparse.spectrum import DAMPING


def coherent(kernel, stride, *, features=8):
    """A dictionary of smooth atoms, as learned ones are, in float64."""
    dictionary = ConvDictionary(3, features, kernel, stride, preconditioned=True).double()
    noise = torch.randn(dictionary.weight.shape, generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        dictionary.weight.copy_(noise.cumsum(-1).cumsum(-2))
    return dictionary.eval()


def problem():
    operator = coherent(5, 2).operator()
    x = torch.rand(3, 3, 17, 14, generator=torch.Generator().manual_seed(0)).double()
    layer = LCA(features=8, kernel_size=5).double()
    return operator, layer.standardise(x).images, THRESHOLDS["soft"], 0.3


def preconditioned(operator, cycles, length, momentum=0.4):
    full = operator.lipschitz.new_ones(cycles)
    step_size = length / operator.bound(preconditioned=True) * full
    return Schedule(step_size, momentum * full, guarded=True, preconditioned=True)


def test_it_inverts_the_damped_gram_matrix():
    operator = coherent(5, 2).operator()
    rows = operator.atoms.flatten(1)
    damped = rows @ rows.mT + DAMPING * torch.eye(8, dtype=torch.float64)
    matrix = operator.preconditioner.matrix[:, :, 0, 0]
    torch.testing.assert_close(matrix @ damped, torch.eye(8, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close(matrix, matrix.mT)
    assert torch.linalg.eigvalsh(matrix)[0] > 0


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2), (9, 2), (8, 3)])
def test_its_bound_holds_at_every_size_and_is_tight_on_a_large_image(kernel, stride):
    operator = coherent(kernel, stride).operator()
    for size, iterations in [((kernel, kernel), 100), ((16, 16), 100), ((37, 31), 100), ((96, 96), 300)]:
        vector = torch.randn(1, 8, *state_size(size, stride), dtype=torch.float64)
        norm = vector.norm()
        for _ in range(iterations):  # P Phi^T Phi has the eigenvalues of P^(1/2) Phi^T Phi P^(1/2)
            vector = operator.precondition(operator.analyse(operator.synthesise(vector / norm, size)))
            norm = vector.norm()
        assert norm <= 1.0001 * operator.preconditioner.lipschitz
    assert norm >= 0.98 * operator.preconditioner.lipschitz
    assert operator.preconditioner.lipschitz < operator.lipschitz / DAMPING


def test_a_settled_state_stays_where_it_is():
    operator, x, soft, lam = problem()
    full = operator.lipschitz.new_ones(3_000)
    state = solve(Problem(operator, x, soft, lam), Schedule(1.9 / operator.lipschitz * full, 0.9 * full))
    code = soft(state, lam)
    still = step(Problem(operator, x, soft, lam), code, state, state, 1.0, 0.0)
    torch.testing.assert_close(still, state, atol=1e-10, rtol=0)
    moved = solve(Problem(operator, x, soft, lam), preconditioned(operator, 50, 1.0), state=state)
    torch.testing.assert_close(moved, state, atol=1e-8, rtol=0)


def test_it_reaches_the_same_minimum_in_fewer_cycles():
    operator, x, soft, lam = problem()
    plain, ours, lowest = [], [], []
    full = operator.lipschitz.new_ones(100)
    solve(Problem(operator, x, soft, lam), Schedule(1.9 / operator.lipschitz * full, 0.4 * full), trace=plain)
    solve(Problem(operator, x, soft, lam), preconditioned(operator, 100, 1.9), trace=ours)
    full = operator.lipschitz.new_ones(3_000)
    solve(
        Problem(operator, x, soft, lam), Schedule(1.9 / operator.lipschitz * full, 0.9 * full), trace=lowest
    )
    least = lowest[-1]
    assert (ours[-1] < least * 1.001).all()
    excess = [(trace[30] - least).mean() for trace in (ours, plain)]
    assert excess[0] < 0.5 * excess[1]


@pytest.mark.parametrize("length", [1.0, 60.0])
def test_its_gradient_is_right_with_and_without_steps_taken_back(length):
    operator, x, soft, lam = problem()
    x = x[:1, :, :9, :8].clone()
    plan = preconditioned(operator, 4, length)
    start = 0.1 * torch.randn(1, 8, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def run(x, state):
        return solve(Problem(operator, x, soft, lam), plan, state=state)

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), start.requires_grad_()), eps=1e-6)
    with torch.no_grad():
        without = run(x, state=start)
    torch.testing.assert_close(run(x, state=start), without, rtol=1e-9, atol=1e-9)


def test_steps_far_too_long_are_taken_back_to_where_they_are_safe():
    operator, x, soft, lam = problem()
    tamed, safe = [], []
    solve(Problem(operator, x, soft, lam), preconditioned(operator, 60, 200.0), trace=tamed)
    solve(Problem(operator, x, soft, lam), preconditioned(operator, 60, 1.0, 0.0), trace=safe)
    assert (tamed[-1] <= safe[-1] * 1.0001).all()


def test_it_follows_the_atoms_and_is_not_saved():
    dictionary = ConvDictionary(3, 8, 5, 2, preconditioned=True)
    assert list(dictionary.state_dict()) == ["weight", "lipschitz"]
    other = ConvDictionary(3, 8, 5, 2, preconditioned=True).eval()
    own = other.operator().preconditioner
    other.load_state_dict(dictionary.state_dict())
    loaded, wanted = other.operator().preconditioner, dictionary.operator().preconditioner
    torch.testing.assert_close(loaded.matrix, wanted.matrix)
    torch.testing.assert_close(loaded.lipschitz, wanted.lipschitz)
    assert not torch.allclose(loaded.matrix, own.matrix)
    dictionary.train()
    with torch.no_grad():
        dictionary.weight.copy_(torch.ones_like(dictionary.weight))
    learning = dictionary.operator().preconditioner
    assert learning.lipschitz > 1.1 * wanted.lipschitz  # eight equal atoms
    assert torch.equal(dictionary.eval().operator().preconditioner.matrix, learning.matrix)


def test_bfloat16_convolutions_keep_the_states_dtype():
    operator = ConvDictionary(3, 8, 5, 2, preconditioned=True).operator().detached()
    values = torch.randn(2, 8, 7, 9)
    exact = operator.precondition(values)
    coarse = operator.computing_in(torch.bfloat16).precondition(values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = operator.precondition(values)
    assert coarse.dtype == cast.dtype == torch.float32
    assert torch.equal(coarse, cast)
    torch.testing.assert_close(coarse, exact, rtol=0.02, atol=0.01)


def test_a_dictionary_without_one_says_so():
    operator = ConvDictionary(3, 8, 5, 2).operator()
    with pytest.raises(InputError, match="no preconditioner; build it with preconditioned=True"):
        operator.precondition(torch.zeros(1, 8, 4, 4))


def test_a_layer_remembers_that_it_was_primed_with_one(tmp_path):
    layer = WarpLCA(features=6, kernel_size=5, iterations=3, lam=0.3).eval()
    x = torch.rand(2, 3, 16, 19, generator=torch.Generator().manual_seed(0))
    classical = layer(x)
    layer.steps.reach, layer.steps.preconditioned = 16.0, True
    layer.steps.fill(0, 4.0, 0.4)
    assert "preconditioned=True" in repr(layer)
    assert not torch.allclose(layer(x), classical)
    save_frontend(layer, tmp_path / "mine", card="# mine\n")
    assert torch.equal(WarpLCA.from_pretrained(tmp_path / "mine")(x), layer(x))
    file = tmp_path / "mine" / "model.safetensors"
    weights = load_file(file)
    weights["steps._extra_state"] = weights["steps._extra_state"][:5].clone()  # as of a layer without one
    save_file(weights, file)
    (tmp_path / "mine" / "SHA256SUMS").unlink()
    assert not WarpLCA.from_pretrained(tmp_path / "mine").steps.preconditioned
