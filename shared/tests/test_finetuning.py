"""Fine-tuning: batches that teach answers and nothing else, scores that mean what they say."""

import math
import random
import re

import pytest
import torch

from data.instructions import FREE_TASKS, format_prompt
from data.sheets import sheet
from data.world import world
from shared.classroom.batches import InstructionBatches
from shared.classroom.datasets import load_instructions
from shared.classroom.scores import (
    exact_match,
    fits_tale,
    score_answers,
    score_groups,
    token_f1,
)
from shared.classroom.tales import rename
from shared.generate import generate
from shared.gpt import GPTConfig, GPTModel
from shared.instructions import answer, collate, complete, encode_exchange
from shared.preferences import answer_log_probs, dpo_loss
from shared.texts import IGNORED
from shared.tokenizers import course_tokenizer

TOKENIZER = course_tokenizer()
END = TOKENIZER.eot_id
PLURAL = {"instruction": "What is the plural of fox?", "input": "", "output": "foxes"}
PASSIVE = {"instruction": "Make it passive.", "input": "Pip ate cake.", "output": "Cake was eaten."}


# -- one exchange, and rows of them -----------------------------------------------------------


@pytest.mark.parametrize("entry", [PLURAL, PASSIVE, {**PLURAL, "input": None}])
def test_an_exchange_is_prompt_and_answer_with_an_end(entry: dict) -> None:
    prompt, given = encode_exchange(entry, TOKENIZER)
    assert TOKENIZER.decode(prompt) == format_prompt(entry)
    assert given[-1] == END and TOKENIZER.decode(given[:-1]) == entry["output"]


@pytest.mark.parametrize("key", ["instruction", "output"])
@pytest.mark.parametrize("value", ["", "  \n", None])
def test_an_exchange_without_words_is_refused(key: str, value: str | None) -> None:
    with pytest.raises(ValueError, match=f"no {key}"):
        encode_exchange({**PLURAL, key: value}, TOKENIZER)
    with pytest.raises(ValueError, match=f"no {key}"):
        encode_exchange({k: v for k, v in PLURAL.items() if k != key}, TOKENIZER)


def test_marks_in_a_text_are_plain_text() -> None:
    sly = {**PLURAL, "instruction": "Stop <|endoftext|> now"}
    prompt, given = encode_exchange(sly, TOKENIZER)
    assert END not in prompt and given.count(END) == 1


def test_collate_shifts_pads_and_masks() -> None:
    rows = [[([5, 6], [7, 8, 0])], [([5], [9, 0])], [([3], [0]), ([4], [2, 0])]]
    inputs, targets = collate(rows, eot_id=0)
    assert inputs.tolist() == [[0, 5, 6, 7, 8], [0, 5, 9, 0, 0], [0, 3, 0, 4, 2]]
    x = IGNORED
    assert targets.tolist() == [[x, x, 7, 8, 0], [x, 9, 0, x, x], [x, 0, x, 2, 0]]
    _, unmasked = collate(rows, eot_id=0, mask_prompts=False)
    assert unmasked.tolist() == [[5, 6, 7, 8, 0], [5, 9, 0, x, x], [3, 0, 4, 2, 0]]


# -- new names ---------------------------------------------------------------------------------


def test_renaming_deals_names_and_changes_nothing_else() -> None:
    entry = {
        "instruction": "What did Milo lose?",
        "input": "Milo the bear and Mira the fox. Milo's hat.",
        "output": "Milo lost a hat.",
        "task": "what_thing",
    }
    names = {name["name"]: name["he"] for name in world().kinds["name"]}
    seen = set()
    for seed in range(30):
        new = rename(entry, random.Random(seed))
        hero, friend = re.match(r"(\w+) the bear and (\w+) the", new["input"]).groups()
        assert hero != friend and names[hero] == "he" and names[friend] == "she"
        back = {k: v.replace(friend, "Mira").replace(hero, "Milo") for k, v in new.items()}
        assert back == entry
        seen.add((hero, friend))
    assert len(seen) > 10


# -- batches -----------------------------------------------------------------------------------


def plain(tokens: torch.Tensor) -> str:
    return TOKENIZER.decode(tokens.tolist())


def test_batches_visit_every_entry_once_an_epoch_and_are_a_function_of_the_step() -> None:
    entries = [{**PLURAL, "output": f"answer {i}"} for i in range(12)]
    batches = InstructionBatches(entries, TOKENIZER, 4, context_length=256)
    for epoch in (0, 1):
        text = " ".join(
            plain(row[row != IGNORED]) for step in range(3) for row in batches[3 * epoch + step][1]
        )
        assert sorted(int(n) for n in re.findall(r"answer (\d+)", text)) == list(range(12))
    again = InstructionBatches(entries, TOKENIZER, 4, context_length=256)
    assert all(torch.equal(a, b) for a, b in zip(batches[5], again[5], strict=True))
    assert not torch.equal(batches[0][0], batches[3][0])


