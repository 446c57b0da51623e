"""Are the messages good enough to build on? Two networks and a count of words tell.

    python data/probe.py       (some two minutes on two CPU cores)

The course's network learns the labelled messages and is tested on patterns never seen, beside
itself from random weights and a count of words (naive Bayes). The exit status is 1 when pretraining
was of no use. (The instructions are measured in 06_finetune_instructions/instructions.ipynb.)
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter
from copy import deepcopy
from itertools import product
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from shared.datasets import IGNORED, load_messages  # noqa: E402
from shared.gpt import GPTModel  # noqa: E402
from shared.tokenizers import course_tokenizer  # noqa: E402
from shared.training import train  # noqa: E402
from shared.weights import load_checkpoint, load_course_model  # noqa: E402

STEPS = 133  # of one head
RUNS = 3  # each from another seed: one run's F1 on 112 spam messages is partly luck
BATCH = 32


def batches(groups: list[list], steps: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets of every step, each (BATCH, longest), from groups of (inputs, targets).

    All groups have equal shares; each is shuffled anew when it is used up. Padding stands behind
    the real tokens, which only look back, and its targets do not count: it changes nothing.
    """
    rng, queues, result = Random(seed), [[] for _ in groups], []
    for _ in range(steps):
        rows = []
        for group, queue in zip(groups, queues, strict=True):
            for _ in range(BATCH // len(groups)):
                queue += [] if queue else rng.sample(group, len(group))
                rows.append(queue.pop())
        inputs, targets = ([torch.tensor(row[side]) for row in rows] for side in (0, 1))
        result.append((pad_sequence(inputs, True, 0), pad_sequence(targets, True, IGNORED)))
    return result


def network_of(model: GPTModel, name: str, seed: int) -> GPTModel:
    """A copy of the pretrained model, or the same network with random weights."""
    torch.manual_seed(seed)
    return deepcopy(model) if name == "pretrained" else GPTModel(model.config)


def finetune(model: GPTModel, groups: list[list], steps: int, max_lr: float, seed: int) -> None:
    """Train in place with the course's own loop, on the CPU: everywhere the same result."""
    train(model, batches(groups, steps, seed), steps, max_lr=max_lr, min_lr=max_lr / 20,
          warmup=steps // 20 + 1, device=torch.device("cpu"), report_every=steps)  # fmt: skip
    model.eval()


def scores(guesses: list[int], labels: list[int]) -> tuple[float, float]:
    """Accuracy, and F1 of spam: to say ham always would be right six times in seven."""
    pairs = Counter(zip(guesses, labels, strict=True))
    wrong, hits = pairs[0, 1] + pairs[1, 0], pairs[1, 1]
    return 1 - wrong / len(labels), 2 * hits / (2 * hits + wrong) if hits else 0.0


def naive_bayes(known: list[tuple[str, int]], texts: list[str]) -> list[int]:
    """The class whose training words make each text more likely, with add-one smoothing."""
    find, classes = re.compile(r"[a-z0-9']+").findall, Counter(label for _, label in known)
    words = [Counter(find(" ".join(t for t, label in known if label == c).lower())) for c in (0, 1)]
    totals = [count.total() + len(words[0] | words[1]) for count in words]

    def log_likelihood(text: str, label: int) -> float:
        shares = [(words[label][word] + 1) / totals[label] for word in find(text.lower())]
        return math.log(classes[label]) + sum(map(math.log, shares))

    return [int(log_likelihood(text, 1) > log_likelihood(text, 0)) for text in texts]


def probe_spam(model: GPTModel, steps: int, seed: int) -> bool:
    """Print the table of the spam heads; does the pretrained network have the better F1?

    A head of two scores replaces the vocabulary's; it learns, and is read, at the last real token,
    the only one that has seen the whole message. Half of every batch is spam, so that the rare
    class is learnt as well; the scores are then moved back to the odds of real life.
    """
    tokenizer = course_tokenizer()
    known, new = (load_messages(split).to_numpy() for split in ("train", "test"))
    known = [(text, int(label == "spam")) for label, text, _ in known]
    labels, texts = [int(label == "spam") for label in new[:, 0]], new[:, 1]

    def encode(text: str) -> list[int]:  # as in pretraining, a text begins behind <|endoftext|>
        return [tokenizer.eot_id, *tokenizer.encode(text)][: model.config.context_length]

    groups: list[list] = [[], []]
    for text, label in known:
        ids = encode(text)
        groups[label].append((ids, [IGNORED] * (len(ids) - 1) + [label]))
    log_odds = math.log(len(groups[1]) / len(groups[0]))

    @torch.no_grad()
    def guess(network: GPTModel, text: str) -> int:
        ham, spam = network(torch.tensor([encode(text)]))[0, -1].tolist()
        return int(spam - ham + log_odds > 0)

    print(f"spam: {len(known)} messages to learn, {len(new)} of patterns never seen")
    results = {"naive Bayes": [scores(naive_bayes(known, texts), labels)]}
    for name, run in product(("untrained", "pretrained"), range(seed, seed + RUNS)):
        network = network_of(model, name, run)
        network.head = nn.Linear(model.config.emb_dim, 2)
        finetune(network, groups, steps, 5e-4, run)
        guesses = [guess(network, text) for text in texts]
        results.setdefault(name, []).append(scores(guesses, labels))
    mean = {name: (fmean(a for a, _ in r), fmean(f1 for _, f1 in r)) for name, r in results.items()}
    for name, (accuracy, f1) in mean.items():
        every = ", ".join(f"{f1:.3f}" for _, f1 in results[name])
        print(f"  {name:<12} accuracy {accuracy:.1%}   spam F1 {f1:.3f} (mean of {every})")
    return mean["pretrained"][1] > mean["untrained"][1]


def main() -> int:
    """Run the probe; 0 when the verdict is yes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS, help="of one head")
    parser.add_argument("--checkpoint", type=Path, help="another model than the course's")
    parser.add_argument("--seed", type=int, default=123)
    args = parser.parse_args()
    model = load_checkpoint(args.checkpoint) if args.checkpoint else load_course_model()
    better = probe_spam(model, args.steps, args.seed)
    print(f"\nspam head beats the untrained network: {'yes' if better else 'no'}")
    return int(not better)


if __name__ == "__main__":
    sys.exit(main())
