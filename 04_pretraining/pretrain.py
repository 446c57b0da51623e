"""Pretrain a GPT on token shards, with one process or with many.

    python 04_pretraining/pretrain.py --data build/shards --config course
    torchrun --standalone --nproc-per-node=8 04_pretraining/pretrain.py --data shards --config 124M
    python 04_pretraining/pretrain.py --config 124M --dry-run

Notable: the small batches of a run are numbered through, and process r of W takes every W-th of
them. So what a step reads does not depend on the number of processes, and a run may be stopped with
two of them and go on with one. Gradients are averaged by PyTorch's DistributedDataParallel. The
state is written whole or not at all; start the same command again to go on from it. How the shards
are made is shown in web_scale.ipynb, how several processes work together in many_gpus.ipynb.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.classroom.files import remove_left_overs, write_atomically  # noqa: E402
from shared.classroom.machine import evaluating, pick_device  # noqa: E402
from shared.classroom.state import restore, save_state  # noqa: E402
from shared.gpt import GPTConfig, GPTModel, count_parameters  # noqa: E402
from shared.optim import learning_rate, make_optimizer, optimizer_step  # noqa: E402
from shared.shards import ShardBatches, read_index  # noqa: E402
from shared.training import check_finite, half_precision, next_token_loss, progress  # noqa: E402
from shared.weights import save_checkpoint  # noqa: E402


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; batches are counted in windows."""

    model: str  # a preset of GPTConfig
    steps: int
    max_lr: float
    global_batch: int  # windows of one step, over all processes
    micro_batch: int  # windows one process computes at once
    warmup: int
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0


RECIPES = {  # the number of small batches in a step divides well among processes
    "course": Recipe("course", 4000, 3e-3, global_batch=32, micro_batch=4, warmup=100),
    # GPT-2's sizes with half a million tokens a step, and the rates of GPT-3's models of that size
    # (Brown et al. 2020, arXiv 2005.14165, table 2.1); 19,073 steps are ten billion tokens
    "124M": Recipe("124M", 19_073, 6e-4, global_batch=512, micro_batch=8, warmup=715),
    "355M": Recipe("355M", 19_073, 3e-4, global_batch=512, micro_batch=8, warmup=715),
    "774M": Recipe("774M", 19_073, 2.5e-4, global_batch=512, micro_batch=4, warmup=715),
    "1558M": Recipe("1558M", 19_073, 2e-4, global_batch=512, micro_batch=2, warmup=715),
}


class Processes:
    """Which process this is, of how many; alone unless torchrun started us."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        try:
            self.device = pick_device()
        except RuntimeError as error:
            raise ValueError(error) from error
        if self.device.type == "cuda" and "LOCAL_RANK" in os.environ:
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)
        if self.count > 1:
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a number over all processes."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value.item() / self.count

    def meet(self) -> None:
        """Wait until all have come here, because a process that ends takes its connection away."""
        if self.count > 1:
            distributed.barrier()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--config", choices=RECIPES, default="course", help="the recipe")
    parser.add_argument("--data", type=Path, help="a folder of shards")
    parser.add_argument("--out", type=Path, default=Path("build/pretrain"), help="results")
    for name in ("steps", "global_batch", "micro_batch", "warmup"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="instead of the recipe's")
    parser.add_argument("--max-lr", type=float, help="instead of the recipe's")
    parser.add_argument("--context", type=int, help="instead of the model's context length")
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--compile", action="store_true", help="compile the model first")
    parser.add_argument("--eval-every", type=int, default=250, help="steps")
    parser.add_argument("--eval-batches", type=int, default=20, help="micro-batches per validation")
    parser.add_argument("--save-every", type=int, default=250, help="steps")
    parser.add_argument("--stop-after", type=int, help="end early, at this step")
    parser.add_argument("--dry-run", action="store_true", help="only say what a run would take")
    parser.add_argument("--tflops", type=float, default=400, help="per GPU, for --dry-run")
    args = parser.parse_args(arguments)
    changes = {
        name: value
        for name in ("steps", "global_batch", "micro_batch", "warmup", "max_lr")
        if (value := getattr(args, name)) is not None
    }
    args.recipe = recipe = replace(RECIPES[args.config], **changes)
    for name in ("steps", "global_batch", "micro_batch"):
        if getattr(recipe, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(recipe, name)}: at least 1")
    for name in ("eval_every", "eval_batches", "save_every", "stop_after", "context"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}: at least 1")
    for name, value in {"warmup": recipe.warmup, "seed": args.seed}.items():
        if value < 0:
            parser.error(f"--{name} is {value}: at least 0")
    for name, value in {"max-lr": recipe.max_lr, "tflops": args.tflops}.items():
        if not 0 < value < math.inf:  # nor is nan
            parser.error(f"--{name} is {value:g}: it must be above 0, and finite")
    if recipe.global_batch % recipe.micro_batch:
        parser.error(
            f"--global-batch {recipe.global_batch} is no multiple of --micro-batch "
            f"{recipe.micro_batch}: choose one"
        )
    if not args.data and not args.dry_run:
        parser.error("--data is missing: a folder of shards, made as in web_scale.ipynb")
    return args


def model_config(args: argparse.Namespace) -> GPTConfig:
    """The model's numbers: its preset, the context asked for, and the vocabulary of the shards."""
    config = GPTConfig.preset(args.recipe.model, drop_rate=0.0)
    if args.context:
        config = replace(config, context_length=args.context)
    index = read_index(args.data) if args.data else None
    if args.data and index is None:
        raise ValueError(f"there are no shards in {args.data}: check the path")
    return replace(config, vocab_size=index["tokenizer"]["vocab_size"]) if index else config