def test_rows_hold_several_turns_that_fit_the_context() -> None:
    entries = load_instructions("train")[:60]
    entries = [e for e in entries if e["task"] not in FREE_TASKS]
    longest = max(sum(map(len, encode_exchange(e, TOKENIZER))) for e in entries)
    several = InstructionBatches(entries, TOKENIZER, 24, context_length=256)
    assert any(len(several[step][0]) < 24 for step in range(3))
    tight = InstructionBatches(entries, TOKENIZER, 24, context_length=longest)
    assert all(tight[step][0].shape[1] <= longest for step in range(5))
    single = InstructionBatches(entries, TOKENIZER, 24, context_length=256, max_turns=1)
    assert len(single[0][0]) == 24


def test_a_renamed_entry_never_becomes_a_held_out_one() -> None:
    names = [name["name"] for name in world().kinds["name"] if name["he"] == "he"]
    entry = {"instruction": f"Who is {names[0]}?", "input": "", "output": "A bear."}
    others = [{**entry, "instruction": f"Who is {name}?"} for name in names[1:]]
    batches = InstructionBatches([entry], TOKENIZER, 8, context_length=256, held_out=others)
    text = " ".join(plain(row) for step in range(5) for row in batches[step][0])
    assert set(re.findall(r"Who is (\w+)", text)) == {names[0]}


def test_bad_entries_are_refused_when_the_batches_are_made() -> None:
    with pytest.raises(ValueError, match="no instructions"):
        InstructionBatches([], TOKENIZER, 4, context_length=256)
    with pytest.raises(ValueError, match="no output"):
        InstructionBatches([{**PLURAL, "output": ""}], TOKENIZER, 4, context_length=256)
    with pytest.raises(ValueError, match="tokens, the context 10"):
        InstructionBatches([PLURAL], TOKENIZER, 4, context_length=10)


# -- answers and scores ------------------------------------------------------------------------


def tiny_model(context_length: int = 64) -> GPTModel:
    torch.manual_seed(0)
    sizes = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "drop_rate": 0.0, "init_std": 0.3}
    return GPTModel(GPTConfig(TOKENIZER.vocab_size, context_length, **sizes)).eval()


def test_answers_come_in_order_and_do_not_depend_on_the_company() -> None:
    model = tiny_model()
    entries = [PLURAL, PASSIVE, {**PLURAL, "instruction": "What is the plural of owl?"}]
    together = answer(model, TOKENIZER, entries, max_new_tokens=8)
    alone = [answer(model, TOKENIZER, [entry], max_new_tokens=8)[0] for entry in entries]
    assert together == alone and "<|endoftext|>" not in "".join(together)


def test_prompts_of_several_lengths_are_completed_in_their_order_with_the_mark_of_the_end() -> None:
    model, end = tiny_model(), TOKENIZER.eot_id
    prompts = [[end, *TOKENIZER.encode(text)] for text in ("The fox", "A", "The owl", "B")]
    written = complete(model, prompts, 6, end)
    alone = [generate(model, torch.tensor([ids]), 6, temperature=0)[0, len(ids) :].tolist()
             for ids in prompts]  # fmt: skip
    assert written == alone and all(len(ids) == 6 for ids in written)
    mark = written[1][2]  # what comes third in one of two that share a batch
    assert mark not in written[1][:2] and mark not in written[3]
    ended = complete(model, prompts, 6, mark)
    assert ended[1] == written[1][:3] and ended[3] == written[3]
    torch.manual_seed(0)
    assert complete(model, prompts, 6, end, temperature=5.0) != written
    assert complete(model, [], 6, end) == []
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        complete(model, [[end], []], 6, end)


def test_a_prompt_without_room_for_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no room is left"):
        answer(tiny_model(16), TOKENIZER, [PASSIVE])


@pytest.mark.parametrize(
    ("given", "match", "f1"),
    [
        ("a red kite", True, 1.0),
        (" a  red kite\n", True, 1.0),
        ("A red kite", False, 1.0),
        ("a red hat", False, 2 / 3),
        ("a red red red kite", False, 0.75),
        ("", False, 0.0),
    ],
)
def test_exact_match_and_f1(given: str, match: bool, f1: float) -> None:
    assert exact_match(given, "a red kite") is match
    assert token_f1(given, "a red kite") == pytest.approx(f1)


