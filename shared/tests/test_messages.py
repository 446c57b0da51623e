"""The messages of chapter 5: enough of them, no pattern in two splits, no word that decides."""

import math
import random
import re
from collections import Counter
from functools import partial

import pytest

from data.messages import DEAL, PATTERNS, SHARE, fill, make_messages, pattern_of

TEXT_KNOWN = ("train", "unlabelled")


@pytest.fixture(scope="module")
def messages():
    return make_messages()


def words(text):
    return re.findall(r"[a-z']+", text.lower())


def test_same_seed_same_messages(messages):
    assert make_messages() == messages
    assert make_messages(seed=8) != messages


def test_counts_and_ratio(messages):
    assert len(messages) >= 3400
    patterns = Counter(pattern.label for pattern in PATTERNS)
    assert patterns["ham"] >= 150 and patterns["spam"] >= 90
    for split in SHARE:
        labels = Counter(m["label"] for m in messages if m["split"] == split)
        assert set(labels) == {"ham", "spam"}
        assert 0.13 <= labels["spam"] / labels.total() <= 0.16


def test_texts_are_single_lines_of_sms_length_and_unique(messages):
    texts = [m["text"] for m in messages]
    assert len({text.lower() for text in texts}) == len(texts)
    for text in texts:
        assert 2 <= len(text) <= 160
        assert text == " ".join(text.split())
        assert not set(text) & set("{}[]|#_"), f"an unfilled blank in {text!r}"


def test_vocabulary_is_small_enough_for_a_small_tokenizer(messages):
    assert len({word for m in messages for word in words(m["text"])}) <= 1900


def test_every_pattern_is_used_in_its_own_split_only(messages):
    used = set()
    for message in messages:
        makers = [PATTERNS[number] for number in pattern_of(message["text"])]
        assert makers, f"no pattern makes {message['text']!r}"
        assert {(p.label, p.split) for p in makers} == {(message["label"], message["split"])}
        used.update(p.text for p in makers)
    assert used == {p.text for p in PATTERNS}


def test_no_text_of_one_split_differs_only_in_digits_or_signs_from_another(messages):
    home = {}
    for m in messages:
        key = " ".join(words(m["text"])) or m["text"]
        assert home.setdefault(key, m["split"]) == m["split"], m["text"]


def test_patterns_are_dealt_in_the_promised_shares_and_hard_cases_go_everywhere():
    assert len({p.text for p in PATTERNS}) == len(PATTERNS)
    for label in ("ham", "spam"):
        mine = [p for p in PATTERNS if p.label == label]
        hard = {p.split for p in mine if p.situation.startswith("tricky")}
        assert hard == set(SHARE)
        share = {s: sum(p.split == s for p in mine) / len(mine) for s in SHARE}
        dealt = {s: DEAL[label].count(s) / len(DEAL[label]) for s in SHARE}
        assert share == pytest.approx(dealt, abs=0.03)


@pytest.mark.parametrize(
    "word", "free win won call urgent account prize link cash money claim code reply now".split()
)
def test_loaded_words_occur_in_both_classes(messages, word):
    labels = {m["label"] for m in messages if m["split"] in TEXT_KNOWN and word in words(m["text"])}
    assert labels == {"ham", "spam"}


def test_capitals_occur_in_both_classes(messages):
    shouting = re.compile(r"\b[A-Z]{4,}\b")
    assert {m["label"] for m in messages if shouting.search(m["text"])} == {"ham", "spam"}
    quiet = {m["label"] for m in messages if m["text"] == m["text"].lower()}
    assert quiet == {"ham", "spam"}


def test_numbers_and_hosts_are_reserved_for_fiction(messages):
    for message in messages:
        text = message["text"].lower()
        assert all(host.endswith(".example") for host in re.findall(r"[a-z-]+\.[a-z]+", text)), text
        for phone in re.findall(r"\b0?\d{3,5}[ -]\d{4,}\b", text):
            assert phone.startswith(("555-01", "07700 900")), phone


def test_unknown_slot_is_an_error():
    with pytest.raises(KeyError, match="nonsense"):
        fill("hello {nonsense}", random.Random(0))


def test_naive_bayes_is_good_but_not_perfect(messages):
    """A bag of words gets most test patterns right and leaves something for the network to win."""

    def tokens(text):
        return re.findall(r"[a-z0-9']+", text.lower())

    train = [m for m in messages if m["split"] == "train"]
    counts = {"ham": Counter(), "spam": Counter()}
    for m in train:
        counts[m["label"]].update(tokens(m["text"]))
    vocabulary = len(counts["ham"] | counts["spam"])
    prior = Counter(m["label"] for m in train)

    def score(text, label):
        total = counts[label].total() + vocabulary
        return math.log(prior[label]) + sum(
            math.log((counts[label][token] + 1) / total) for token in tokens(text)
        )

    test = [m for m in messages if m["split"] == "test"]
    guesses = [max(("ham", "spam"), key=partial(score, m["text"])) for m in test]
    pairs = Counter((m["label"], guess) for m, guess in zip(test, guesses, strict=True))
    wrong = pairs["ham", "spam"] + pairs["spam", "ham"]
    assert 0.80 <= 1 - wrong / len(test) <= 0.93
    assert 0.55 <= 2 * pairs["spam", "spam"] / (2 * pairs["spam", "spam"] + wrong) <= 0.75
