"""Device checks in a process of their own: an accelerator, once registered, is there for all that follows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from warplca.configs.device import exactly, float32


@pytest.mark.timeout(600)
def test_everything_runs_on_an_accelerator():
    checks = Path(__file__).with_name("device_checks.py")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(checks)]
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    if environment["GPUS_OF_CHECKS"] != "all":
        environment["CUDA_VISIBLE_DEVICES"] = environment["GPUS_OF_CHECKS"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_float32_is_full_unless_a_block_allows_tf32():
    convolutions = torch.backends.cudnn
    before = convolutions.allow_tf32
    with float32():
        assert not convolutions.allow_tf32
        with float32(tf32=True):
            assert convolutions.allow_tf32
            with float32():  # as the block around says
                assert convolutions.allow_tf32
        assert not convolutions.allow_tf32
    assert convolutions.allow_tf32 == before
    with exactly(torch.zeros(1)):  # on the CPU there is nothing to switch
        assert convolutions.allow_tf32 == before
