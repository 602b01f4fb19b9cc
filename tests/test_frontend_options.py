"""What the solver offers beyond the plain loop: fast steps, acceleration, stopping, precision, compilation."""

import math

import pytest
import torch

from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.frontend import LCA, THRESHOLDS, ConvDictionary, Problem, WarpLCA, solve
from warplca.frontend.sparse.dynamics import step, step_without_gradient
from warplca.frontend.sparse.implicit import solve_adjoint
from warplca.frontend.sparse.schedule import accelerated_schedule, plain_schedule
from warplca.frontend.sparse.solver import check_overflow, solve_until

SIZE = (19, 23)


def instance(features=6, kernel=5, stride=2, images=3, seed=0):
    torch.manual_seed(seed)
    dictionary = ConvDictionary(3, features, kernel, stride).double().eval()
    dictionary.refresh()
    return dictionary.operator().detached(), torch.randn(images, 3, *SIZE, dtype=torch.float64)


def layer(**arguments):
    torch.manual_seed(0)
    return LCA(
        in_channels=3, features=6, kernel_size=5, stride=2, **{"lam": 0.2, "iterations": 12, **arguments}
    ).eval()


def pictures(count=3, seed=1):
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (4, 2), (6, 3)])
def test_both_forms_of_a_step_agree_and_write_to_no_argument(kernel, stride, momentum):
    problem = Problem(*instance(kernel=kernel, stride=stride), THRESHOLDS["soft"], 0.3)
    state, before = torch.randn(2, *problem.cold_start().shape, dtype=torch.float64)
    arguments = (problem.code(state), state, before)
    copies = [argument.clone() for argument in arguments]
    found = step_without_gradient(problem, *arguments, 0.03, momentum)
    torch.testing.assert_close(found, step(problem, *arguments, 0.03, momentum), rtol=0, atol=1e-12)
    assert all(torch.equal(copy, argument) for copy, argument in zip(copies, arguments, strict=True))


@pytest.mark.parametrize("name", THRESHOLDS)
def test_with_and_without_gradient_the_code_is_the_same(name):
    network = layer(threshold=name, momentum=0.8).double()
    with torch.no_grad():
        without = network(pictures().double())
    torch.testing.assert_close(network(pictures().double()), without, rtol=0, atol=1e-9)


def test_checkpointing_leaves_the_gradient_as_it_is():
    gradients = []
    for every in (None, 5, 100):
        network = layer(threshold="soft", momentum=0.5, checkpoint_every=every).double()
        images = pictures().double().requires_grad_()
        network(images).square().sum().backward()
        gradients.append((images.grad, network.dictionary.weight.grad))
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_forty_accelerated_cycles_reach_what_a_thousand_plain_ones_do():
    images = torch.from_numpy(load_dataset("cifar10-subset", "test").images[100:104].copy())
    images = images.permute(0, 3, 1, 2).float() / 255
    _, plain = LCA.from_pretrained("cifar10-64x9s2").solve(images, iterations=1000)
    fast = LCA.from_pretrained("cifar10-64x9s2", accelerated=True, iterations=40)
    _, accelerated = fast.solve(images)
    assert accelerated.energy.mean() < plain.energy.mean()
    torch.testing.assert_close(fast(images), fast.solve(images)[0])


@pytest.mark.parametrize("iterations", [0, 1, 7, 40, 400])
def test_accelerated_steps_are_inside_the_stable_range(iterations):
    phi, _ = instance()
    schedule = accelerated_schedule(phi, iterations)
    assert len(schedule) == iterations
    assert (schedule.step_size < 2 * (1 + schedule.momentum) / phi.lipschitz).all()
    assert ((schedule.momentum >= 0.5) & (schedule.momentum < 1)).all()


