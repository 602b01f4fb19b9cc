"""LCA and WARP-LCA as layers: shapes, gradients, messages, saved front-ends."""

import pytest
import torch

from warplca.configs import InputError
from warplca.frontend import LCA, PrimingPlan, WarpLCA, prime, save_frontend, standardise
from warplca.frontend.pretrained import open_primed


def images(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("cls", [LCA, WarpLCA])
@pytest.mark.parametrize(("kernel", "stride", "size"), [(9, 2, (32, 32)), (8, 3, (37, 31)), (5, 1, (11, 16))])
def test_output_shapes(cls, kernel, stride, size):
    layer = cls(features=7, kernel_size=kernel, stride=stride, iterations=3).eval()
    code = layer(images(2, 3, *size))
    assert code.shape == (2, 7, -(-size[0] // stride), -(-size[1] // stride))
    layer.output = "reconstruction"
    assert layer(images(2, 3, *size)).shape == (2, 3, *size)


def test_standardise_gives_zero_mean_unit_variance_and_maps_back():
    x = images(3, 3, 13, 17)
    result = standardise(x)
    assert result.images.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(result.images.square().mean(dim=(1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(result.restore(result.images), x)


def test_a_constant_image_becomes_zero_with_a_finite_gradient():
    x = torch.full((1, 3, 12, 12), 0.4, requires_grad=True)
    code = LCA(kernel_size=5, iterations=5)(x)
    code.sum().backward()
    assert torch.count_nonzero(code) == 0
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_the_warp_layer_gives_gradients_to_every_parameter_and_to_the_image():
    torch.manual_seed(0)
    layer = WarpLCA(features=8, kernel_size=5, iterations=4, threshold="soft", lam=0.05, learn_lam=True)
    x = images(2, 3, 16, 16).requires_grad_()
    layer(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_unrolled_gradient_agrees_with_finite_differences():
    torch.manual_seed(0)
    layer = LCA(
        features=4, kernel_size=5, stride=2, iterations=8, threshold="soft", lam=0.1, step_size=0.05
    ).double()
    layer.eval()
    x = images(1, 3, 9, 11, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-6)


def test_detach_gives_no_gradient_through_the_code_and_says_so_only_when_asked():
    layer = WarpLCA(features=6, kernel_size=5, iterations=3, gradient_mode="detach")
    x = images(1, 3, 12, 12).requires_grad_()
    assert not layer(x).requires_grad
    layer.gradient_mode = "unroll"
    assert layer(x).requires_grad


def test_solve_reports_its_statistics_and_takes_a_start():
    layer = LCA(features=6, kernel_size=5, iterations=10).eval()
    x = images(2, 3, 14, 15)
    code, statistics = layer.solve(x, trace=True)
    assert statistics.iterations == 10
    assert statistics.trace is not None
    assert statistics.trace.shape == (11, 2)
    torch.testing.assert_close(statistics.trace[-1], statistics.energy)
    torch.testing.assert_close(code, layer(x))
    with pytest.raises(InputError, match=r"state has shape \(1, 1\); expected \(2, 6, 7, 8\)"):
        layer.solve(x, state=torch.zeros(1, 1))


def test_distillation_falls_when_the_predictor_hits_the_settled_states():
    torch.manual_seed(0)
    layer = WarpLCA(features=6, kernel_size=5, iterations=3, lam=0.2)
    x = images(4, 3, 16, 16)
    optimiser = torch.optim.Adam(layer.predictor.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        loss = layer.distillation_loss(layer.encode(x))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lam": 0.0}, "lam is 0.0; give a number above 0"),
        ({"iterations": -1}, "iterations is -1"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"output": "codes"}, "unknown output 'codes' in WarpLCA; did you mean 'code'"),
        ({"gradient_mode": "unrol"}, "unknown gradient_mode 'unrol' in WarpLCA; did you mean 'unroll'"),
        ({"learn_lam": True}, "learn_lam=True with a hard threshold"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        WarpLCA(**arguments)


def test_nan_pixels_are_refused_at_the_boundary():
    x = images(3, 3, 16, 16)
    x[1, 0, 4, 4] = float("nan")
    with pytest.raises(InputError, match="image 1 of the batch holds NaN"):
        LCA(kernel_size=5).eval()(x)


def test_a_growing_dictionary_never_diverges():
    torch.manual_seed(0)
    layer = WarpLCA(features=8, kernel_size=5, iterations=10, lam=0.1)
    optimiser = torch.optim.SGD(layer.parameters(), lr=50.0)
    for _ in range(5):
        loss = layer(images(2, 3, 16, 16)).square().sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimiser.step()
    code, statistics = layer.eval().solve(images(2, 3, 16, 16), iterations=100)
    assert torch.isfinite(code).all()
    assert torch.isfinite(statistics.energy).all()


def test_priming_lowers_the_energy_and_survives_saving(tmp_path):
    torch.manual_seed(0)
    x = torch.nn.functional.interpolate(images(140, 3, 5, 5), size=(16, 16), mode="bilinear")
    layer = WarpLCA(features=8, kernel_size=5, iterations=4, lam=0.3, predictor_width=16, predictor_depth=1)
    plan = PrimingPlan(
        dictionary_steps=15,
        target_images=64,
        predictor_steps=40,
        unrolled_steps=25,
        batch_size=16,
        solve_cycles=30,
    )
    before = prime(layer, x, PrimingPlan(0, 0, 0, 0, 16, 30), progress=False)
    after = prime(layer, x, plan, progress=False)
    assert after["settled_energy"] < before["settled_energy"]
    assert after["warp_energy"] < 0.7 * before["warp_energy"]
    save_frontend(layer, tmp_path / "mine", card="# mine\n")
    again = WarpLCA.from_pretrained(tmp_path / "mine")
    assert torch.equal(again(x[:3]), layer(x[:3]))
    plain = LCA.from_pretrained(tmp_path / "mine", iterations=5)
    assert torch.equal(plain.dictionary.weight, layer.dictionary.weight)
    assert plain.momentum == 0.0
    fast = LCA(features=8, kernel_size=5, iterations=7, accelerated=True).eval()
    save_frontend(fast, tmp_path / "fast", card="# fast\n")
    assert torch.equal(LCA.from_pretrained(tmp_path / "fast")(x[:3]), fast(x[:3]))
    with pytest.raises(InputError, match="has kernel_size 5, this layer has 7"):
        LCA(features=8, kernel_size=7).load_primed(open_primed(tmp_path / "mine"))
    with pytest.raises(InputError, match="unknown LCA argument 'iteration'; did you mean 'iterations'"):
        LCA.from_pretrained(tmp_path / "mine", iteration=5)


def test_a_saved_layer_keeps_its_step_and_other_settings_are_said(tmp_path, caplog):
    x = images(2, 3, 16, 16)
    layer = LCA(features=8, kernel_size=5, iterations=9, step_size=0.01, momentum=0.2).eval()
    save_frontend(layer, tmp_path / "stepped", card="# stepped\n")
    assert torch.equal(LCA.from_pretrained(tmp_path / "stepped")(x), layer(x))
    WarpLCA.from_pretrained("cifar10-64x9s2", threshold="soft")
    assert "was primed for threshold 'hard' (here 'soft')" in caplog.text
    caplog.clear()
    WarpLCA.from_pretrained("cifar10-64x9s2", lam=0.4)  # the predictor scales
    assert caplog.text == ""


def test_too_few_images_for_priming():
    with pytest.raises(InputError, match="priming got 10 images; give at least 128"):
        prime(WarpLCA(), images(10, 3, 32, 32), PrimingPlan(), progress=False)


# What ten cycles are known to beat; the aim, 1,000 plain cycles, is missed by 64x7s1 (docs/priming.md).
BEATEN = {"cifar10-64x9s2": 1000, "cifar10-64x9s2-soft": 200, "cifar10-64x7s1": 100}


@pytest.mark.parametrize("name", sorted(BEATEN))
def test_shipped_frontends_code_better_than_many_plain_cycles(name):
    from warplca.data import load_dataset

    x, _ = load_dataset("cifar10-subset", "test").tensors(range(16))
    _, warp = WarpLCA.from_pretrained(name).solve(x)
    _, plain = LCA.from_pretrained(name, iterations=BEATEN[name]).solve(x)
    assert warp.iterations <= 10
    assert warp.energy.mean() < plain.energy.mean()


def test_an_unknown_frontend_names_its_neighbour():
    with pytest.raises(
        InputError, match="unknown primed front-end 'cifar10-64x9s3'; did you mean 'cifar10-64x9s2'"
    ):
        WarpLCA.from_pretrained("cifar10-64x9s3")
