"""Several processes, on one machine and on two simulated ones, do what one process does."""

import itertools
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack

import pandas as pd
import pytest
import torch
from stripes import TIMES, stripes

from warplca.configs import InputError
from warplca.data import save_npz
from warplca.models import load_checkpoint
from warplca.train.source import check_data

CONFIG = """
model:
  num_classes: 2
  backbone_options: {norm_layer: groupnorm1, channels: [8, 8, 16, 16], stem_width: 8}
train:
  epochs: 2
  batch_size: 15         # 81 images: the last batch has 6, the processes' shares differ in size
  validation_images: 15
  log_steps: 2
"""

WARP = (
    "model.frontend={name: warp-lca, features: 8, kernel_size: 5, iterations: 2, threshold: soft, lam: 0.2}"
)


@pytest.fixture
def launch(tmp_path):
    data = tmp_path / "stripes.npz"
    save_npz(data, stripes(), stripes(8, seed=1))
    (tmp_path / "small.yaml").write_text(CONFIG)
    common = ["train", "--config", str(tmp_path / "small.yaml"), "--data", str(data)]
    main = ["-m", "warplca.cli.main"]

    def start(out, *overrides, torchrun=(), host=()):
        launcher = (
            [sys.executable, "-m", "torch.distributed.run", *torchrun] if torchrun else [sys.executable]
        )
        command = [*host, *launcher, *main, *common, "--out", str(tmp_path / out), *overrides]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def finish(process):
    output, errors = process.communicate(timeout=240)
    return process.returncode, output, errors


def curves(folder):
    return pd.read_csv(folder / "curves.csv").drop(columns=TIMES)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def assert_alike(left, right):
    pd.testing.assert_frame_equal(curves(left), curves(right), check_exact=False, rtol=0, atol=1e-4)
    one, two = (load_checkpoint(run / "checkpoint").state_dict() for run in (left, right))
    for name, value in one.items():
        assert (value - two[name]).abs().max() < 1e-3, name


@pytest.mark.slow
@pytest.mark.parametrize("frontend", ["none", "warp-lca"])
def test_two_processes_give_the_curve_of_one(launch, tmp_path, frontend):
    overrides = ("model.frontend=none", "train.augment.policy=prime")
    if frontend == "warp-lca":  # self-distillation looks at a few images of each process's share
        overrides = (WARP, "train.frontend.frozen_epochs=1", "train.frontend.distillation=0")
    assert finish(launch("one", *overrides))[0] == 0
    code, output, errors = finish(
        launch("two", *overrides, torchrun=("--nproc-per-node", "2", "--master-port", free_port()))
    )
    assert code == 0, errors
    assert output.count("checkpoint:") == 1
    assert '"processes": 2' in (tmp_path / "two" / "run.json").read_text()
    assert_alike(tmp_path / "one", tmp_path / "two")
    # One process goes on where two stood, and finds the run finished.
    assert finish(launch("two", *overrides))[0] == 0


@pytest.fixture
def namespaces():
    """Commands that run another on either of two hosts, network namespaces joined by a virtual cable."""
    names = [f"warplca-{os.getpid()}-{number}" for number in (1, 2)]
    cable = [f"w{os.getpid()}-{number}" for number in (1, 2)]

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    if shutil.which("ip") is None or not ip("netns", "add", names[0]):
        pytest.skip("network namespaces are not allowed here")
    with ExitStack() as undo:
        undo.callback(ip, "netns", "del", names[0])
        assert ip("netns", "add", names[1])
        undo.callback(ip, "netns", "del", names[1])
        assert ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for number, (name, end) in enumerate(zip(names, cable, strict=True), start=1):
            assert ip("link", "set", end, "netns", name)
            assert ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", end)
            assert ip("-n", name, "link", "set", end, "up")
            assert ip("-n", name, "link", "set", "lo", "up")
        yield [
            ["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={end}"]
            for name, end in zip(names, cable, strict=True)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["one machine", "two namespaces"])
def test_two_hosts_give_the_curve_of_one(launch, tmp_path, network, request):
    """Two launchers that know each other only by address and port."""
    hosts, address, port = [[], []], "127.0.0.1", free_port()
    if network == "two namespaces":
        hosts, address = request.getfixturevalue("namespaces"), "10.77.0.1"
    overrides = (WARP.replace("warp-lca", "lca"), "train.accumulation=2")
    assert finish(launch("one", *overrides))[0] == 0
    nodes = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", address, "--master-port", port)
    first = launch("two", *overrides, torchrun=(*nodes, "--node-rank", "0"), host=hosts[0])
    # The second host has no access to the first one's folder.
    second = launch("elsewhere", *overrides, torchrun=(*nodes, "--node-rank", "1"), host=hosts[1])
    results = [finish(process) for process in (first, second)]
    assert [code for code, _, _ in results] == [0, 0], results
    assert not (tmp_path / "elsewhere").exists()
    assert_alike(tmp_path / "one", tmp_path / "two")


def test_more_processes_than_images_are_refused():
    from stripes import config

    with pytest.raises(
        InputError, match="17 processes share batches of 16 images; start at most 16 processes"
    ):
        check_data(config(None), stripes(), 17)
    with pytest.raises(InputError, match="9 processes share batches of 8 images"):
        check_data(config(None), stripes(24), 9)


def test_every_process_cuts_its_share_into_as_many_parts():
    from warplca.train.losses import Batch
    from warplca.train.sampling import StepOrder
    from warplca.train.step import _parts

    for count, processes, accumulation in itertools.product(range(1, 12), (1, 2, 3), (1, 2, 4)):
        orders = [StepOrder(count, 16, 0, process=p, processes=processes) for p in range(processes)]
        smallest = max(count // processes, 1)
        cut = [
            len(
                _parts(
                    Batch(torch.zeros(len(chosen), 1), torch.zeros(len(chosen))), min(accumulation, smallest)
                )
            )
            for chosen, _ in (order.share(0) for order in orders)
        ]
        assert len(set(cut)) == 1