def test_each_image_stops_when_it_has_settled_as_it_would_alone():
    phi, x = instance(images=5)
    x = x * torch.tensor([0.0, 0.3, 1.0, 3.0, 10.0], dtype=torch.float64)[:, None, None, None]
    soft, schedule = THRESHOLDS["soft"], plain_schedule(phi, 400, momentum=0.6)
    states, used = solve_until(Problem(phi, x, soft, 0.3), schedule, tolerance=1e-4)
    assert used[0] == 1  # a black image settles at once
    assert len(used.unique()) > 2
    for i in range(5):
        alone, count = solve_until(Problem(phi, x[i : i + 1], soft, 0.3), schedule, tolerance=1e-4)
        assert count == used[i]
        torch.testing.assert_close(alone[0], states[i], rtol=0, atol=1e-9)
        exact = solve(Problem(phi, x[i : i + 1], soft, 0.3), plain_schedule(phi, int(used[i]), momentum=0.6))
        torch.testing.assert_close(exact[0], states[i], rtol=0, atol=1e-9)


def test_the_layer_reports_the_iterations_used():
    network = layer(threshold="soft", momentum=0.6)
    code, statistics = network.solve(pictures(), iterations=300, tolerance=1e-3)
    assert statistics.iterations == int(statistics.iterations_used.max()) < 300
    full, thorough = network.solve(pictures(), iterations=300)
    assert thorough.iterations_used.tolist() == [300] * 3
    assert ((code - full).norm() / full.norm()) < 0.05
    _, strict = network.solve(pictures(), iterations=5, tolerance=1e-9)
    assert strict.iterations_used.tolist() == [5] * 3
    _, empty = network.solve(pictures(0), tolerance=1e-3)
    assert empty.iterations == 0


def test_an_accelerated_solve_does_not_stop_while_the_threshold_falls():
    _, statistics = layer(accelerated=True).solve(pictures(), iterations=100, tolerance=1e9)
    assert statistics.iterations_used.tolist() == [90] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_convolutions_keep_the_state_and_gradient_in_float32(dtype):
    exact, low, cast = (
        layer(threshold="soft"),
        layer(threshold="soft", convolution_dtype=dtype),
        layer(threshold="soft"),
    )
    codes, gradients = [], []
    for network, autocast in ((exact, False), (low, False), (cast, True)):
        images = pictures().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            code = network(images)
        code.square().sum().backward()
        assert code.dtype == network.dictionary.weight.grad.dtype == torch.float32
        codes.append(code.detach())
        gradients.append(torch.cat([images.grad.flatten(), network.dictionary.weight.grad.flatten()]))
    assert 0 < (codes[1] - codes[0]).norm() / codes[0].norm() < 0.02
    assert (gradients[1] - gradients[0]).norm() / gradients[0].norm() < 0.05
    torch.testing.assert_close(codes[1], codes[2])
    torch.testing.assert_close(gradients[1], gradients[2])


def test_float16_overflow_is_detected():
    phi, x = instance()
    low = ConvDictionary(3, 6, 5, 2).operator().detached().computing_in(torch.float16)
    soft = THRESHOLDS["soft"]
    for scale, overflows in ((1.0, False), (1e6, True)):
        state = solve(Problem(low, x.float() * scale, soft, 0.3), plain_schedule(low, 3))
        if overflows:
            with pytest.raises(InputError, match="overflowed float16"):
                check_overflow(low, state)
        else:
            check_overflow(low, state)
    check_overflow(phi, torch.full((1,), math.nan))  # other precisions are not looked at


@pytest.mark.parametrize("steepest", [1.0, 3.0])
def test_the_adjoint_equation_is_solved_as_a_dense_solver_would(steepest):
    phi, x = instance()
    generator = torch.Generator().manual_seed(4)
    shape = Problem(phi, x, THRESHOLDS["soft"], 0.3).cold_start().shape
    slope = torch.rand(shape, generator=generator, dtype=torch.float64)
    slope = torch.where(slope < 0.1, steepest * torch.rand(shape, generator=generator).double(), 0.0)
    gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
    w, residual = solve_adjoint(phi, slope, gradient, SIZE)
    assert residual.shape == (3,)
    assert (residual <= 1e-7).all()
    units = slope[0].numel()
    each = torch.eye(units, dtype=torch.float64).reshape(units, *shape[1:])
    gram = phi.analyse(phi.synthesise(each, SIZE)).reshape(units, units).T
    identity = torch.eye(units, dtype=torch.float64)
    for i in range(3):
        system = identity - (identity - gram) * slope[i].flatten()
        indefinite = torch.linalg.eigvals(system).real.min() < 0
        assert indefinite == (steepest > 1)
        exact = torch.linalg.solve(system, gradient[i].flatten())
        # the damping, 1e-6 L, is not part of the exact equation
        assert (w[i].flatten() - exact).norm() / exact.norm() < 1e-3


