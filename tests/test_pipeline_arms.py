"""Several runs at once: the same weights as one after the other, stopped and continued without loss."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from stripes import section

from warplca.configs import InputError, ModelConfig, RunConfig, TrainConfig
from warplca.data import load_dataset
from warplca.models import load_checkpoint
from warplca.pipeline.arms import Run, train_at_once
from warplca.train import train

IMAGES = 120
SCRIPT = """
import sys
from pathlib import Path
from test_pipeline_arms import dataset, runs
from warplca.pipeline.arms import train_at_once
from warplca.train import Interrupted

if __name__ == "__main__":
    try:
        train_at_once(runs(Path(sys.argv[1]), epochs=int(sys.argv[2])), dataset(), workers=2, progress=True)
    except Interrupted:
        raise SystemExit(130)
"""


def dataset():
    return load_dataset("cifar10-subset", "train").subset(range(IMAGES))


def runs(folder, epochs=1):
    recipe = TrainConfig(epochs=epochs, batch_size=40)
    models = {name: ModelConfig(frontend=section(name)) for name in ("none", "conv")}
    return [Run(name, RunConfig(model=model, train=recipe), folder / name) for name, model in models.items()]


def weights(run):
    return load_checkpoint(run.folder / "checkpoint").state_dict()


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        expected = weights(other)
        assert all(torch.equal(value, expected[key]) for key, value in weights(one).items())


@pytest.mark.slow
def test_runs_at_once_have_the_weights_of_runs_in_turn(tmp_path):
    at_once, in_turn = runs(tmp_path / "a"), runs(tmp_path / "b")
    train_at_once(at_once, dataset(), workers=2, progress=False)
    for run in in_turn:
        train(run.config, dataset(), run.folder, progress=False)
    assert_same(at_once, in_turn)
    train_at_once(at_once, dataset(), workers=2, progress=False)  # nothing is left to do


@pytest.mark.slow
def test_the_last_run_is_started_first(tmp_path):
    first, last = runs(tmp_path)
    train_at_once([first, last], dataset(), workers=1, progress=False)
    cards = [run.folder / "checkpoint" / "config.json" for run in (last, first)]
    assert cards[0].stat().st_mtime_ns < cards[1].stat().st_mtime_ns


@pytest.mark.slow
def test_a_failing_run_is_named_and_its_message_kept(tmp_path):
    first, second = runs(tmp_path)
    (tmp_path / "conv").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"^conv: "):
        train_at_once([second, first], dataset(), workers=2, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_leaves_no_other_behind_and_loses_nothing(tmp_path, number):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    epochs = 40  # many seconds: enough for a busy machine to send the signal in time
    command = [sys.executable, str(script), str(stopped), str(epochs)]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__), "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + 120
        while b"img/s" not in (tmp_path / "log").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    while group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group_lives(process.pid)
    assert not all(run.finished for run in runs(stopped))
    train_at_once(runs(stopped, epochs), dataset(), workers=2, progress=False)
    for run in runs(whole, epochs)[:1]:
        train(run.config, dataset(), run.folder, progress=False)
    assert_same(runs(stopped)[:1], runs(whole)[:1])


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
