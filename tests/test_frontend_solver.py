"""The dynamics: descent, fixed points, gradients, independence of the batch."""

import pytest
import torch

from warplca.configs import InputError
from warplca.frontend import LCA, THRESHOLDS, ConvDictionary, Problem, WarpLCA, solve
from warplca.frontend.sparse.implicit import implicit_code
from warplca.frontend.sparse.schedule import Schedule, annealed_thresholds, plain_schedule

SIZE = (19, 23)


def instance(features=6, kernel=5, stride=2, images=3, seed=0):
    torch.manual_seed(seed)
    dictionary = ConvDictionary(3, features, kernel, stride).double().eval()
    dictionary.refresh()
    return dictionary.operator().detached(), torch.randn(images, 3, *SIZE, dtype=torch.float64)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_soft_energy_never_rises_without_momentum(stride):
    phi, x = instance(stride=stride)
    trace = []
    solve(Problem(phi, x, THRESHOLDS["soft"], 0.3), plain_schedule(phi, 60), trace=trace)
    energies = torch.stack(trace)
    assert len(energies) == 61
    assert (energies[1:] <= energies[:-1] + 1e-12).all()
    assert (energies[-1] < energies[0]).all()


def test_one_step_from_zero_in_closed_form():
    phi, x = instance()
    state = solve(Problem(phi, x, THRESHOLDS["hard"], 0.3), plain_schedule(phi, 1))
    torch.testing.assert_close(state, phi.analyse(x) / phi.lipschitz)


def test_momentum_follows_the_stated_recursion():
    phi, x = instance()
    hard, lam, eta, mu = THRESHOLDS["hard"], 0.3, 0.7 / phi.lipschitz, 0.6
    u = before = torch.zeros_like(phi.analyse(x))
    for _ in range(7):
        a = hard(u, lam)
        u, before = u + eta * (phi.analyse(x - phi.synthesise(a, SIZE)) + a - u) + mu * (u - before), u
    found = solve(Problem(phi, x, hard, lam), plain_schedule(phi, 7, step_size=float(eta), momentum=mu))
    torch.testing.assert_close(found, u)


def settled(phi, x, name, lam=0.4, iterations=4000):
    state = solve(Problem(phi, x, THRESHOLDS[name], lam), plain_schedule(phi, iterations, momentum=0.8))
    return state, Problem(phi, x, THRESHOLDS[name], lam).fixed_point_residual(state)


@pytest.mark.parametrize("name", ["hard", "soft"])
def test_a_warm_start_at_a_settled_state_stays_there(name):
    phi, x = instance(images=12)
    state, residual = settled(phi, x, name)
    still = residual < 1e-10
    assert still.sum() >= 6
    again = solve(Problem(phi, x[still], THRESHOLDS[name], 0.4), plain_schedule(phi, 50), state=state[still])
    torch.testing.assert_close(again, state[still], rtol=0, atol=1e-8)
    assert torch.equal(THRESHOLDS[name](again, 0.4) != 0, THRESHOLDS[name](state[still], 0.4) != 0)


def test_a_settled_soft_code_satisfies_the_optimality_conditions_of_the_l1_problem():
    phi, x = instance()
    state, residual = settled(phi, x, "soft")
    assert (residual < 1e-10).all()
    code = THRESHOLDS["soft"](state, 0.4)
    correlation = phi.analyse(x - phi.synthesise(code, SIZE))
    torch.testing.assert_close(
        correlation[code > 0], torch.full_like(correlation[code > 0], 0.4), atol=1e-8, rtol=0
    )
    assert (correlation[code == 0] <= 0.4 + 1e-8).all()


@pytest.mark.parametrize(
    "layer", [LCA(iterations=12, kernel_size=5, features=6), WarpLCA(kernel_size=5, features=6)]
)
def test_one_image_and_many_give_the_same_code(layer):
    layer = layer.double().eval()
    images = torch.rand(5, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = layer(images)
    apart = torch.cat([layer(image[None]) for image in images])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)


def test_annealed_thresholds_fall_geometrically_and_stay():
    assert annealed_thresholds(0.5, 4, factor=4.0, span=2) == pytest.approx([2.0, 1.0, 0.5, 0.5])


def test_a_schedule_of_its_own_step_for_every_iteration_is_used_in_order():
    phi, x = instance()
    steps = torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64) / phi.lipschitz
    momenta = torch.tensor([0.0, 0.5, 0.2], dtype=torch.float64)
    whole = solve(Problem(phi, x, THRESHOLDS["soft"], 0.2), Schedule(steps, momenta))
    u = before = torch.zeros_like(whole)
    for eta, mu in zip(steps, momenta, strict=True):
        a = THRESHOLDS["soft"](u, 0.2)
        u, before = u + eta * (phi.analyse(x - phi.synthesise(a, SIZE)) + a - u) + mu * (u - before), u
    torch.testing.assert_close(whole, u)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_size": 1.0}, "step_size 1 would diverge on this dictionary; give one above 0 and below"),
        ({"step_size": -0.1}, "step_size -0.1 would diverge"),
        ({"momentum": 1.0}, "momentum is 1.0"),
    ],
)
def test_a_diverging_step_is_refused_before_any_work(arguments, message):
    phi, _ = instance()
    with pytest.raises(InputError, match=message):
        plain_schedule(phi, 3, **arguments)


def test_implicit_and_unrolled_gradients_agree_at_a_settled_state():
    torch.manual_seed(2)
    weight = torch.randn(4, 3, 5, 5, dtype=torch.float64)  # few atoms, wide stride: well conditioned
    x = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    target = None
    gradients = {}
    for mode in ("unroll", "implicit"):
        dictionary = ConvDictionary(3, 4, 5, 3).double()
        with torch.no_grad():
            dictionary.weight.copy_(weight)
        dictionary.refresh()
        lam = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        images = x.clone().requires_grad_()
        phi = dictionary.train().operator()
        soft = THRESHOLDS["soft"]
        schedule = plain_schedule(phi, 600, momentum=0.5)
        if mode == "unroll":
            state = solve(Problem(phi, images, soft, lam), schedule)
            code = soft(state, lam)
        else:
            with torch.no_grad():
                state = solve(Problem(phi, images, soft, lam), schedule)
            code = implicit_code(Problem(phi, images, soft, lam), state)
        assert (
            Problem(phi.detached(), x, soft, lam.detach()).fixed_point_residual(state.detach()) < 1e-10
        ).all()
        target = torch.randn(code.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        (code * target).sum().backward()
        gradients[mode] = [images.grad, dictionary.weight.grad, lam.grad]
    for unrolled, implicit in zip(gradients["unroll"], gradients["implicit"], strict=True):
        assert unrolled is not None
        assert implicit is not None
        assert float(unrolled.norm()) > 0
        assert float((unrolled - implicit).norm() / unrolled.norm()) < 1e-4


def test_energy_in_closed_form():
    phi, x = instance(images=1)
    code = torch.zeros_like(phi.analyse(x))
    code[0, 2, 3, 4] = 1.25
    residual = x - 1.25 * phi.synthesise((code > 0).double(), SIZE)
    expected = 0.5 * residual.square().sum() + 0.5 * 0.4**2
    torch.testing.assert_close(Problem(phi, x, THRESHOLDS["hard"], 0.4).energy(code)[0], expected)
