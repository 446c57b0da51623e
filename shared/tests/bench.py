"""The course's figures of speed, and the limits they keep.

    python shared/tests/bench.py              all benchmarks, some minutes
    python shared/tests/bench.py bpe          only this one
    python shared/tests/bench.py --quick      tiny sizes: does it run? No limit is judged.

Notable: a figure is the ratio of two times taken in this run, since a time alone says most about
the machine. The two sides take turns, so that noise hits both, their medians count, and it is
checked that both did the same work. The slow versions are not copied but taken out of the notebooks
that show them. The exit status is 1 when a limit does not hold. A benchmark is a generator of rows;
to add one, write it under `@benchmark`.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from shared.classroom.datasets import load_text, pretraining_documents  # noqa: E402
from shared.classroom.fetch import FetchError, fetch  # noqa: E402
from shared.generate import generate  # noqa: E402
from shared.gpt import GPTConfig, GPTModel  # noqa: E402
from shared.shards import encode_parallel  # noqa: E402
from shared.tests.peers import hugging_face_gpt2, hugging_face_llama  # noqa: E402
from shared.tokenizers import END_OF_TEXT, BPETokenizer, course_tokenizer  # noqa: E402
from shared.training import next_token_loss  # noqa: E402
from shared.weights import read_llama  # noqa: E402


@dataclass
class Row:
    """A figure, its limits, and a note: the times behind it, or why it could not be measured."""

    what: str
    ratio: float | None
    note: str = ""
    at_least: float = -math.inf
    at_most: float = math.inf

    def holds(self) -> bool:
        return self.ratio is None or self.at_least <= self.ratio <= self.at_most

    def limit(self) -> str:
        signs = (("≥", self.at_least), ("≤", self.at_most))
        return " ".join(f"{sign} {bound:g}" for sign, bound in signs if math.isfinite(bound))

    def verdict(self) -> str:
        if not self.limit() or self.ratio is None:
            return ""
        return "ok" if self.holds() else "FAILS"


Benchmark = Callable[[bool], Iterator[Row]]  # its argument: quick, so tiny sizes
BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(function: Benchmark) -> Benchmark:
    """Register a benchmark under its name."""
    BENCHMARKS[function.__name__] = function
    return function


def take_turns(rounds: int, *runs: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Return for each function its median seconds and its last result."""
    seconds: list[list[float]] = [[] for _ in runs]
    results = [None] * len(runs)
    for _ in range(rounds):
        for i, run in enumerate(runs):
            began = time.perf_counter()
            results[i] = run()
            seconds[i].append(time.perf_counter() - began)
    return list(zip(map(median, seconds), results, strict=True))


def from_notebook(path: str, *names: str) -> list[Any]:
    """Return definitions as a notebook last gives them: only they and its imports are executed."""
    cells = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    kept = [
        node
        for node in ast.parse("\n".join(code)).body
        if isinstance(node, ast.Import | ast.ImportFrom) or getattr(node, "name", None) in names
    ]
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module(kept, type_ignores=[]), path, "exec"), namespace)
    return [namespace[name] for name in names]


# ---------------------------------------------------------------------------------------------
# Byte pair encoding
# ---------------------------------------------------------------------------------------------


@benchmark
def bpe(quick: bool) -> Iterator[Row]:
    """Our trainer against the notebook's slow one and against Rust; our encoder against Rust."""
    documents = pretraining_documents("train")
    if quick:
        yield from bpe_rows("documents", documents[:50], 300, 1_000, rounds=1)
        return
    yield from bpe_rows("documents", documents, 2_048, 80_000, rounds=3)
    try:
        shakespeare = load_text("tiny-shakespeare.txt")
    except FetchError as error:
        yield Row("tiny Shakespeare", None, str(error).splitlines()[0])
    else:
        yield from bpe_rows("tiny Shakespeare", [shakespeare], 2_048, 80_000, rounds=3)


def bpe_rows(name: str, texts: list[str], size: int, cut: int, rounds: int) -> Iterator[Row]:
    """All figures on some texts; the slow trainer reads only `cut` characters of them."""
    yield slow_trainer(name, "\n".join(texts)[:cut], min(size, 512), rounds)
    yield rust_trainer(name, texts, size, rounds)
    yield rust_encoder(name, texts, rounds)


def slow_trainer(name: str, text: str, size: int, rounds: int) -> Row:
    """How many times as long the trainer takes that counts every pair anew for every merge."""
    learn_slowly, _ = from_notebook(
        "01_text_data/bpe.ipynb", "learn_slowly_in_pieces", "merge_pair"
    )
    (slow, ranks), (fast, ours) = take_turns(
        rounds,
        lambda: learn_slowly(text, size),
        lambda: BPETokenizer.train(text, size, special_tokens=()),
    )
    assert ours.ranks == ranks
    what = f"{name}, {len(text):,} characters: slow trainer / ours"
    return Row(what, slow / fast, f"{slow:.2f} s / {fast:.3f} s", at_least=30)


