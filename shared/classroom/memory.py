"""How much memory loading a model takes, from moment to moment, in a process of its own.

Used by gpt2_weights.ipynb, built in none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter

import torch
from safetensors.torch import load_file, save_file

from shared import weights
from shared.classroom.gpt2 import in_openais_layout
from shared.gpt import GPTConfig, GPTModel

TINY = GPTConfig(8, 8, emb_dim=8, n_heads=1, n_layers=1)


def memory_while(
    load: Callable[[Path, GPTConfig], GPTModel], config: GPTConfig
) -> tuple[list[float], list[float]]:
    """Seconds, and the memory taken at each of them, while `load(path, config)` reads a file.

    The file is a random one in GPT-2's layout, and memory is counted in sizes of its model, beyond
    what the process had before. `load` may be written in a notebook. It runs in a fresh process,
    since one that has given memory back may keep it, and it loads a tiny model there first, since
    PyTorch's own code comes into memory where it is used.
    """
    with TemporaryDirectory() as folder:
        for name, each in (("tiny", TINY), ("model", config)):
            save_file(in_openais_layout(GPTModel(each)), Path(folder) / name)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            source = inspect.getsource(load)
            return fresh.submit(_watched, source, load.__name__, folder, config).result()


def _watched(
    source: str, name: str, folder: str, config: GPTConfig
) -> tuple[list[float], list[float]]:
    """What `memory_while` measures, inside the fresh process."""
    import psutil  # comes with Jupyter

    torch.set_num_threads(1)
    known = vars(weights) | {"load_file": load_file}  # what a loader may use
    exec(source, known)
    known[name](Path(folder) / "tiny", TINY)
    process, done, seconds, taken = psutil.Process(), Event(), [], []
    before, began = process.memory_info().rss, perf_counter()

    def watch() -> None:
        while not done.wait(0.001):
            seconds.append(perf_counter() - began)
            taken.append(process.memory_info().rss - before)

    watcher = Thread(target=watch)
    watcher.start()
    model = known[name](Path(folder) / "model", config)
    done.set()
    watcher.join()
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    return seconds, [amount / size for amount in taken]
