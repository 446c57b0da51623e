"""Pretrain a GPT on token shards, with one process or with many.

    python 04_pretraining/pretrain.py --data build/shards --config course
    torchrun --standalone --nproc-per-node=8 04_pretraining/pretrain.py --data shards --config 124M
    python 04_pretraining/pretrain.py --data shards --config 124M --model modern --optimizer muon
    python 04_pretraining/pretrain.py --config 124M --dry-run

Notable: the small batches of a run are numbered through, and process r of W takes every W-th of
them. So what a step reads does not depend on the number of processes, and a run may be stopped with
two of them and go on with one. Gradients are averaged by PyTorch's DistributedDataParallel. The
state is written whole or not at all, also when the process is told to end (SIGTERM); start the same
command again to go on from it. How the shards are made is shown in web_scale.ipynb, how several
processes work together in many_gpus.ipynb.
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
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed.nn  # before a group begins: see Processes
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.classroom.fetch import FetchError  # noqa: E402
from shared.classroom.files import remove_left_overs, write_atomically  # noqa: E402
from shared.classroom.machine import (  # noqa: E402
    evaluating,
    most_memory,
    peak_tflops,
    pick_device,
)
from shared.classroom.reports import due  # noqa: E402
from shared.classroom.state import restore, save_state  # noqa: E402
from shared.generate import generate  # noqa: E402
from shared.gpt import GPTConfig, count_parameters  # noqa: E402
from shared.modern import ModernConfig  # noqa: E402
from shared.optim import (  # noqa: E402
    learning_rate,
    make_optimizer,
    muon_and_adamw,
    optimizer_step,
    set_rates,
)
from shared.shards import ShardBatches, fingerprint, read_index  # noqa: E402
from shared.tokenizers import course_tokenizer, gpt2_tokenizer  # noqa: E402
from shared.training import check_finite, half_precision, next_token_loss, progress  # noqa: E402
from shared.weights import save_checkpoint  # noqa: E402


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; batches are counted in windows."""

    size: str  # a preset of GPTConfig
    steps: int
    max_lr: float  # of AdamW
    global_batch: int  # windows of one step, over all processes
    micro_batch: int  # windows one process computes at once
    warmup: int
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    model: str = "gpt2"  # or "modern", as Llama has it
    optimizer: str = "adamw"  # or "muon", for the matrices of the blocks
    muon_lr: float = 0.02


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
    """Which process this is, of how many; alone unless torchrun started us.

    Notable: DistributedDataParallel imports torch.distributed.nn, whose functions have the group
    of that moment as a default. Imported after the group has begun, they keep it, and with it
    threads that `destroy_process_group` should end and that can abort an interpreter as it ends.
    """

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

    def mean(self, *values: torch.Tensor | float) -> list[float]:
        """The means of some numbers over all processes."""
        row = torch.stack([torch.as_tensor(v, dtype=torch.float, device=self.device)
                           for v in values])  # fmt: skip
        if self.count > 1:
            distributed.all_reduce(row)
        return (row / self.count).tolist()

    def meet(self) -> None:
        """Wait until all have come here, because a process that ends takes its connection away."""
        if self.count > 1:
            distributed.barrier()


