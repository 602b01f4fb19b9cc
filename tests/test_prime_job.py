"""Priming as a job: it goes on where it stopped, to the same weights, and only if it is the same job."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from warplca.cli.main import main
from warplca.configs import InputError
from warplca.data import load_dataset
from warplca.frontend import Equaliser, PrimingPlan, WarpLCASettings
from warplca.frontend.pretrained import open_primed
from warplca.models import harden
from warplca.pipeline import prime as prime_module
from warplca.pipeline.prime import PrimeConfig, prime_frontend
from warplca.train import state as state_module
from warplca.train.processes import Interrupted

LAYER = WarpLCASettings(
    features=6, kernel_size=5, iterations=3, lam=0.3, predictor_width=16, predictor_depth=1
)
PLAN = PrimingPlan(
    dictionary_steps=3,
    target_images=24,
    predictor_steps=4,
    unrolled_steps=4,
    search_images=8,
    batch_size=8,
    solve_cycles=10,
)
CONFIG = PrimeConfig(frontend=LAYER, plan=PLAN, images=90)
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


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3])
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
    other = PrimeConfig(frontend=LAYER, plan=PLAN, images=91)
    with pytest.raises(InputError, match="holds a priming job with another configuration .different: images"):
        prime_frontend(other, DATA, tmp_path / "mine", progress=False)
    (state,) = (tmp_path / "mine.priming" / "1-dictionary").iterdir()
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read .*; delete them to start"):
        prime_frontend(CONFIG, DATA, tmp_path / "mine", progress=False)


def test_priming_can_start_from_a_primed_front_end(whole, tmp_path):
    nothing = PrimingPlan(0, 0, 0, 0, batch_size=8, search_images=0)
    again = PrimeConfig(frontend=LAYER, plan=nothing, images=90, start=str(whole))
    prime_frontend(again, DATA, tmp_path / "second", progress=False)
    assert same_weights(whole, tmp_path / "second")
    assert "Started from the front-end" in (tmp_path / "second" / "README.md").read_text()


def test_a_finished_job_is_not_done_again_and_nothing_else_is_replaced(whole, tmp_path):
    written = (whole / "model.safetensors").stat().st_mtime_ns
    facts = prime_frontend(CONFIG, DATA, whole, progress=False)
    assert facts["warp_energy"] > 0.0
    assert (whole / "model.safetensors").stat().st_mtime_ns == written
    other = PrimeConfig(frontend=LAYER, plan=PLAN, images=91)
    (tmp_path / "thesis.txt").write_text("all of it")
    for config, folder in ((other, whole), (CONFIG, tmp_path)):
        with pytest.raises(InputError, match="holds something else than this priming job's front-end"):
            prime_frontend(config, DATA, folder, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_states_that_settled_are_kept_and_damaged_ones_are_settled_again(whole, tmp_path):
    with pytest.raises(Interrupted):
        prime_frontend(CONFIG, DATA, tmp_path / "parts", progress=False, stop_after=4)
    targets = sorted((tmp_path / "parts.priming" / "targets").iterdir())
    assert len(targets) == 3
    targets[1].write_bytes(targets[1].read_bytes()[:50])
    prime_frontend(CONFIG, DATA, tmp_path / "parts", progress=False)
    assert same_weights(whole, tmp_path / "parts")


def test_a_job_asked_to_stop_while_states_settle_stops_between_batches(whole, tmp_path, monkeypatch):
    import os
    import signal

    from warplca.frontend.priming import stages

    settle = stages.settled_states

    def interrupting(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return settle(*arguments)

    monkeypatch.setattr(stages, "settled_states", interrupting)
    with pytest.raises(Interrupted, match="stopped while states settle"):
        prime_frontend(CONFIG, DATA, tmp_path / "parts", progress=False)
    assert len(list((tmp_path / "parts.priming" / "targets").iterdir())) == 1
    monkeypatch.undo()
    prime_frontend(CONFIG, DATA, tmp_path / "parts", progress=False)
    assert same_weights(whole, tmp_path / "parts")


def test_states_of_another_job_are_refused_before_its_first_step(whole, tmp_path):
    plan = replace(PLAN, dictionary_steps=0)
    with pytest.raises(Interrupted):
        prime_frontend(PrimeConfig(LAYER, plan, 90), DATA, tmp_path / "mine", progress=False, stop_after=1)
    for file in (tmp_path / "mine.priming").glob("*/*.safetensors"):
        file.unlink()  # as if killed before it was written
    other = PrimeConfig(LAYER, replace(plan, solve_cycles=20), 90)
    with pytest.raises(InputError, match="another configuration .different: plan"):
        prime_frontend(other, DATA, tmp_path / "mine", progress=False)


def test_images_that_come_class_by_class_are_mixed():
    from warplca.pipeline.prime import _spread

    assert _spread(np.array([3, 1, 2, 0]), 3) == [0, 1, 2]
    mixed = _spread(np.repeat(np.arange(4), 25), 40)
    assert len(set(mixed)) == 40
    assert len({number // 25 for number in mixed}) == 4


def test_plans_out_of_range_are_refused():
    with pytest.raises(InputError, match="batch_size of the priming plan is 0; give 1 or more"):
        PrimingPlan(batch_size=0)
    with pytest.raises(InputError, match="predictor_steps of the priming plan is -1; give 0 or more"):
        PrimingPlan(predictor_steps=-1)
    with pytest.raises(InputError, match="learning_rate of the priming plan is 0.0; give a number above 0"):
        PrimingPlan(learning_rate=0.0)


def test_a_loss_that_is_not_finite_is_neither_taken_nor_saved(tmp_path, monkeypatch):
    from warplca.frontend.priming import stages

    monkeypatch.setattr(
        stages, "smooth_energy", lambda problem, state: state.flatten(1).sum(1) * float("nan")
    )
    with pytest.raises(
        InputError, match="stage 'unrolled' is not finite at step 1; lower the plan's learning_rate"
    ):
        prime_frontend(CONFIG, DATA, tmp_path / "mine", progress=False)
    assert not (tmp_path / "mine.priming" / "3-unrolled.safetensors").exists()


def test_an_equaliser_learns_the_spectrum_of_a_user_s_images(tmp_path, capsys):
    arguments = [
        "prime",
        "--config",
        "equaliser",
        "--data",
        DATA,
        "--out",
        str(tmp_path / "own"),
        "images=200",
    ]
    assert main(arguments) == 0
    assert "damage_95" in capsys.readouterr().out
    images = load_dataset(DATA, "train").tensors(range(200))[0]
    learned = Equaliser().eval()
    learned.learn(images[64:])
    chosen = harden(
        lambda x: x.mean((2, 3)), [{"weights": str(tmp_path / "own"), "gate": [0.3, 0.5]}]
    ).frontend
    torch.testing.assert_close(chosen.usual, learned.usual)
    damage = learned.encode(images[:64]).gated.damage
    assert open_primed(tmp_path / "own").facts["damage_95"] == pytest.approx(
        float(damage.quantile(0.95)), rel=1e-4
    )
    assert main(arguments) == 0  # the very job is not done again
    for change, words in {
        "plan.dictionary_steps=3": "plan is set, and an equaliser has no stages",
        "images=100": "priming got 100 images; give at least 164",
        "frontend=contrast": "frontend is 'contrast', which learns nothing from images alone",
    }.items():
        capsys.readouterr()
        assert main([*arguments[:5], "--out", str(tmp_path / "other"), *arguments[7:], change]) == 2
        assert words in capsys.readouterr().err


def test_a_full_disk_between_stages_costs_a_warning(tmp_path, monkeypatch, caplog):
    saved = state_module.save_state

    def limited(folder, state, progress, identity, *, keep):
        if progress.step < 3:
            raise InputError("cannot write it: No space left on device.")
        saved(folder, state, progress, identity, keep=keep)

    monkeypatch.setattr(state_module, "save_state", limited)
    monkeypatch.setattr(prime_module, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(prime_module, "measure", lambda layer, images: {})
    short = replace(PLAN, dictionary_steps=3, target_images=0, unrolled_steps=0, search_images=0)
    prime_frontend(replace(CONFIG, plan=short), DATA, tmp_path / "out", progress=False)
    assert caplog.text.count("The work goes on; the state will be saved at the next chance.") == 2
