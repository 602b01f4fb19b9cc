"""Killed at any moment and started again: the same final table, no cell lost or counted twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# The driver imports everything once and forks a fresh process for each attempt, which it kills with
# SIGKILL after a random time. It reports how many attempts were really cut short, and the final table.
DRIVER = """
import json, os, random, signal, sys, time
import numpy as np
import torch
from warplca.configs.plan import AttackSetting, EvaluationPlan
from warplca.data import ImageDataset
from warplca.eval import Execution, ResultsStore, evaluate

folder, kills = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
rng = np.random.default_rng(0)
dataset = ImageDataset(
    "toy", rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8), rng.integers(0, 3, 40), ("a", "b", "c")
)
plan = EvaluationPlan(
    ("gaussian_noise", "contrast", "impulse_noise"),
    (1, 3, 5),
    30,
    (AttackSetting("fgsm", "linf 8/255"),),
    10,
    batch_size=10,
)

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(768, 3)

    def forward(self, images):
        time.sleep(0.004)
        return self.layer(images.flatten(1))

def run(path):
    evaluate(Tiny(), dataset, plan, results=path, execution=Execution(progress=False))

def table(path):
    with ResultsStore(path, read_only=True) as store:
        frame = store.to_frame(predictions=True)
    assert all(len(p) == n for p, n in zip(frame["predictions"], frame["images"]))
    columns = ["kind", "condition", "severity", "threat", "images", "correct", "mean_confidence", "ece"]
    rows = frame[columns].assign(answers=[p.tolist() for p in frame["predictions"]])
    return sorted(rows.to_numpy().tolist(), key=repr)

random.seed(0)
cut, attempt, tables = 0, 0, []
while cut < kills or not tables:
    path = f"{folder}/results-{len(tables)}.sqlite"
    child = os.fork()
    if child == 0:
        run(path)
        os._exit(0)
    if cut < kills:
        time.sleep(random.uniform(0.0, 0.25))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    cut += os.WIFSIGNALED(status)
    if os.path.exists(path) and os.path.getsize(path) and not os.WIFSIGNALED(status):
        tables.append(table(path))
run(f"{folder}/whole.sqlite")
print(json.dumps({"cut": cut, "tables": tables, "whole": table(f"{folder}/whole.sqlite")}))
"""


def test_twenty_random_kills_change_nothing(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(tmp_path), "20"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout
    outcome = json.loads(output.splitlines()[-1])
    assert outcome["cut"] == 20
    assert len(outcome["whole"]) == 11
    assert all(table == outcome["whole"] for table in outcome["tables"])