class Told:
    """Whether this process was told to end, as a cluster does before it takes a machine back."""

    def __init__(self) -> None:
        self.to_end = False
        signal.signal(signal.SIGTERM, self)

    def __call__(self, number: int, frame: object) -> None:
        self.to_end = True


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
    parser.add_argument("--model", choices=("gpt2", "modern"), help="instead of the recipe's")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), help="instead of the recipe's")
    parser.add_argument("--muon-lr", type=float, help="instead of the recipe's")
    parser.add_argument("--context", type=int, help="instead of the model's context length")
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--compile", action="store_true", help="compile the model first")
    parser.add_argument("--report-every", type=int, default=10, help="steps")
    parser.add_argument("--eval-every", type=int, default=250, help="steps")
    parser.add_argument("--eval-batches", type=int, default=20, help="micro-batches per validation")
    parser.add_argument("--sample", type=int, default=40, help="tokens at each validation")
    parser.add_argument("--save-every", type=int, default=250, help="steps")
    parser.add_argument("--keep", type=int, default=1, help="of the last states so many")
    parser.add_argument("--stop-after", type=int, help="end early, at this step")
    parser.add_argument("--dry-run", action="store_true", help="only say what a run would take")
    parser.add_argument("--tflops", type=float, default=400, help="per GPU, for --dry-run")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, where its name is unknown")
    args = parser.parse_args(arguments)
    changes = {
        name: value
        for name in (
            "steps",
            "global_batch",
            "micro_batch",
            "warmup",
            "max_lr",
            "model",
            "optimizer",
            "muon_lr",
        )
        if (value := getattr(args, name)) is not None
    }
    args.recipe = recipe = replace(RECIPES[args.config], **changes)
    for name in ("steps", "global_batch", "micro_batch"):
        if getattr(recipe, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(recipe, name)}: at least 1")
    for name in ("report_every", "eval_every", "eval_batches", "save_every", "keep", "stop_after",
                 "context"):  # fmt: skip
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}: at least 1")
    for name, value in {"warmup": recipe.warmup, "seed": args.seed, "sample": args.sample}.items():
        if value < 0:
            parser.error(f"--{name} is {value}: at least 0")
    positive = {"max-lr": recipe.max_lr, "muon-lr": recipe.muon_lr, "tflops": args.tflops}
    positive |= {"peak-tflops": args.peak_tflops} if args.peak_tflops is not None else {}
    for name, value in positive.items():
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
    """The model's numbers: its preset, the context asked for, and the vocabulary of the shards.

    The vocabulary is filled up to a multiple of 64, as GPUs multiply such matrices faster; no text
    holds the added ids, and `trimmed` takes them off again.
    """
    kind = ModernConfig if args.recipe.model == "modern" else GPTConfig
    config = kind.preset(args.recipe.size, drop_rate=0.0)
    if args.context:
        config = replace(config, context_length=args.context)
    index = read_index(args.data) if args.data else None
    if args.data and index is None:
        raise ValueError(f"there are no shards in {args.data}: check the path")
    size = index["tokenizer"]["vocab_size"] if index else config.vocab_size
    return replace(config, vocab_size=64 * math.ceil(size / 64))


def trimmed(model: nn.Module, vocab_size: int) -> nn.Module:
    """The model without the rows that only fill up its vocabulary."""
    small = replace(model.config, vocab_size=vocab_size).build()
    wanted = small.state_dict()
    small.load_state_dict({name: t[: len(wanted[name])] for name, t in model.state_dict().items()})
    return small


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest."""
    if recipe.optimizer == "muon":
        decay = recipe.weight_decay
        return muon_and_adamw(model, recipe.muon_lr, recipe.max_lr, weight_decay=decay)
    optimizer = make_optimizer(model, recipe.weight_decay, recipe.betas)
    for group in optimizer.param_groups:
        group["lr"] = recipe.max_lr
    return [optimizer]


def operations_per_token(model: nn.Module) -> float:
    """In training: 2 per weight forward and 4 backward; scores and mixing, half of them masked."""
    config, tables = model.config, model.token_embedding.weight.numel()
    looked_up = 0 if config.tie_weights else tables  # a tied table is multiplied by, as the head
    if not isinstance(config, ModernConfig):
        looked_up += config.context_length * config.emb_dim  # the positions
    mixing = config.n_layers * config.context_length * config.n_heads * config.head_dim
    return 6 * (count_parameters(model) - looked_up) + 6 * mixing


def fingerprints(index: dict) -> dict[str, str]:
    """What a run was made of: the hash of the vocabulary, and one over all files of the shards."""
    shards = json.dumps([shard["files"] for shard in index["shards"]], sort_keys=True)
    return {
        "tokenizer": index["tokenizer"]["hash"],
        "shards": hashlib.sha256(shards.encode()).hexdigest()[:16],
    }


def dry_run(config: GPTConfig, recipe: Recipe, tflops: float) -> str:
    """What a run takes: parameters, memory, time; by formulas, which the text names."""
    with torch.device("meta"):
        model = config.build()
    parameters, per_token = count_parameters(model), operations_per_token(model)
    context, width, layers = config.context_length, config.emb_dim, config.n_layers
    tokens_per_step = recipe.global_batch * context
    tokens = recipe.steps * tokens_per_step
    kept = recipe.micro_batch * context * (34 * width * layers + 6 * config.vocab_size)
    parts = recipe.global_batch // recipe.micro_batch
    rate = tflops * 1e12 / per_token
    lines = [
        f"parameters          {parameters:,}",
        f"tokens              {tokens:,} ({recipe.steps:,} steps of {tokens_per_step:,}),",
        f"                    {tokens / parameters:.1f} per parameter",
        f"memory per process  {16 * parameters / 1e9:.2f} GB for weights, gradients and AdamW",
        f"                    (16 bytes per parameter); {kept / 1e9:.2f} GB for what backward",
        f"                    needs of {recipe.micro_batch} windows in bf16: 34 bytes per layer,",
        "                    dimension and token, 6 per logit (Korthikanti 2022)",
        f"operations          {per_token / 1e9:.2f} GFLOP per token, forward and backward",
        f"speed, assumed      {rate:,.0f} tokens/s per GPU at {tflops:g} TFLOP/s (--tflops)",
    ]
    for gpus in (1, 8, 64):
        name = f"{gpus} GPU{'s' if gpus > 1 else ''}"
        hours = tokens / rate / gpus / 3600
        share = "" if parts % gpus == 0 else " (not with this --micro-batch)"
        lines.append(f"{name:19} {span(hours)}{share}")
    return "\n".join(lines)


def span(hours: float) -> str:
    """A stretch of time in the unit that a person would say it in."""
    if hours < 1:
        return f"{60 * hours:.1f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"


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
            inputs, targets = moved(batches[number], processes.device)
            with in_half(processes.device):
                total += next_token_loss(model(inputs), targets)
    return processes.mean(total)[0] * processes.count / count


COLUMNS = "step loss lr val_loss tokens seconds norm tokens_per_second mfu memory_gb".split()


def write_log(path: Path, history: list[dict[str, float]]) -> None:
    """The history as CSV; values that a step does not have stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def keep_states(state_file: Path, step: int, count: int) -> None:
    """Give the newest state a second name with its step, and remove all but the last `count`."""
    if count > 1:
        named = state_file.with_stem(f"state-{step:07d}")
        named.unlink(missing_ok=True)
        try:
            os.link(state_file, named)  # takes no room; the next state is another file
        except OSError:  # a disk without such links
            shutil.copyfile(state_file, named)
    states = sorted(state_file.parent.glob("state-*.pt"), reverse=True)  # the newest first
    for old in states[count if count > 1 else 0 :]:
        old.unlink()


