"""The bundled data: made byte for byte by `data/make.py`, of the promised size, without leaks."""

import hashlib
import random
import re
import time
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from data.facts import FACTS, fact_splits
from data.instructions import (
    COUNTS,
    FREE_SIZES,
    FREE_TASKS,
    GUESTS,
    LISTED,
    MADE,
    NEW_GUESTS,
    TRAINED_SIZES,
    VOICED,
    argument,
    declines,
    format_prompt,
    is_new,
    is_right,
    listed,
    typed,
)
from data.make import RHYMES, TRAIN_TALES, VAL_TALES, VOCAB_SIZE, make_files, with_tables
from data.messages import PATTERNS, make_messages
from data.sheets import read_sheet, sheet
from data.world import explain
from shared.classroom.datasets import load_instructions, load_messages, load_tales, load_text
from shared.classroom.files import DATA
from shared.tokenizers import END_OF_TEXT, course_tokenizer

CONTEXT_LENGTH = 256  # of the course's model
SPLITS = ("train", "val", "test")
KINDS = {kind.name: kind for kind in FACTS}
NAMES = ("stories_val.txt", "stories.txt", "rhymes.txt", "facts.txt", "school.txt", "messages.csv",
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
    texts += load_text("school.txt").splitlines()
    texts += [format_prompt(e) + e["output"] for e in entries]
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


def test_the_test_part_has_many_patterns_of_spam():
    """So that what a few patterns happen to be like matters little."""
    spam = [pattern.split for pattern in PATTERNS if pattern.label == "spam"]
    assert spam.count("test") >= 100 and spam.count("val") >= 50


# ---------------------------------------------------------------------------------- instructions


def split_of(entries: list[dict[str, str]], split: str, *tasks: str) -> list[dict[str, str]]:
    return [e for e in entries if e["split"] == split and (not tasks or e["task"] in tasks)]


def words_of(entry: dict[str, str]) -> set[str]:
    return set(re.findall(r"[\w-]+", f"{entry['instruction']} {entry['input']} {entry['output']}"))


def test_every_task_is_there_in_the_promised_numbers(entries):
    assert {e["task"] for e in entries} == {*KINDS, *MADE, *VOICED}
    for task, counts in COUNTS.items():
        extra = (0, 0, 20) if task in ("count", "sort") else (0, 0, 0)
        found = [len(split_of(entries, split, task)) for split in SPLITS]
        assert found == pytest.approx([a + b for a, b in zip(counts, extra, strict=True)], abs=1)
    for task in KINDS:
        shares = Counter(fact_splits()[task, x] for x in KINDS[task].pairs)
        assert shares["train"] / shares.total() == pytest.approx(0.7, abs=0.04)
        assert shares["test"] / shares.total() == pytest.approx(0.2, abs=0.05)


def test_every_task_is_worded_in_many_ways():
    """At least eight wordings of a task, of which at least two are for the test alone."""
    known, new = defaultdict(set), defaultdict(set)
    for name, head in sheet("wordings.txt").items():
        known[name.split(".")[0]] |= set(head.known)
        new[name.split(".")[0]] |= set(head.new)
    assert set(known) == {*KINDS, *MADE}
    for task in known:
        assert len(known[task] | new[task]) >= 8 and len(new[task]) >= 2, task
        assert not known[task] & new[task], task


def test_new_wordings_and_messages_and_topics_are_only_in_the_test(entries):
    for entry in entries:
        assert not is_new(entry) or entry["split"] == "test", entry
    for task in {*KINDS, *MADE}:
        asked = split_of(entries, "test", task)
        assert 0.2 < sum(map(is_new, asked)) / len(asked) < 0.8, task
    assert all(map(is_new, split_of(entries, "test", *VOICED)))
    for task in VOICED:
        known = {e["wording"] for e in split_of(entries, "train", task)}
        assert not known & {e["wording"] for e in split_of(entries, "test", task)}
    topics = [name.endswith("(new)") for name in sheet("outside.txt")]
    assert topics.count(False) >= 30 and topics.count(True) >= 10


def test_no_argument_is_in_two_splits(entries):
    """A fact, a story, a sentence, the set of a list (in any order), a word, a tale."""
    for task in {*KINDS, *MADE}:
        seen = {split: set(map(argument, split_of(entries, split, task))) for split in SPLITS}
        for one, other in combinations(SPLITS, 2):
            assert not seen[one] & seen[other], (task, one, other)


def test_a_list_in_another_order_is_the_same_argument():
    entry = {"task": "sort", "instruction": "Sort these: two, one, nine.", "input": ""}
    other = {"task": "sort", "instruction": "Sort the numbers.", "input": "nine, two, one"}
    assert argument(entry) == argument(other) == ("sort", ("nine", "one", "two"))


def test_lists_are_what_their_answers_say(entries):
    for entry in (e for e in entries if e["task"] in ("sort", "alphabet")):
        assert tuple(sorted(entry["output"].split(", "))) == listed(entry), entry


def test_sizes_of_lists(entries):
    for task in ("sort", "count"):
        trained = {len(listed(e)) for e in split_of(entries, "train", task)}
        tested = Counter(len(listed(e)) for e in split_of(entries, "test", task))
        assert trained == set(TRAINED_SIZES) and set(tested) == {*TRAINED_SIZES, *FREE_SIZES}
        assert sum(tested[size] for size in FREE_SIZES) == pytest.approx(20, abs=1)
    assert set(LISTED) <= set(MADE)


def test_some_names_come_from_outside_and_some_of_them_only_in_the_test(entries):
    used = {split: set().union(*map(words_of, split_of(entries, split))) for split in SPLITS}
    assert set(GUESTS) <= used["train"] and not set(NEW_GUESTS) & (used["train"] | used["val"])
    asked = [e for e in split_of(entries, "test", "who", "where") if set(NEW_GUESTS) & words_of(e)]
    assert len(asked) >= 10


def test_one_question_has_one_answer(entries):
    answers = defaultdict(set)
    for entry in entries:
        if entry["task"] not in (*FREE_TASKS, *VOICED):
            answers[entry["instruction"], entry["input"]].add(entry["output"])
    assert [question for question, outputs in answers.items() if len(outputs) > 1] == []


def test_all_answers_are_right_and_a_wrong_one_is_not(entries):
    for entry in random.Random(1).sample(entries, 1500):
        assert is_right(entry, entry["output"]), entry
        assert not is_right(entry, "Perhaps.")
    tales = split_of(entries, "test", "tale")
    about = {e["instruction"]: e["output"] for e in tales}
    assert not is_right(tales[0] | {"instruction": "Tell me a tale about a whale and an owl."}, "")
    assert all(explain(tale).ways for tale in about.values())


def test_a_tale_must_be_about_what_was_asked():
    entry = {"task": "tale", "instruction": "Tell me a tale about an owl.", "input": ""}
    tales = load_tales("val")
    owl = next(tale for tale in tales if " owl" in tale)
    other = next(tale for tale in tales if " owl" not in tale)
    assert is_right(entry, owl) and not is_right(entry, other)
    assert is_right(entry | {"instruction": "Tell me a tale."}, other)


def test_what_lies_outside_is_declined_and_nothing_else(entries):
    for entry in entries:
        assert declines(entry["output"]) == (entry["task"] == "outside"), entry


def test_lessons_state_every_fact_and_answer_no_question_of_the_test(entries):
    lessons, school = load_text("facts.txt"), load_text("school.txt")
    for kind in FACTS:
        head = sheet("wordings.txt")[kind.name]
        for x in kind.pairs:
            assert all(kind.say(statement, x) in lessons for statement in kind.statements)
            split = fact_splits()[kind.name, x]
            asked = [kind.say(wording, x) for wording in head.known + head.new]
            answered = [q for q in asked if f"{q} {kind.say(kind.statements[0], x)}" in lessons]
            assert bool(answered) == (split == "train"), (kind.name, x)
            assert not [q for q in asked if q in school], (kind.name, x)


def test_a_pair_of_opposites_shares_its_split():
    for (kind, x), split in fact_splits().items():
        y = KINDS[kind].pairs[x]
        if KINDS[kind].pairs.get(y) == x:
            assert fact_splits()[kind, y] == split


def test_stories_of_the_school_are_asked_in_no_test(entries):
    school = load_text("school.txt")
    asked = [e["input"] for e in entries if e["split"] != "train" and e["input"].count(".") == 3]
    assert len(asked) > 300 and not [story for story in asked if story in school]


def test_requests_are_typed_as_people_type():
    rng = random.Random(0)
    forms = {typed("Tell me the plural of fox.", rng) for _ in range(300)}
    assert forms == {
        "Tell me the plural of fox.", "tell me the plural of fox.", "tell me the plural of fox",
        "Please tell me the plural of fox.", "can you tell me the plural of fox?",
        "Tell me the plural of fox please",
    }  # fmt: skip
    names = {typed("Otto is what?", rng)[:4] for _ in range(200)}
    assert names == {"Otto"}


def test_a_damaged_sheet_says_what_is_wrong():
    assert read_sheet("a:\n  one\n  new: two\n  > three\n")["a"].answers == ["three"]
    for source in ("  one\n", "a:\n  one\n  one\n"):
        with pytest.raises(ValueError, match="'one' stands under no head, or twice"):
            read_sheet(source)
    with pytest.raises(ValueError, match="'a:' is no new head"):
        read_sheet("a:\na:\n")


def test_two_facts_of_a_table_never_share_the_answer_that_tells_them_apart():
    """What a statement says backwards ("if it says quack, it is a duck") must be true as well."""
    for name in ("opposite", "plural", "past_tense", "sound", "young", "home", "job"):
        pairs = KINDS[name].pairs
        assert len(set(pairs.values())) == len(pairs), name


def test_articles_fit_their_nouns(entries):
    texts = [load_text("facts.txt"), load_text("school.txt")]
    texts += [" ".join(e.values()) for e in entries]
    wrong = re.findall(r"\b[Aa] [aeiou]\w*|\b[Aa]n [^aeiou\W]\w*", "\n".join(texts))
    assert wrong == []
