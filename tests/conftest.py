"""One thread a process: on small tensors more only wait for each other. And the CPU: GPUs have their own checks."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
if not any("device_checks" in word for word in sys.argv):
    # The suite holds models against images on the CPU, also where there is a GPU; ``test_device.py`` asks for that one.
    os.environ.setdefault("GPUS_OF_CHECKS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch

torch.set_num_threads(1)
