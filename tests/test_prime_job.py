"""Priming as a job: it goes on where it stopped, to the same weights, and only if it is the same job."""

import pytest
import torch
from safetensors.torch import load_file

from warplca.configs import InputError
from warplca.frontend import PrimingPlan
from warplca.pipeline.prime import LayerConfig, PrimeConfig, prime_frontend
from warplca.train.interrupt import Interrupted

LAYER = LayerConfig(features=6, kernel_size=5, iterations=3, lam=0.3, predictor_width=16, predictor_depth=1)
PLAN = PrimingPlan(
    dictionary_steps=3,
    target_images=24,
    predictor_steps=4,
    unrolled_steps=4,
    search_images=8,
    batch_size=8,
    solve_cycles=10,
)
CONFIG = PrimeConfig(layer=LAYER, plan=PLAN, images=90)
DATA = "cifar10-subset"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A front-end primed without a stop."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    prime_frontend(CONFIG, DATA, folder, progress=False)
    return folder


def same_weights(one, other):
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("every", [1, 3])
def test_a_job_stopped_again_and_again_ends_with_the_same_weights(whole, tmp_path, every):
    stops = 0
    finished = False
    while not finished:
        try:
            prime_frontend(CONFIG, DATA, tmp_path / "parts", progress=False, stop_after=every)
            finished = True
        except Interrupted:
            stops += 1
    assert stops >= 11 // every
    assert same_weights(whole, tmp_path / "parts")
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_another_configuration_and_a_broken_state_are_refused(tmp_path):
    with pytest.raises(Interrupted, match="step 1 of 3 of stage 'dictionary'; state saved in"):
        prime_frontend(CONFIG, DATA, tmp_path / "mine", progress=False, stop_after=1)
    assert not (tmp_path / "mine").exists()
    other = PrimeConfig(layer=LAYER, plan=PLAN, images=91)
    with pytest.raises(InputError, match="holds a priming job with another configuration .different: images"):
        prime_frontend(other, DATA, tmp_path / "mine", progress=False)
    state = tmp_path / "mine.priming" / "1-dictionary.safetensors"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read; delete the folder"):
        prime_frontend(CONFIG, DATA, tmp_path / "mine", progress=False)


def test_priming_can_start_from_a_primed_front_end(whole, tmp_path):
    nothing = PrimingPlan(0, 0, 0, 0, batch_size=8, search_images=0)
    again = PrimeConfig(layer=LAYER, plan=nothing, images=90, start=str(whole))
    prime_frontend(again, DATA, tmp_path / "second", progress=False)
    assert same_weights(whole, tmp_path / "second")
    assert "Started from the front-end" in (tmp_path / "second" / "README.md").read_text()
