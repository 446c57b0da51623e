"""Fine-tuning: what a model that was only taught to go on can be taught to do.

Notable: a classifier is the same network with another head, read from one vector per text, and
padding is never part of that vector. LoRA adds two thin matrices beside a frozen one and can be
merged into it without a trace. Answers are scored exactly, task by task, since the right ones are
known; no second model judges. Tales have many right endings: there the grammar itself says whether
one fits. Preferences are learned directly (DPO), without a reward model.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.instructions import Entry, format_prompt
from data.world import explain
from shared.datasets import (
    IGNORED,
    PADDING,
    encode_plain,
    end_of_text,
    load_instructions,
    pad_texts,
)
from shared.generate import generate
from shared.gpt import GPTModel
from shared.weights import fill, read_checkpoint, save_checkpoint

RESPONSE = "### Response:\n"
FREE_TASK = "continue"  # has many right answers: scored by a rule, and counted apart


# ---------------------------------------------------------------------------------------------
# Classification
# ---------------------------------------------------------------------------------------------


# built in: 05_finetune_classification/spam_classifier.ipynb
def naive_bayes(known: Sequence[tuple[str, int]], texts: Sequence[str]) -> list[int]:
    """The class whose training words make each text more likely (add-one smoothing), 0 or 1.

    `known` are (text, class) pairs. A bag of words: order does not count.
    """
    find, classes = re.compile(r"[a-z0-9']+").findall, Counter(label for _, label in known)
    words = [Counter(find(" ".join(t for t, label in known if label == c).lower())) for c in (0, 1)]
    totals = [count.total() + len(words[0] | words[1]) for count in words]

    def log_likelihood(text, label):
        shares = [(words[label][word] + 1) / totals[label] for word in find(text.lower())]
        return math.log(classes[label]) + sum(map(math.log, shares))

    return [int(log_likelihood(text, 1) > log_likelihood(text, 0)) for text in texts]


# built in: 05_finetune_classification/spam_classifier.ipynb
def classification_scores(guesses: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 of class 1 (0 where nothing was found or to find)."""
    pairs = Counter(zip(guesses, labels, strict=True))
    caught, filtered, spam = pairs[1, 1], pairs[1, 0] + pairs[1, 1], pairs[0, 1] + pairs[1, 1]
    return {
        "accuracy": (caught + pairs[0, 0]) / len(labels),
        "precision": caught / filtered if filtered else 0.0,
        "recall": caught / spam if spam else 0.0,
        "F1": 2 * caught / (filtered + spam) if filtered + spam else 0.0,
    }


# built in: 05_finetune_classification/spam_classifier.ipynb
def encode_texts(texts: Sequence[str], tokenizer, context_length: int) -> list[list[int]]:
    """Each text behind an <|endoftext|>, as in pretraining; too long a text loses its end.

    Raises ValueError for an empty text.
    """
    rows = []
    for number, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {number} is empty: there is nothing to classify")
        ids = [end_of_text(tokenizer), *encode_plain(tokenizer, text)]
        rows.append(ids[:context_length])
    return rows


