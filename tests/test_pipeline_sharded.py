"""Evaluation and corruption by several processes give what one gives, bit for bit."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from stripes import QUIET, stripes
from test_train_processes import free_port

from warplca.configs import AttackSetting, EvaluationPlan
from warplca.data import CORRUPTION_GROUPS
from warplca.pipeline.sharded import evaluate_sharded, share_of_plan, write_corruptions_sharded

SCRIPT = """
import sys
import torch
from pathlib import Path
from accelerate import PartialState
from stripes import QUIET, stripes
from warplca.configs import EvaluationPlan, AttackSetting
from warplca.models import create_classifier
from warplca.pipeline.sharded import evaluate_sharded, write_corruptions_sharded
from accelerate import PartialState

torch.manual_seed(0)
model = create_classifier("resnet10_slim", {"name": "conv", "features": 4, "kernel_size": 5}, num_classes=2)
plan = EvaluationPlan(
    corruptions=("gaussian_noise", "contrast", "gaussian_noise+contrast"), severities=(2, 5),
    attacks=(AttackSetting("fgsm", "linf 8/255"), AttackSetting("pgd-10", "linf 8/255")), attack_images=16,
)
out = Path(sys.argv[1])
results = out / "results.sqlite" if sys.argv[2] == "file" else None
frame = evaluate_sharded(model, stripes(64), plan, results=results, name="m", execution=QUIET)
write_corruptions_sharded(stripes(64), out / "c", names=["gaussian_noise", "contrast", "fog"], severities=(1, 4))
state = PartialState()
print(state.num_processes, len(frame))
if state.is_main_process:
    frame.drop(columns=["seconds", "created"]).to_csv(out / "table.csv", index=False)
state.destroy_process_group()
"""


def test_shares_of_a_plan_make_the_whole():
    plan = EvaluationPlan(
        corruptions=("standard", "saturate"), attacks=(AttackSetting("fgsm", "linf 8/255"),)
    )
    shares = [share_of_plan(plan, process, 4) for process in range(4)]
    dealt = [name for share in shares for name in share.corruptions]
    assert sorted(dealt) == sorted((*CORRUPTION_GROUPS["standard"], "saturate"))
    assert sum((share.attacks for share in shares), ()) == plan.attacks
    assert {len(share.corruptions) + len(share.attacks) for share in shares} <= {4, 5}


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["file", "memory"])
def test_three_processes_give_the_table_and_the_files_of_one(tmp_path, monkeypatch, kept):
    monkeypatch.setenv("PYTHONPATH", str(__file__).rsplit("/", 1)[0])
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    launchers = {
        "one": [sys.executable],
        "three": [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "3",
            "--master-port",
            free_port(),
        ],
    }
    for name, launcher in launchers.items():
        (tmp_path / name).mkdir()
        command = [*launcher, str(script), str(tmp_path / name), kept]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == (["1", "9"] if name == "one" else ["3", "9"] * 3)
    one, three = (pd.read_csv(tmp_path / name / "table.csv") for name in launchers)
    pd.testing.assert_frame_equal(one, three, check_exact=True)
    files = [sorted((tmp_path / name / "c").iterdir()) for name in launchers]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    for left, right in zip(*files, strict=True):
        if left.suffix == ".npy":
            assert np.array_equal(np.load(left), np.load(right)), left.name


def test_alone_they_are_the_plain_calls(tmp_path):
    def constant(images):
        return images.new_tensor([1.0, 0.0]).expand(len(images), 2)

    frame = evaluate_sharded(constant, stripes(20), EvaluationPlan(), execution=QUIET)
    assert frame["accuracy"].tolist() == [0.5]
    files = write_corruptions_sharded(stripes(4), tmp_path / "c", names=["contrast"], severities=[1])
    assert [path.name for path in files] == ["contrast.npy"]