def fingerprints(data: Path) -> dict[str, str]:
    """What a run was made of: the hash of the vocabulary, and one over all files of the shards."""
    index = read_index(data)
    shards = json.dumps([shard["files"] for shard in index["shards"]], sort_keys=True)
    return {
        "tokenizer": index["tokenizer"]["hash"],
        "shards": hashlib.sha256(shards.encode()).hexdigest()[:16],
    }


def dry_run(config: GPTConfig, recipe: Recipe, tflops: float) -> str:
    """What a run takes: parameters, memory, time; by formulas, which the text names."""
    with torch.device("meta"):
        parameters = count_parameters(GPTModel(config))
    context, width, layers = config.context_length, config.emb_dim, config.n_layers
    tokens_per_step = recipe.global_batch * context
    tokens = recipe.steps * tokens_per_step
    # 2 operations per weight forward, 4 backward; attention: scores and mixing, half of them masked
    per_token = 6 * (parameters - config.context_length * width) + 6 * layers * context * width
    kept = recipe.micro_batch * context * (34 * width * layers + 6 * config.vocab_size)
    parts = recipe.global_batch // recipe.micro_batch
    rate = tflops * 1e12 / per_token
    lines = [
        f"parameters          {parameters:,}",
        f"tokens              {tokens:,} ({recipe.steps:,} steps of {tokens_per_step:,}), "
        f"{tokens / parameters:.1f} per parameter",
        f"memory per process  {16 * parameters / 1e9:.2f} GB for weights, gradients and AdamW (16 "
        f"bytes each;",
        "                    20 with several processes, which send gradients out of a copy)",
        f"                    {kept / 1e9:.2f} GB for what backward needs of {recipe.micro_batch} "
        f"windows (34 bytes per layer,",
        "                    dimension and token, Korthikanti et al. 2022; 6 per logit), in bf16",
        f"operations          {per_token / 1e9:.2f} GFLOP per token, forward and backward",
        f"speed, assumed      {rate:,.0f} tokens/s per GPU at {tflops:g} TFLOP/s (--tflops)",
    ]
    for gpus in (1, 8, 64):
        name = f"{gpus} GPU{'s' if gpus > 1 else ''}"
        hours = tokens / rate / gpus / 3600
        share = "" if parts % gpus == 0 else " (not with this --micro-batch)"
        lines.append(f"{name:19} {hours:,.1f} hours = {hours / 24:,.3f} days{share}")
    return "\n".join(lines)


def in_half(device: torch.device) -> torch.autocast:
    """Half precision where the device is good at it, as in shared.training."""
    half = half_precision(device)
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


@torch.no_grad()
def validation_loss(
    model: nn.Module, batches: ShardBatches, count: int, processes: Processes
) -> float:
    """Mean loss over `count` batches, shared among the processes."""
    total = torch.zeros((), device=processes.device)
    with evaluating(model):
        for number in range(processes.rank, count, processes.count):
            inputs, targets = (part.to(processes.device) for part in batches[number])
            with in_half(processes.device):
                total += next_token_loss(model(inputs), targets)
    return processes.mean(total) * processes.count / count


