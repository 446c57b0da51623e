"""A training step on a quiet machine and beside a busy loop per core, for several ways to wait.

usage: python shared/tests/busy.py        (some 4 minutes, on a machine with nothing else to do)

OpenMP's threads wait for each other many times in a step: where a neighbour holds one core, all
wait for one thread. So the tests compute with a single thread (shared/tests/plugin.py). Each
figure is a median and, in brackets, the worst, as multiples of the default on a quiet machine.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

ROUNDS = 3
WAYS = ({}, {"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "10000"}, {"OMP_NUM_THREADS": "1"})
STEPS = """
import time, torch
from torch.nn import functional as F
from shared.gpt import GPTConfig, GPTModel
model = GPTModel(GPTConfig.preset("course"))
optimizer = torch.optim.AdamW(model.parameters())
x = torch.randint(2048, (16, 128))
for step in range(13):
    if step == 3:  # warm
        start = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(model(x).flatten(0, 1), x.flatten()).backward()
    optimizer.step()
print((time.perf_counter() - start) / 10)
"""
BUSY = "import time; end = time.time() + 900\nwhile time.time() < end: pass"  # it ends by itself


def seconds(way: dict[str, str]) -> float:
    """Per step, in a fresh process, since OpenMP reads its settings once."""
    settings = {"env": os.environ | way, "cwd": Path(__file__).parents[2]}
    return float(subprocess.check_output([sys.executable, "-c", STEPS], **settings))


def main() -> None:
    unit = None
    print(f"{'':24}{'quiet':>16}{'busy':>16}")
    for way in WAYS:
        print(f"{' '.join(map('='.join, way.items())) or 'default':24}", end="", flush=True)
        for neighbours in (0, os.cpu_count()):
            busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(neighbours)]
            try:
                rounds = [seconds(way) for _ in range(ROUNDS)]
            finally:
                for process in busy:
                    process.kill()
            unit = unit or median(rounds)
            print(f"{median(rounds) / unit:8.1f} ({max(rounds) / unit:5.1f})", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
