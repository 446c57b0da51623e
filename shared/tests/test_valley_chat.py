"""The bundled chat model: what it says to those who come by, and what the datasheet says of it."""

import pytest
import torch

from data.ask import answers, with_answers
from data.instructions import is_right
from data.sheets import sheet
from shared.chat import Chat
from shared.classroom.files import BUNDLED, DATA
from shared.tokenizers import course_tokenizer
from shared.weights import load_checkpoint

TOKENIZER = course_tokenizer()
FIRST_CONTACT = {
    "Hello": "hello", "who are you?": "who_are_you", "what is the capital of France?": "unknown",
    "and what do you know?": "what_can_you_do", "thanks, bye": "bye",
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return load_checkpoint(BUNDLED.with_stem("chat")).eval()


@pytest.mark.parametrize("request_text", FIRST_CONTACT)
def test_the_first_words_are_answered_in_the_right_voice(model, request_text):
    """Twenty times out of twenty, at temperature 0.7."""
    torch.manual_seed(1)
    voices = sheet("talk.txt")[FIRST_CONTACT[request_text]].answers
    said = ["".join(Chat(model, TOKENIZER).say(request_text, "", 0.7)) for _ in range(20)]
    assert [text for text in said if text not in voices] == []


def test_a_tale_about_an_owl_is_possible_and_about_an_owl(model):
    torch.manual_seed(1)
    entry = {"task": "tale", "instruction": "tell me a tale about an owl", "input": ""}
    told = ["".join(Chat(model, TOKENIZER).say(entry["instruction"], "", 0.7)) for _ in range(20)]
    assert sum(is_right(entry, text) for text in told) >= 17


def test_the_datasheet_has_the_answers_that_the_model_gives():
    datasheet = (DATA / "README.md").read_text(encoding="utf-8")
    assert with_answers(datasheet, answers()) == datasheet
