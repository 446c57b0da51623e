"""The bundled data: made byte for byte by `data/make.py`, of the promised size, without leaks."""

import hashlib
import re
import time
from collections import defaultdict
from itertools import combinations

import pytest

from data.facts import FACTS, OPPOSITES
from data.instructions import MADE, format_prompt
from data.make import RHYMES, TRAIN_TALES, VAL_TALES, VOCAB_SIZE, make_files, with_tables
from data.messages import make_messages
from shared.classroom.datasets import load_instructions, load_messages, load_tales, load_text
from shared.classroom.files import DATA
from shared.tokenizers import END_OF_TEXT, course_tokenizer

CONTEXT_LENGTH = 256  # of the course's model
SPLITS = ("train", "val", "test")
KINDS = {kind.name: kind for kind in FACTS}
MADE_TASKS = {make.__name__ for make in MADE}
NAMES = ("stories_val.txt", "stories.txt", "rhymes.txt", "facts.txt", "messages.csv",
         "instructions.json", "course.tiktoken")  # fmt: skip


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[bytes, float]]:
    """Every generated file: its bytes, and the seconds of one core that they took."""
    files, started = {}, time.process_time()
    for name, content in make_files():
        files[name] = content, time.process_time() - started
        started = time.process_time()
    return files


@pytest.fixture(scope="module")
def entries() -> list[dict[str, str]]:
    return load_instructions()


# ---------------------------------------------------------------------------------- made as told


@pytest.mark.parametrize("name", NAMES)
def test_make_reproduces_the_file(made, name):
    assert set(made) == set(NAMES)
    same = made[name][0] == (DATA / name).read_bytes()
    assert same, f"data/{name} is not what data/make.py makes: run python data/make.py"


def test_the_tokenizer_is_trained_in_seconds(made):
    assert made["course.tiktoken"][1] < 30


def test_the_tokenizer_has_its_2048_tokens():
    tokenizer = course_tokenizer()
    assert tokenizer.vocab_size == VOCAB_SIZE == 2048
    assert tokenizer.eot_id == 2047
    assert tokenizer.decode([2047]) == END_OF_TEXT
    assert len((DATA / "course.tiktoken").read_bytes().splitlines()) == 2047


def test_the_datasheet_has_the_right_hashes():
    """Rows like "| `stories.txt` | … | sha256 |"; whatever else stands in them."""
    sheet = (DATA / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|\s*\[?`([\w./-]+)`.*\b([0-9a-f]{64})\b", sheet, flags=re.MULTILINE)
    listed = dict(rows)
    assert set(listed) >= {*NAMES, "tale.txt"}
    for name, sha256 in listed.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == sha256, name


def test_the_datasheet_has_the_tables_that_the_files_give(made):
    sheet = (DATA / "README.md").read_text(encoding="utf-8")
    files = {name: content for name, (content, _) in made.items()}
    assert with_tables(sheet, files | {"tale.txt": (DATA / "tale.txt").read_bytes()}) == sheet


# ----------------------------------------------------------------------------------------- tales


def test_tales_are_as_many_and_as_large_as_promised():
    train, val = load_tales("train"), load_tales("val")
    assert (len(train), len(val)) == (TRAIN_TALES, VAL_TALES)
    assert 4_000_000 <= (DATA / "stories.txt").stat().st_size <= 6_000_000
    for tales in (train, val):
        assert len(set(tales)) == len(tales)


def test_no_validation_tale_occurs_in_training():
    val = load_tales("val")
    assert not set(val) & set(load_tales("train"))
    rhymes = load_text("rhymes.txt")
    assert len(rhymes.splitlines()) == RHYMES
    assert not [tale for tale in val if tale in rhymes]


def test_every_text_fits_into_the_context(entries):
    encode = course_tokenizer().encode
    texts = load_tales("train") + load_tales("val") + load_text("facts.txt").splitlines()
    texts += load_text("rhymes.txt").splitlines() + load_messages()["text"].tolist()
    texts += [format_prompt(e) + e["output"] for e in entries if e["task"] != "continue"]
    longest = max(texts, key=lambda text: len(encode(text)))
    assert len(encode(longest)) < CONTEXT_LENGTH, longest  # one place is for <|endoftext|>


# -------------------------------------------------------------------------------------- messages


def test_messages_are_those_of_the_maker():
    assert load_messages().to_dict("records") == make_messages()


def test_messages_are_as_many_as_promised():
    table = load_messages()
    assert len(table) >= 3000
    assert table["split"].value_counts(normalize=True).to_dict() == pytest.approx(
        {"train": 0.2, "unlabelled": 0.5, "val": 0.1, "test": 0.2}, abs=0.01
    )


# ---------------------------------------------------------------------------------- instructions


def arguments() -> dict[tuple[str, str], frozenset]:
    """(task, question) → what it asks about: a thing, or a pair of opposites."""
    return {
        (kind.name, kind.say(question, x)): frozenset(
            (x, OPPOSITES[x]) if kind.name == "opposite" else (x,)
        )
        for kind in FACTS
        for x in kind.pairs
        for question in kind.questions
    }


def test_instructions_are_as_many_as_promised(entries):
    assert len(entries) >= 2500
    splits = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    for entry in entries:
        splits[entry["task"]][entry["split"]] += 1
    assert len(splits) >= 12
    assert set(splits) == {*KINDS, *MADE_TASKS, "continue"}
    for task, count in splits.items():
        share = {split: count[split] / sum(count.values()) for split in SPLITS}
        assert share == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.04), task


def test_no_argument_is_in_two_splits(entries):
    asked = arguments()
    seen = defaultdict(set)
    for entry in entries:
        if entry["task"] in KINDS:
            assert not entry["input"]
            argument = asked[entry["task"], entry["instruction"]]
        else:
            assert entry["input"]
            argument = entry["input"]
        seen[entry["task"], entry["split"]].add(argument)
    for task in {entry["task"] for entry in entries}:
        for one, other in combinations(SPLITS, 2):
            assert not seen[task, one] & seen[task, other], (task, one, other)


def test_one_question_has_one_answer(entries):
    answers = defaultdict(set)
    for entry in entries:
        answers[entry["instruction"], entry["input"]].add(entry["output"])
    assert [question for question, outputs in answers.items() if len(outputs) > 1] == []


def test_answers_to_facts_are_the_facts(entries):
    asked = arguments()
    for entry in (entry for entry in entries if entry["task"] in KINDS):
        kind = KINDS[entry["task"]]
        xs = asked[kind.name, entry["instruction"]]
        assert entry["output"] in {kind.say(kind.statements[0], x) for x in xs}


def test_lessons_say_every_fact_that_the_test_asks(entries):
    lessons = load_text("facts.txt")
    asked = arguments()
    for entry in (e for e in entries if e["split"] == "test" and e["task"] in KINDS):
        kind = KINDS[entry["task"]]
        for x in asked[kind.name, entry["instruction"]]:
            for statement in kind.statements:
                assert kind.say(statement, x) in lessons, entry


def test_two_facts_of_a_table_never_share_the_answer_that_tells_them_apart():
    """What a statement says backwards ("if it says quack, it is a duck") must be true as well."""
    for name in ("opposite", "plural", "past_tense", "sound", "young", "home", "job"):
        pairs = KINDS[name].pairs
        assert len(set(pairs.values())) == len(pairs), name


def test_articles_fit_their_nouns(entries):
    texts = [load_text("facts.txt"), *(" ".join(e.values()) for e in entries)]
    wrong = re.findall(r"\b[Aa] [aeiou]\w*|\b[Aa]n [^aeiou\W]\w*", "\n".join(texts))
    assert wrong == []
