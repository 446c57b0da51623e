"""The bundled chat model: what it says to those who come by, and what the datasheet says of it."""

import json
import random

import pytest
import torch

from data.ask import answers, with_answers
from data.instructions import FREE_TASKS, HARD, VOICED, is_new, is_right, listed
from data.sheets import sheet
from shared.chat import Chat
from shared.classroom.datasets import load_instructions
from shared.classroom.files import BUNDLED, DATA, ROOT
from shared.classroom.scores import score_groups
from shared.instructions import answer
from shared.tokenizers import course_tokenizer
from shared.weights import load_checkpoint

TOKENIZER = course_tokenizer()
FIRST_CONTACT = [
    ("Hello", "hello"),
    ("who are you?", "who_are_you"),
    ("what is the capital of France?", "unknown"),
    ("and what do you know?", "what_can_you_do"),
    ("thanks, bye", "bye"),
]


@pytest.fixture(scope="module")
def model():
    return load_checkpoint(BUNDLED.with_stem("chat")).eval()


@pytest.mark.parametrize(("request_text", "head"), FIRST_CONTACT)
def test_the_first_words_are_answered_in_the_right_voice(model, request_text, head):
    """Twenty times out of twenty, at temperature 0.7."""
    torch.manual_seed(1)
    voices = sheet("talk.txt")[head].answers
    said = ["".join(Chat(model, TOKENIZER).say(request_text, "", 0.7)) for _ in range(20)]
    assert [text for text in said if text not in voices] == []


def test_a_tale_about_an_owl_is_possible_and_about_an_owl(model):
    torch.manual_seed(1)
    entry = {"task": "tale", "instruction": "tell me a tale about an owl", "input": ""}
    told = ["".join(Chat(model, TOKENIZER).say(entry["instruction"], "", 0.7)) for _ in range(20)]
    assert sum(is_right(entry, text) for text in told) >= 17


def test_the_test_part_is_answered_as_recorded(model):
    record = json.loads((ROOT / "06_finetune_instructions" / "instructions.json").read_text())
    test = [e for e in load_instructions("test") if e["task"] not in FREE_TASKS]
    found = score_groups(test, answer(model, TOKENIZER, test))["share"]
    for group, share in found.items():
        assert share == pytest.approx(record["groups"][group], abs=0.02), group


def test_the_hard_tasks_leave_something_to_learn():
    record = json.loads((ROOT / "06_finetune_instructions" / "instructions.json").read_text())
    assert set(record["hard"]) == {*HARD, *FREE_TASKS}
    for task in ("animal_of_name", "say", "continue"):  # of sums, nothing is promised
        assert 0.2 <= record["hard"][task]["pass@1"] <= 0.7
    for task in ("animal_of_name", "continue"):  # the two that the datasheet names
        assert record["hard"][task]["pass@8"] > 0.75


def test_the_tenth_turn_is_as_good_as_the_first(model):
    """Thirty conversations of ten turns, of requests that begin no tale."""
    rng = random.Random(1)
    entries = [
        e for e in load_instructions("test")
        if e["task"] not in (*FREE_TASKS, *HARD, *VOICED) and not is_new(e)
        and not (e["task"] in ("count", "sort") and len(listed(e)) > 6)
    ]  # fmt: skip
    right = []
    for _ in range(30):
        chat = Chat(model, TOKENIZER)
        right.append([
            is_right(e, "".join(chat.say(e["instruction"], e["input"])))
            for e in rng.sample(entries, 10)
        ])  # fmt: skip
    turns = torch.tensor(right).float().mean(0)
    assert turns[5:].mean() >= turns[:3].mean() - 0.05, turns


def test_the_datasheet_has_the_answers_that_the_model_gives():
    datasheet = (DATA / "README.md").read_text(encoding="utf-8")
    assert with_answers(datasheet, answers()) == datasheet