@pytest.mark.parametrize("name", ["cifar10-64x9s2", "cifar10-64x9s2-soft"])
def test_the_adjoint_equation_is_solved_on_a_learned_dictionary(name):
    network = LCA.from_pretrained(name, lam=0.5, momentum=0.9, iterations=100, gradient_mode="implicit")
    assert network.adjoint_residual is None
    network(load_dataset("cifar10-subset", "train").tensors(range(2))[0]).square().sum().backward()
    assert network.adjoint_residual.shape == (2,)
    assert (network.adjoint_residual < 1e-3).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accelerated": True, "momentum": 0.9}, "accelerated=True chooses momentum and step_size itself"),
        ({"accelerated": True, "step_size": 0.1}, "accelerated=True chooses momentum and step_size itself"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0; give 1 or more"),
    ],
)
def test_bad_options_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        layer(**arguments)


def test_bad_stopping_rules_are_refused():
    network = layer()
    with pytest.raises(InputError, match="tolerance is 0.0; give a number above 0"):
        network.solve(pictures(), tolerance=0.0)
    with pytest.raises(InputError, match="trace=True with a tolerance"):
        network.solve(pictures(), tolerance=1e-3, trace=True)
    phi, x = instance()
    with pytest.raises(InputError, match="leave it out where a trace is recorded"):
        solve(Problem(phi, x, THRESHOLDS["soft"], 0.3), plain_schedule(phi, 3), trace=[], checkpoint_every=2)


COMPILED = [{"momentum": 0.8}, {"accelerated": True}, {"step_size": 0.02}, {"threshold": "smooth"}]


def compiled_agrees(backend, arguments):
    network = layer(**{"threshold": "soft", "iterations": 4, **arguments})
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pictures()), network(pictures()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", COMPILED)
def test_the_layer_is_one_graph(arguments):
    compiled_agrees("aot_eager", arguments)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMPILED)
def test_the_compiled_layer_gives_the_same_code(arguments):
    compiled_agrees("inductor", arguments)


def test_the_training_step_is_one_graph_with_the_same_gradient():
    network = layer(threshold="soft", iterations=3).train()
    network(pictures()).square().sum().backward()
    expected = network.dictionary.weight.grad.clone()
    network.zero_grad()
    torch.compiler.reset()
    torch.compile(network, fullgraph=True, backend="aot_eager")(pictures()).square().sum().backward()
    torch.testing.assert_close(network.dictionary.weight.grad, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"momentum": 0.7}, {"primed": "cifar10-64x9s2"}])
def test_channels_last_changes_the_order_in_memory_alone(monkeypatch, options):
    """What tensor cores are given; here on the CPU, where only the order can differ."""
    images = torch.rand(2, 3, 20, 27, dtype=torch.float64)
    name = options.pop("primed", None)
    found = []
    for last in (False, True):
        monkeypatch.setattr("warplca.frontend.sparse.operator.on_tensor_cores", lambda *_, last=last: last)
        network = layer(**options) if name is None else WarpLCA.from_pretrained(name, adaptive_lam=0.5)
        network = network.double().requires_grad_(True)
        leaf = images.clone().requires_grad_()
        encoding = network.encode(leaf)
        assert encoding.state.is_contiguous(memory_format=torch.channels_last) == last
        assert encoding.code.is_contiguous(memory_format=torch.channels_last) == last
        encoding.code.square().sum().backward()
        settled, _ = network.solve(images, tolerance=1e-3)
        found.append([encoding.code, leaf.grad, network.dictionary.weight.grad, settled])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