def rust_trainer(name: str, texts: list[str], size: int, rounds: int) -> Row:
    """How many times as long we take as Hugging Face's trainer, on one thread like ours."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    def train_rust() -> Tokenizer:
        rust = Tokenizer(models.BPE())
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        rust.train_from_iterator(texts, trainer)
        return rust

    (slow, ours), (fast, rust) = take_turns(
        rounds, lambda: BPETokenizer.train(texts, size), train_rust
    )
    # Not the same tokens to the last one: of equally frequent pairs Rust takes another first.
    assert ours.vocab_size == rust.get_vocab_size()
    what = f"{name}, {sum(map(len, texts)):,} characters: our trainer / Rust"
    return Row(what, slow / fast, f"{slow:.2f} s / {fast:.2f} s", at_most=15)


def rust_encoder(name: str, texts: list[str], rounds: int) -> Row:
    """How many times as long we take as tiktoken to encode, in the course's vocabulary."""
    course = course_tokenizer()
    rust = course.to_tiktoken()

    def encode_ours() -> list[list[int]]:
        ours = BPETokenizer(course.ranks)  # a new one, since it remembers the pieces it has seen
        return [ours.encode(text) for text in texts]

    (slow, ours), (fast, theirs) = take_turns(
        rounds, encode_ours, lambda: [rust.encode_ordinary(text) for text in texts]
    )
    assert ours == theirs
    what = f"{name}, {sum(map(len, texts)):,} characters: our encoder / tiktoken"
    return Row(what, slow / fast, f"{slow:.2f} s / {fast:.2f} s")


# ---------------------------------------------------------------------------------------------
# The GPT
# ---------------------------------------------------------------------------------------------


@benchmark
def shards(quick: bool) -> Iterator[Row]:
    """Text to ids by several processes, in a stream, against tiktoken's own threads on a list."""
    tokenizer, workers = course_tokenizer().to_tiktoken(), os.cpu_count() or 1
    texts = pretraining_documents("train")[: 50 if quick else None] * (1 if quick else 20)
    (threads, theirs), (processes, ours) = take_turns(
        1 if quick else 3,
        lambda: sum(map(len, tokenizer.encode_ordinary_batch(texts, num_threads=workers))),
        lambda: sum(len(ids) - 1 for ids in encode_parallel(texts, tokenizer, workers)),
    )
    assert ours == theirs
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    what = f"{megabytes:.0f} MB to ids, {workers} workers: MB/s of ours / of tiktoken's threads"
    note = f"{megabytes / processes:.1f} / {megabytes / threads:.1f} MB/s"
    yield Row(what, threads / processes, note, at_least=0.5)


@benchmark
def gpt(quick: bool) -> Iterator[Row]:
    """Training and generation against Hugging Face's GPT-2 of the same configuration; the cache."""
    small = GPTConfig(2_048, 128, emb_dim=128, n_heads=4, n_layers=4, drop_rate=0.0)
    middle = GPTConfig(2_048, 512, emb_dim=384, n_heads=6, n_layers=6, drop_rate=0.0)
    rounds = 1 if quick else 5
    yield training(small, steps=1 if quick else 10, rounds=rounds)
    yield compiled(small, steps=1 if quick else 10, rounds=rounds)
    # A turn is short, and its time scatters: the median takes more of them.
    yield generation(small, new=8 if quick else 112, rounds=5 * rounds)
    yield caching(middle, new=8 if quick else 511, rounds=1 if quick else 3)


