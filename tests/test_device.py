"""Device checks in a process of their own: an accelerator, once registered, is there for all that follows."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils import backend_registration

from warplca.configs.device import _switches, exactly, float32, on_tensor_cores


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this version of torch can pretend no device",  # the oldest that is taken; newer ones run it
)
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_everything_runs_on_an_accelerator(which):
    checks = [str(Path(__file__).with_name(name)) for name in ("device_checks.py", "device_steps.py")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-m",
        which,
        *checks,
    ]
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    if environment["GPUS_OF_CHECKS"] != "all":
        environment["CUDA_VISIBLE_DEVICES"] = environment["GPUS_OF_CHECKS"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_float32_is_full_unless_a_block_allows_tf32():
    switches, exact, fast = _switches()

    def values():
        return [getattr(*switch) for switch in switches]

    before = values()
    with float32():
        assert values() == [exact] * len(switches)
        with float32(tf32=True):
            assert values() == [fast] * len(switches)
            with float32():  # as the block around says
                assert values() == [fast] * len(switches)
        assert values() == [exact] * len(switches)
    assert values() == before
    with exactly(torch.zeros(1)):  # on the CPU there is nothing to switch
        assert values() == before


def test_tensor_cores_compute_what_is_short_or_allowed_to_be():
    there, here = SimpleNamespace(device=torch.device("cuda")), torch.zeros(1)
    for dtype, short in ((torch.bfloat16, True), (torch.float16, True), (torch.float64, False)):
        assert on_tensor_cores(there, dtype) == short
        assert not on_tensor_cores(here, dtype)
    for tf32 in (True, False):
        with float32(tf32=tf32):
            assert on_tensor_cores(there, torch.float32) == tf32
    assert not on_tensor_cores(there, torch.float32)