def write_log(path: Path, history: list[dict[str, float]]) -> None:
    """The history as CSV; values that a step does not have stay empty."""
    columns = ["step", "loss", "lr", "val_loss", "tokens", "seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def pretrain(args: argparse.Namespace, processes: Processes) -> list[dict[str, float]]:
    """Train until the end, or until --stop-after, and return the history, one row a step."""
    recipe, config, device = args.recipe, model_config(args), processes.device
    parts = recipe.global_batch // recipe.micro_batch  # small batches of one step
    if parts % processes.count:
        raise ValueError(
            f"{parts} micro-batches a step cannot be shared by {processes.count} processes: "
            f"choose --global-batch as a multiple of {processes.count * recipe.micro_batch}"
        )
    train_data, val_data = (
        ShardBatches(args.data, split, config.context_length, recipe.micro_batch, args.seed)
        for split in ("train", "val")
    )
    torch.manual_seed(args.seed)
    model = GPTModel(config).to(device)
    optimizer = make_optimizer(model, recipe.weight_decay, recipe.betas)
    scaler = torch.amp.GradScaler(device.type, enabled=half_precision(device) is torch.float16)
    stateful = {"model": model, "optimizer": optimizer, "scaler": scaler}
    settings = {"config": asdict(config), "seed": args.seed} | asdict(recipe)
    settings |= fingerprints(args.data)
    state_file = args.out / "state.pt"
    if processes.rank == 0:
        remove_left_overs(args.out)
    say = print if processes.rank == 0 else lambda line: None
    history = restore(state_file, settings, stateful, say=say)
    if processes.mean(torch.tensor(float(len(history)), device=device)) != len(history):
        raise ValueError(
            f"{args.out} holds another state on another machine: --out must be a folder that all "
            f"machines share"
        )
    if processes.rank == 0 and history:  # a kill may have come between the state and its log
        write_log(args.out / "log.csv", history)
    network = torch.compile(model) if args.compile else model
    if processes.count > 1:
        network = DistributedDataParallel(network)
    first, seconds = len(history), history[-1]["seconds"] if history else 0.0
    before = seconds
    last_step = min(recipe.steps, args.stop_after or recipe.steps) - 1
    for step in range(first, last_step + 1):
        started = time.perf_counter()
        rate = learning_rate(step, recipe.steps, recipe.max_lr, recipe.warmup, recipe.max_lr / 10)
        for group in optimizer.param_groups:
            group["lr"] = rate
        mine = range(processes.rank, parts, processes.count)
        total = torch.zeros((), device=device)
        for part in mine:
            inputs, targets = (t.to(device) for t in train_data[step * parts + part])
            # gradients travel between the processes once a step, with the last small batch
            waits = processes.count > 1 and part != mine[-1]
            with network.no_sync() if waits else contextlib.nullcontext():
                with in_half(device):
                    loss = next_token_loss(network(inputs), targets) / len(mine)
                scaler.scale(loss).backward()
            total += loss.detach()
        loss = processes.mean(total)
        check_finite(loss, step, rate)
        optimizer_step(model, [optimizer], scaler, recipe.clip)
        seconds += time.perf_counter() - started
        tokens = (step + 1) * recipe.global_batch * config.context_length
        row = {"step": step + 1, "loss": loss, "lr": rate, "tokens": tokens, "seconds": seconds}
        last = step == last_step
        if last or (step + 1) % args.eval_every == 0:
            row["val_loss"] = validation_loss(model, val_data, args.eval_batches, processes)
        history.append(row)
        if processes.rank == 0 and (last or (step + 1) % args.save_every == 0):
            states = {name: part.state_dict() for name, part in stateful.items()}
            save_state(state_file, settings, {"history": history, **states})
            write_log(args.out / "log.csv", history)
        if processes.rank == 0 and "val_loss" in row:
            each = (seconds - before) / (step + 1 - first)
            speed = recipe.global_batch * config.context_length / each
            shown = {"step": step, "loss": loss, "lr": rate, "val_loss": row["val_loss"]}
            print(progress(shown, recipe.steps, speed, each), flush=True)
    if processes.rank == 0 and len(history) == recipe.steps:
        notes = {"recipe": asdict(recipe), "tokenizer": read_index(args.data)["tokenizer"]}
        save_checkpoint(args.out / "model.safetensors", model, **notes)
    processes.meet()
    return history


def main() -> None:
    args = parse()
    try:
        if args.dry_run:
            print(dry_run(model_config(args), args.recipe, args.tflops))
            return
        processes = Processes()
        pretrain(args, processes)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"pretrain.py: {error}")
    if processes.count > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