def train_some(model: torch.nn.Module, logits_of: Callable, steps: int) -> Callable[[], int]:
    """A function that trains on random ids, 16 windows of 128 at a time, and returns the tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(2_048, (16, 129), generator=torch.Generator().manual_seed(0))

    def run() -> int:
        for _ in range(steps):
            next_token_loss(logits_of(ids[:, :-1]), ids[:, 1:]).backward()
            optimizer.step()
            optimizer.zero_grad()
        return steps * ids[:, 1:].numel()

    run()  # the first steps make the optimizer's state
    return run


def training(config: GPTConfig, steps: int, rounds: int) -> Row:
    """Tokens per second in training, ours over theirs; both eager, the same optimizer and loss."""
    ours, theirs = GPTModel(config), hugging_face_gpt2(config).train()
    (slow, done), (fast, also) = take_turns(
        rounds,
        train_some(theirs, lambda ids: theirs(ids, use_cache=False).logits, steps),
        train_some(ours, ours, steps),
    )
    assert done == also
    note = f"{also / fast:,.0f} / {done / slow:,.0f} tokens per second"
    return Row("training, 4 layers × 128: ours / transformers", slow / fast, note, at_least=1)


def compiled(config: GPTConfig, steps: int, rounds: int) -> Row:
    """What torch.compile adds to training."""
    what = "training, 4 layers × 128: compiled / eager"
    eager, fused = GPTModel(config), torch.compile(GPTModel(config))
    try:
        runs = train_some(eager, eager, steps), train_some(fused, fused, steps)
    except Exception as error:  # a compiler can be missing in many ways
        return Row(what, None, f"no compiler here: {str(error).strip().splitlines()[0]:.60}")
    (slow, _), (fast, _) = take_turns(rounds, *runs)
    return Row(what, slow / fast, f"{slow:.2f} s / {fast:.2f} s")


def generation(config: GPTConfig, new: int, rounds: int) -> Row:
    """How many times as long transformers takes for the same greedy text, both with a cache."""
    ours, theirs = GPTModel(config).eval(), hugging_face_gpt2(config)
    prompt = torch.arange(16)[None]
    settings = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    (slow, long), (fast, text) = take_turns(
        rounds,
        lambda: theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **settings),
        lambda: generate(ours, prompt, new, temperature=0),
    )
    assert long.shape == text.shape == (1, 16 + new)
    what = f"greedy generation of {new} tokens: transformers / ours"
    return Row(what, slow / fast, f"{slow:.2f} s / {fast:.2f} s", at_least=3)


def caching(config: GPTConfig, new: int, rounds: int) -> Row:
    """How many times as long a text takes without the cache, up to a full context."""
    torch.manual_seed(0)
    model, prompt = GPTModel(config).eval(), torch.zeros(1, 1, dtype=torch.long)
    (slow, one), (fast, other) = take_turns(
        rounds,
        lambda: generate(model, prompt, new, temperature=0, use_cache=False),
        lambda: generate(model, prompt, new, temperature=0),
    )
    assert torch.equal(one, other)
    what = f"{new + 1} tokens, 6 layers × 384: without cache / with"
    return Row(what, slow / fast, f"{slow:.2f} s / {fast:.2f} s", at_least=5)


@benchmark
def real_llm(quick: bool) -> Iterator[Row]:
    """SmolLM2-135M in ModernGPT against transformers: reading a prompt, and writing behind it."""
    try:
        model = read_llama(fetch("smollm2-135m-instruct.gguf"))
    except FetchError as error:
        yield Row("SmolLM2-135M", None, str(error).splitlines()[0])
        return
    theirs, rounds, length, new = hugging_face_llama(model), 5, 256, 24
    if quick:
        rounds, length, new = 1, 8, 3
    prompt = torch.randint(3, 40_000, (1, length), generator=torch.Generator().manual_seed(0))
    settings = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(prompt)}

    def times(count: int) -> list[tuple[float, Any]]:
        return take_turns(
            rounds,
            lambda: theirs.generate(prompt, max_new_tokens=count, **settings),
            lambda: generate(model, prompt, count, temperature=0),
        )

    (their_reading, _), (our_reading, _) = times(1)
    (their_all, long), (our_all, text) = times(1 + new)
    assert torch.equal(long, text)  # the same words
    note = f"{length / our_reading:,.0f} / {length / their_reading:,.0f} tokens per second"
    what = f"SmolLM2-135M reads {length} tokens: ours / transformers"
    yield Row(what, their_reading / our_reading, note, at_least=1)
    ours, others = (
        new / (whole - reading)
        for whole, reading in ((our_all, our_reading), (their_all, their_reading))
    )
    note = f"{ours:.1f} / {others:.1f} tokens per second"
    what = f"SmolLM2-135M writes {new} more: ours / transformers"
    yield Row(what, ours / others, note, at_least=1)


# ---------------------------------------------------------------------------------------------
# The script
# ---------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Print the rows of the benchmarks as they come; return 1 when a limit does not hold."""
    parser = argparse.ArgumentParser(description="Measure the course's figures of speed.")
    known = ", ".join(BENCHMARKS)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of: {known} (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; no limit is judged")
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {known}")
    all_hold = True
    for name in args.names or BENCHMARKS:
        print(f"\n{name:64}{'ratio':>8}   {'limit':14}medians")
        for row in BENCHMARKS[name](args.quick):
            ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
            verdict = "" if args.quick else row.verdict()
            print(f"{row.what:64}{ratio:>8}   {row.limit():7}{verdict:7}{row.note}", flush=True)
            all_hold &= args.quick or row.holds()
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
