"""Killed at random moments and continued, a run ends in the very same weights."""

import random
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from stripes import TIMES

SCRIPT = """
import sys, torch
from stripes import config, stripes
from warplca.train import train
torch.set_num_threads(1)
options = {"augment": {"noise": 0.1}, "average": {"kind": "ema", "decay": 0.9}, "select": {"keep": "best"}}
training = {"frozen_epochs": 3, "lam_factor": 2.0}
run = config("warp-lca", epochs=24, save_minutes=1e-3, training=training, **options)
print("ready", flush=True)
train(run, stripes(), sys.argv[1], progress=False)
print("finished", flush=True)
"""
KILLS = 20


def start(script, out):
    command = [sys.executable, str(script), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", line + process.stdout.read()
    return process


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(__file__).rsplit("/", 1)[0])
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    whole = start(script, tmp_path / "whole")
    began = time.monotonic()
    assert whole.communicate()[0] == "finished\n"
    length = time.monotonic() - began
    moments = random.Random(7)
    kills = finished = 0
    while not finished:
        process = start(script, tmp_path / "parts")
        if kills < KILLS:
            # On average a twentieth of the run: before, in and after saving, and in the middle of steps.
            time.sleep(moments.uniform(0.0, 2.0 * length / KILLS))
            finished = process.poll() is not None
            process.kill()
            kills += 1
            process.communicate()
        else:
            finished = process.communicate()[0] == "finished\n"
            assert finished
    assert kills == KILLS
    left, right = (
        load_file(tmp_path / run / "checkpoint" / "model.safetensors") for run in ("whole", "parts")
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    curves = [pd.read_csv(tmp_path / run / "curves.csv").drop(columns=TIMES) for run in ("whole", "parts")]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    assert len(list((tmp_path / "parts" / "states").iterdir())) <= 2
