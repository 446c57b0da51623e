"""Are the messages good enough to build on? Two networks and a count of words tell.

    python data/probe.py       (some two minutes on two CPU cores)

The course's network learns the labelled messages and is tested on patterns never seen, beside
itself from random weights and a count of words (naive Bayes). The exit status is 1 when pretraining
was of no use. How and why it learns is the matter of 05_finetune_classification/; the instructions
are measured in 06_finetune_instructions/instructions.ipynb.
"""

from __future__ import annotations

import argparse
import math
import sys
from copy import deepcopy
from itertools import product
from pathlib import Path
from statistics import fmean

import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from shared.datasets import MessageBatches, load_messages  # noqa: E402
from shared.finetuning import (  # noqa: E402
    Classifier,
    classification_scores,
    encode_texts,
    log_odds,
    naive_bayes,
)
from shared.gpt import GPTModel  # noqa: E402
from shared.tokenizers import course_tokenizer  # noqa: E402
from shared.training import train  # noqa: E402
from shared.weights import load_checkpoint, load_course_model  # noqa: E402

STEPS = 133
RUNS = 3  # each from another seed: one run's F1 on 112 spam messages is partly luck


def messages(split: str) -> tuple[list[str], list[int]]:
    """Texts of a split and their classes: 1 is spam."""
    table = load_messages(split)
    return table["text"].tolist(), (table["label"] == "spam").astype(int).tolist()


def learn(model: GPTModel, steps: int, seed: int) -> dict[str, float]:
    """Scores on the test patterns of a classifier that learned the labelled messages.

    Half of every batch is spam, so that the rare class is learnt as well; the scores are then
    moved back to the odds of real life. On the CPU: everywhere the same result.
    """
    tokenizer, limit = course_tokenizer(), model.config.context_length
    (known, classes), (texts, labels) = messages("train"), messages("test")
    classifier = Classifier(model)
    batches = MessageBatches(encode_texts(known, tokenizer, limit), classes, 32, seed=seed)
    train(classifier, batches, steps, max_lr=5e-4, min_lr=2.5e-5, warmup=steps // 20 + 1,
          loss_function=cross_entropy, device=torch.device("cpu"), report_every=steps)  # fmt: skip
    odds = log_odds(classifier, encode_texts(texts, tokenizer, limit))
    shift = math.log(sum(classes) / (len(classes) - sum(classes)))
    return classification_scores((odds + shift > 0).int().tolist(), labels)


def main() -> int:
    """Run the probe; 0 when the verdict is yes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS, help="of one classifier")
    parser.add_argument("--checkpoint", type=Path, help="another model than the course's")
    parser.add_argument("--seed", type=int, default=123)
    args = parser.parse_args()
    model = load_checkpoint(args.checkpoint) if args.checkpoint else load_course_model()
    known, (texts, labels) = list(zip(*messages("train"), strict=True)), messages("test")
    print(f"{len(known)} messages to learn, {len(texts)} of patterns never seen")
    results = {"naive Bayes": [classification_scores(naive_bayes(known, texts), labels)]}
    for name, seed in product(("untrained", "pretrained"), range(args.seed, args.seed + RUNS)):
        torch.manual_seed(seed)
        network = deepcopy(model) if name == "pretrained" else GPTModel(model.config)
        results.setdefault(name, []).append(learn(network, args.steps, seed))
    for name, runs in results.items():
        accuracy, every = fmean(run["accuracy"] for run in runs), [run["F1"] for run in runs]
        print(f"  {name:<12} accuracy {accuracy:.1%}   spam F1 {fmean(every):.3f} (mean of "
              f"{', '.join(f'{f1:.3f}' for f1 in every)})")  # fmt: skip
    f1 = {name: fmean(run["F1"] for run in runs) for name, runs in results.items()}
    better = f1["pretrained"] > f1["untrained"]
    print(f"\nthe pretrained network beats the untrained one: {'yes' if better else 'no'}")
    return int(not better)


if __name__ == "__main__":
    sys.exit(main())