def find_tokenizer(index: dict) -> object | None:
    """The tokenizer of the shards, if it is the course's or GPT-2's and can be had."""
    for make in (lambda: course_tokenizer().to_tiktoken(), gpt2_tokenizer):
        with contextlib.suppress(FetchError):
            if fingerprint(tokenizer := make()) == index["tokenizer"]["hash"]:
                return tokenizer
    return None


def sample(model: nn.Module, tokenizer: object, count: int) -> str:
    """What the model writes of its own accord; the random numbers of the run stay as they are."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        start = torch.tensor([[tokenizer.eot_token]], device=device)
        ids = generate(model, start, min(count, model.config.context_length - 1))[0, 1:].tolist()
    return tokenizer.decode([i for i in ids if i < tokenizer.n_vocab])


def tensorboard(folder: Path) -> object | None:
    """A writer for TensorBoard, where that is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard")


def moved(batch: tuple[torch.Tensor, torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """A batch on the device; a GPU fetches it out of pinned memory while it computes."""
    if device.type == "cuda":
        return [part.pin_memory().to(device, non_blocking=True) for part in batch]
    return [part.to(device) for part in batch]


def open_data(args: argparse.Namespace, length: int, processes: Processes) -> list[ShardBatches]:
    """The batches for training and validation; one process hashes the files, the others wait."""
    if processes.rank:
        processes.meet()
    data = [
        ShardBatches(args.data, split, length, args.recipe.micro_batch, args.seed,
                     check=processes.rank == 0)
        for split in ("train", "val")
    ]  # fmt: skip
    if not processes.rank:
        processes.meet()
    return data


def pretrain(args: argparse.Namespace, processes: Processes) -> list[dict[str, float]]:
    """Train until the end, or until --stop-after, and return the history, one row a step."""
    recipe, config, device = args.recipe, model_config(args), processes.device
    parts = recipe.global_batch // recipe.micro_batch  # small batches of one step
    if parts % processes.count:
        raise ValueError(
            f"{parts} micro-batches a step cannot be shared by {processes.count} processes: "
            f"choose --global-batch as a multiple of {processes.count * recipe.micro_batch}"
        )
    train_data, val_data = open_data(args, config.context_length, processes)
    torch.manual_seed(args.seed)
    model = config.build().to(device)
    optimizers = make_optimizers(model, recipe)
    own_rates = [[group["lr"] for group in each.param_groups] for each in optimizers]
    scaler = torch.amp.GradScaler(device.type, enabled=half_precision(device) is torch.float16)
    stateful = {"model": model, "scaler": scaler}
    stateful |= {f"optimizer {number}": each for number, each in enumerate(optimizers)}
    settings = {"config": asdict(config), "seed": args.seed} | asdict(recipe)
    index, leader = read_index(args.data), processes.rank == 0
    settings |= fingerprints(index)
    state_file = args.out / "state.pt"
    if leader:
        remove_left_overs(args.out)
    history = restore(state_file, settings, stateful, say=print if leader else lambda line: None)
    if processes.mean(len(history)) != [len(history)]:
        raise ValueError(
            f"{args.out} holds another state on another machine: --out must be a folder that all "
            f"machines share"
        )
    if leader and history:  # a kill may have come between the state and its log
        write_log(args.out / "log.csv", history)
    tokenizer = find_tokenizer(index) if leader and args.sample else None
    board = tensorboard(args.out) if leader else None
    network = torch.compile(model) if args.compile else model
    if processes.count > 1:
        network = DistributedDataParallel(network, gradient_as_bucket_view=True)
    tokens_per_step = recipe.global_batch * config.context_length
    peak, operations = args.peak_tflops or peak_tflops(device), operations_per_token(model)
    told, first = Told(), len(history)
    seconds = before = history[-1]["seconds"] if history else 0.0
    last_step = min(recipe.steps, args.stop_after or recipe.steps) - 1
    for step in range(first, last_step + 1):
        started = time.perf_counter()
        share = learning_rate(step, recipe.steps, 1.0, recipe.warmup, 0.1)
        set_rates(optimizers, own_rates, share)
        mine = range(processes.rank, parts, processes.count)
        total = torch.zeros((), device=device)
        for part in mine:
            inputs, targets = moved(train_data[step * parts + part], device)
            # gradients travel between the processes once a step, with the last small batch
            waits = processes.count > 1 and part != mine[-1]
            with network.no_sync() if waits else contextlib.nullcontext():
                with in_half(device):
                    loss = next_token_loss(network(inputs), targets) / len(mine)
                scaler.scale(loss).backward()
            total += loss.detach()
        loss, to_end = processes.mean(total, told.to_end)  # all must end at the same step
        check_finite(loss, step, recipe.max_lr * share)
        norm = optimizer_step(model, optimizers, scaler, recipe.clip).item()
        this = time.perf_counter() - started
        seconds += this
        row = {"step": step + 1, "loss": loss, "lr": recipe.max_lr * share, "norm": norm,
               "tokens": (step + 1) * tokens_per_step, "seconds": seconds,
               "tokens_per_second": round(tokens_per_step / this)}  # fmt: skip
        if peak:
            per_gpu = tokens_per_step / this / processes.count
            row["mfu"] = round(per_gpu * operations / (peak * 1e12), 4)
        if most := most_memory(device):
            row["memory_gb"] = round(most / 1e9, 3)
        last = step == last_step
        if last or due(step, args.eval_every):
            row["val_loss"] = validation_loss(model, val_data, args.eval_batches, processes)
        history.append(row)
        if leader and (last or to_end or due(step, args.save_every)):
            states = {name: part.state_dict() for name, part in stateful.items()}
            save_state(state_file, settings, {"history": history, **states})
            keep_states(state_file, step + 1, args.keep)
            write_log(args.out / "log.csv", history)
        if leader and (last or "val_loss" in row or step == first or due(step, args.report_every)):
            each = (seconds - before) / (step + 1 - first)
            shown = {"step": step, "loss": loss, "lr": row["lr"]}
            shown |= {name: row[name] for name in ("val_loss", "norm", "mfu", "memory_gb")
                      if name in row}  # fmt: skip
            print(progress(shown, recipe.steps, tokens_per_step / each, each), flush=True)
            if board:
                for name in set(COLUMNS) & row.keys() - {"step"}:
                    board.add_scalar(name, row[name], step + 1)
        if tokenizer and "val_loss" in row:
            print(f"    it writes: {sample(model, tokenizer, args.sample)!r}", flush=True)
        if to_end:
            break
    if leader and len(history) == recipe.steps:
        notes = {"recipe": asdict(recipe), "tokenizer": index["tokenizer"]}
        whole = trimmed(model, index["tokenizer"]["vocab_size"])
        save_checkpoint(args.out / "model.safetensors", whole, **notes)
    elif leader and history and len(history) < last_step + 1:
        print(f"told to end: the state of step {len(history)} is saved; start the same command "
              f"again to go on", flush=True)  # fmt: skip
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