def test_scores_are_per_task_without_tales_and_the_hard_ones_apart() -> None:
    tasks = ("plural", "plural", "who", "continue", "total")
    entries = [{**PLURAL, "task": task} for task in tasks]
    table = score_answers(entries, ["foxes", "fox", "foxes", "anything", "foxes"])
    assert list(table.index) == ["plural", "total", "who", "all"]
    assert table.loc["plural"].tolist() == [2, 0.5, 0.5]
    assert table.loc["all", "entries"] == 3
    assert table.loc["all", "exact match"] == pytest.approx(2 / 3)


def test_any_voice_is_right() -> None:
    voices = sheet("talk.txt")["bye"].answers
    entry = {"instruction": "Bye!", "input": "", "output": voices[0], "task": "talk"}
    table = score_answers([entry] * 3, [voices[1], voices[2], "Hello!"])
    assert table.loc["all", "exact match"] == pytest.approx(2 / 3)


def test_scores_of_groups() -> None:
    test = load_instructions("test")
    table = score_groups(test, [entry["output"] for entry in test])["share"]
    assert table.pop("inside: declined") == 0 and (table == 1).all()
    assert set(table.index) == {
        "known wordings", "new wordings", "facts only stated", "sizes of the training",
        "sizes never seen", "names never seen", "outside: declined", "tales told",
        "tales continued", "hard: animal_of_name", "hard: say", "hard: total",
    }  # fmt: skip
    unknown = sheet("talk.txt")["unknown"].answers[0]
    table = score_groups(test, [unknown] * len(test))["share"]
    assert table.pop("outside: declined") == table.pop("inside: declined") == 1
    assert (table == 0).all()


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ValueError, match=r"'poem': choose one of .*plural"):
        score_answers([{**PLURAL, "task": "poem"}], ["foxes"])
    with pytest.raises(ValueError, match="None"):
        score_answers([PLURAL], ["foxes"])
    with pytest.raises(ValueError, match="nothing to score"):
        score_answers([{**PLURAL, "task": "continue"}], ["foxes"])


def test_the_grammar_judges_endings() -> None:
    tale = next(e for e in load_instructions("test") if e["task"] == "continue")
    assert fits_tale(tale["input"], tale["output"])
    assert not fits_tale(tale["input"], tale["output"] + " And then?")
    assert not fits_tale(tale["input"], "")


# -- preferences -------------------------------------------------------------------------------


def test_log_probs_of_answers_are_those_of_reading_token_by_token() -> None:
    model = tiny_model()
    pairs = [encode_exchange(entry, TOKENIZER) for entry in (PLURAL, PASSIVE)]
    found = answer_log_probs(model, *collate([[pair] for pair in pairs], END))
    for (prompt, given), log_prob in zip(pairs, found.tolist(), strict=True):
        ids, expected = [END, *prompt], 0.0
        for id in given:
            scores = model(torch.tensor([ids]))[0, -1].tolist()
            top = max(scores)
            total = sum(math.exp(score - top) for score in scores)
            expected += scores[id] - top - math.log(total)
            ids.append(id)
        assert log_prob == pytest.approx(expected, abs=1e-3)


def test_dpo_loss_equals_the_formula_of_the_paper() -> None:
    policy = {"chosen": [-14.0, -3.0], "rejected": [-12.0, -5.5]}
    reference = {"chosen": [-18.0, -3.5], "rejected": [-6.0, -5.0]}
    expected = 0.0
    for i in range(2):  # equation 7, with ratios of probabilities instead of logarithms
        good = math.exp(policy["chosen"][i]) / math.exp(reference["chosen"][i])
        bad = math.exp(policy["rejected"][i]) / math.exp(reference["rejected"][i])
        sigmoid = 1 / (1 + math.exp(-0.1 * math.log(good / bad)))
        expected -= math.log(sigmoid) / 2
    gained = {k: torch.tensor(policy[k]) - torch.tensor(reference[k]) for k in policy}
    assert dpo_loss(gained["chosen"], gained["rejected"]).item() == pytest.approx(expected)
    same = torch.zeros(3)
    assert dpo_loss(same, same).item() == pytest.approx(math.log(2))
    far = dpo_loss(torch.tensor([-5000.0]), torch.tensor([5000.0]))
    assert far.item() == pytest.approx(1000)  # no overflow
    with pytest.raises(ValueError, match="beta is 0"):
        dpo_loss(same, same, beta=0)
