"""The device to compute on, what it can do, the memory in use, and the mode of a model in use."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def pick_device(name: str | None = None) -> torch.device:
    """The device to compute on: `name`, else COURSE_DEVICE, else a CUDA GPU, else the CPU.

    Apple's MPS is used only when asked for, and only after it has multiplied two matrices like
    the CPU does; some versions silently computed something else. Raises RuntimeError otherwise.
    """
    name = name or os.environ.get("COURSE_DEVICE")
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        a = torch.linspace(-1, 1, 64 * 64).view(64, 64)
        same = torch.allclose((a.to(device) @ a.T.to(device)).cpu(), a @ a.T, atol=1e-2)
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(f"device {name!r} cannot be used ({error}): choose 'cpu'") from error
    if not same:
        raise RuntimeError(f"device {name!r} multiplies matrices wrongly: choose 'cpu'")
    return device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, without dropout, for the length of a block; then as before, in any case."""
    was_training = model.training
    try:
        yield model.eval()
    finally:
        model.train(was_training)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors in use at one moment of `call()`, beyond what was there before.

    A GPU counts them itself. On a CPU PyTorch's profiler writes down every piece of memory that
    is taken (+) or given back (−), and they are added up.
    """
    call()  # once, for whatever is set up only once
    gc.collect()  # now, or memory from before would be given back in the middle
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
        call()
        return torch.cuda.memory_stats(device)["requested_bytes.all.peak"] - before
    os.environ["KINETO_LOG_LEVEL"] = "99"  # else the profiler prints lines of its own
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        record.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    moves = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    used = peak = 0
    for _, size in moves:
        used += size
        peak = max(peak, used)
    return peak


PEAK_TFLOPS = {  # dense products in half precision, by the data sheets; longer names first
    "B200": 2250,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "V100": 125,
    "T4": 65,
    "RTX 4090": 165,
}


def peak_tflops(device: torch.device) -> float | None:
    """The trillions of operations a second that a GPU can do at best; None where unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAK_TFLOPS.items() if known in name), None)


def most_memory(device: torch.device) -> int | None:
    """The most bytes this process has had so far: on its GPU, or else in all; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # Linux counts in KiB