# built in: 05_finetune_classification/spam_classifier.ipynb
def pool(hidden: Tensor, real: Tensor, how: str) -> Tensor:
    """One vector per text: (batch, tokens, emb_dim), and which tokens are real → (batch, emb_dim).

    "last": of the last real token; "mean" and "max": over all real tokens; "first" and "last
    position" are mistakes, kept to be measured. Raises ValueError for another name.
    """
    if how == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), real.sum(dim=1) - 1]
    if how == "mean":
        return (hidden * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
    if how == "max":
        return hidden.masked_fill(~real[..., None], -torch.inf).amax(dim=1)
    if how == "first":
        return hidden[:, 0]
    if how == "last position":
        return hidden[:, -1]
    raise ValueError(f"no pooling {how!r}: choose last, mean, max, first or last position")


# built in: 05_finetune_classification/spam_classifier.ipynb
class Classifier(nn.Module):
    """A GPT that gives a text a label: its body, and a head with one score per label.

    It takes the model over, whose own head is gone afterwards: give a deepcopy to keep it.
    """

    def __init__(self, model: GPTModel, labels: int = 2, pooling: str = "last") -> None:
        super().__init__()
        self.config, self.pooling = model.config, pooling
        model.head = nn.Identity()  # the body now ends with what its head used to read
        self.body = model
        self.label_head = nn.Linear(model.config.emb_dim, labels)
        nn.init.normal_(self.label_head.weight, std=0.02)  # small: it begins without an opinion
        nn.init.zeros_(self.label_head.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) ids, PADDING behind short texts → logits (batch, labels)."""
        real = ids != PADDING
        hidden = self.body(ids.clamp(min=0))  # (batch, tokens, emb_dim)
        return self.label_head(pool(hidden, real, self.pooling))


# built in: 05_finetune_classification/spam_classifier.ipynb
def freeze(classifier: Classifier, learn: str = "all") -> Classifier:
    """Let "all" parameters learn, or only the "last block" with what follows, or the "head"."""
    if learn not in ("all", "last block", "head"):
        raise ValueError(f"cannot let {learn!r} learn: choose all, last block or head")
    classifier.requires_grad_(learn == "all")
    if learn == "last block":
        classifier.body.blocks[-1].requires_grad_(True)
        classifier.body.final_norm.requires_grad_(True)
    classifier.label_head.requires_grad_(True)
    return classifier


# built in: 05_finetune_classification/spam_classifier.ipynb
@torch.no_grad()
def log_odds(classifier: Classifier, rows: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
    """Log odds of class 1 against class 0, in nats, for each encoded text: (texts,)."""
    device = classifier.label_head.weight.device
    was_training = classifier.training
    classifier.eval()
    result = torch.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))  # little padding
    for first in range(0, len(rows), batch_size):
        chosen = order[first : first + batch_size]
        scores = classifier(pad_texts([rows[number] for number in chosen]).to(device))
        result[chosen] = (scores[:, 1] - scores[:, 0]).float().cpu()
    classifier.train(was_training)
    return result


# built in: 05_finetune_classification/spam_classifier.ipynb
def best_threshold(odds: Tensor, classes: Sequence[int]) -> float:
    """The middle of the thresholds (from -8 to 8 nats) on the log odds with the best F1.

    To be chosen on a validation part: training makes a model too sure of itself.
    """
    f1 = {
        threshold: classification_scores((odds > threshold).int().tolist(), classes)["F1"]
        for threshold in torch.linspace(-8, 8, 129).tolist()
    }
    highest = max(f1.values())
    best = [threshold for threshold, score in f1.items() if score == highest]
    return best[len(best) // 2]


def save_classifier(path: Path, classifier: Classifier, **notes: object) -> None:
    """Write a classifier with its configuration, its pooling and JSON-ready `notes`."""
    labels = classifier.label_head.out_features
    save_checkpoint(path, classifier, pooling=classifier.pooling, labels=labels, **notes)


def load_classifier(path: Path) -> Classifier:
    """The classifier of a file that `save_classifier` wrote, in evaluation mode.

    Raises ValueError for a file that holds something else, naming every tensor that differs.
    """
    config, notes, tensors = read_checkpoint(path)
    if not {"pooling", "labels"} <= notes.keys():
        raise ValueError(f"{path} is a checkpoint, but not of a classifier: use load_checkpoint")
    return fill(Classifier(GPTModel(config), notes["labels"], notes["pooling"]), tensors, path)


# ---------------------------------------------------------------------------------------------
# LoRA
# ---------------------------------------------------------------------------------------------


# built in: 05_finetune_classification/lora.ipynb
class LoRALinear(nn.Module):
    """A frozen linear layer and beside it a thin detour that learns (Hu et al. 2021).

    Source: LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        if not 1 <= rank <= min(linear.weight.shape):
            raise ValueError(
                f"rank is {rank}; for a matrix of {tuple(linear.weight.shape)} it must lie between "
                f"1 and {min(linear.weight.shape)}"
            )
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, **like))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, **like))  # at first: nothing
        nn.init.normal_(self.down, std=linear.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        return self.linear(x) + self.scale * (x @ self.down.T) @ self.up.T

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One ordinary layer that computes the same."""
        self.linear.weight += self.scale * self.up @ self.down
        return self.linear


# built in: 05_finetune_classification/lora.ipynb
def add_lora(model: nn.Module, rank: int = 4, alpha: float | None = None) -> list[str]:
    """Freeze a model, put a LoRALinear in place of every linear layer of its blocks; return them.

    `alpha`, 2 × rank when None, scales what the detours add. Returns the layers' names. Raises
    ValueError for a model that has detours already.
    """
    if any(isinstance(m, LoRALinear) for m in model.modules()):
        raise ValueError("the model has detours already: merge_lora first")
    model.requires_grad_(False)
    found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    names = [name for name in found if "blocks." in name]
    alpha = 2.0 * rank if alpha is None else alpha
    for name in names:
        model.set_submodule(name, LoRALinear(found[name], rank, alpha))
    return names


# built in: 05_finetune_classification/lora.ipynb
def merge_lora(model: nn.Module) -> None:
    """Add every detour to the matrix beside it: ordinary layers again, though still frozen."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            model.set_submodule(name, module.merged())


# built in: 05_finetune_classification/lora.ipynb
def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that learn, all that has to be saved beside the base model."""
    return {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}


# ---------------------------------------------------------------------------------------------
# Instructions
# ---------------------------------------------------------------------------------------------


# built in: 06_finetune_instructions/instructions.ipynb
def extract_response(text: str) -> str:
    """What stands behind the last "### Response:", without the end mark; "" when nothing does."""
    _, mark, response = text.rpartition(RESPONSE)
    return response.split("<|endoftext|>")[0].strip() if mark else ""


# built in: 06_finetune_instructions/instructions.ipynb
def answer(
    model: GPTModel, tokenizer, entries: Sequence[Entry], max_new_tokens: int = 64
) -> list[str]:
    """The model's greedy answers to entries, in their order.

    Prompts of one length share a batch, so that nothing is padded. Raises ValueError for a prompt
    that leaves no room in the context.
    """
    by_length, texts = defaultdict(list), [""] * len(entries)
    for place, entry in enumerate(entries):
        ids = [tokenizer.eot_id, *tokenizer.encode(format_prompt(entry))]
        if len(ids) >= model.config.context_length:
            raise ValueError(
                f"a prompt has {len(ids)} tokens; with {model.config.context_length} in the "
                f"context no room is left for an answer: shorten {entry['instruction']!r:.80}"
            )
        by_length[len(ids)].append((place, ids))
    device = next(model.parameters()).device
    for length, group in by_length.items():
        ids = torch.tensor([ids for _, ids in group], device=device)
        out = generate(model, ids, max_new_tokens, temperature=0, eos_id=tokenizer.eot_id)
        for (place, _), new in zip(group, out[:, length:].tolist(), strict=True):
            end = new.index(tokenizer.eot_id) if tokenizer.eot_id in new else len(new)
            texts[place] = tokenizer.decode(new[:end]).strip()
    return texts


# built in: 06_finetune_instructions/instructions.ipynb
def exact_match(given: str, expected: str) -> bool:
    """The same words, letters and marks; only white space does not count."""
    return given.split() == expected.split()


# built in: 06_finetune_instructions/instructions.ipynb
def token_f1(given: str, expected: str) -> float:
    """Words in common, as the harmonic mean of the share of the given and of the expected ones."""
    words, right = Counter(given.lower().split()), Counter(expected.lower().split())
    common = (words & right).total()
    return 2 * common / (words.total() + right.total()) if common else 0.0


# built in: 06_finetune_instructions/instructions.ipynb
def fits_tale(beginning: str, given: str) -> bool:
    """Is the beginning with the given text a whole tale that the grammar could tell?"""
    return explain(f"{beginning} {given}").ways > 0


def score_answers(entries: Sequence[Entry], answers: Sequence[str]) -> pd.DataFrame:
    """Per task: entries, share of exact matches, mean token F1; last the row "all".

    The free task is left out. Raises ValueError for a task that the course does not know, or when
    nothing is left to score.
    """
    known, rows = {entry["task"] for entry in load_instructions()}, defaultdict(list)
    for entry, given in zip(entries, answers, strict=True):
        if (task := entry.get("task")) not in known:
            raise ValueError(
                f"no rule to score the task {task!r}: choose one of {', '.join(sorted(known))}, "
                f"or use exact_match and token_f1 directly"
            )
        if task != FREE_TASK:
            score = exact_match(given, entry["output"]), token_f1(given, entry["output"])
            rows[task].append(score)
    if not rows:
        raise ValueError("there is nothing to score: give entries of other tasks than the free one")
    tasks = {task: rows[task] for task in sorted(rows)}
    tasks["all"] = [score for scores in rows.values() for score in scores]
    table = {
        task: (len(scores), *(sum(column) / len(scores) for column in zip(*scores, strict=True)))
        for task, scores in tasks.items()
    }
    return pd.DataFrame.from_dict(table, "index", columns=["entries", "exact match", "token F1"])


# ---------------------------------------------------------------------------------------------
# Preferences
# ---------------------------------------------------------------------------------------------


# built in: 06_finetune_instructions/preferences_dpo.ipynb
def answer_log_probs(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Log-probability (rows,) of each row's answer: of all its targets that are not IGNORED."""
    log_probs = model(inputs).float().log_softmax(dim=-1)  # (rows, tokens, vocab)
    counted = targets != IGNORED
    each = log_probs.gather(-1, targets.masked_fill(~counted, 0)[..., None])[..., 0]
    return (each * counted).sum(dim=-1)


# built in: 06_finetune_instructions/preferences_dpo.ipynb
def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float = 0.1) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): the mean loss.

    `chosen` and `rejected`, each (pairs,), are log-probabilities of the answers, the learning
    model's minus the frozen reference's. Raises ValueError for a beta that is not above 0.
    """
    if beta <= 0:
        raise ValueError(f"beta is {beta}; it must be above 0 (0.1 is usual)")
    return -F.logsigmoid(beta * (chosen - rejected)).mean()
