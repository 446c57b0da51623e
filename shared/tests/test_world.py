"""The grammar of the tales: its probabilities are exact, its errors clear, its valley rich.

A small grammar is spelled out here a second time, by rewriting strings: every text it can tell,
with its probability and its repeated mentions. What `data.world` computes must agree with that.
"""

import math
import random
import re
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache

import pytest

from data.world import Grammar, Mention, entropy_floor, explain, tell_tales, world
from shared.classroom.datasets import load_tales, load_text

MARK = re.compile(r"<([\w.?]+)>|\{(\w+)\.?(\w*)\}")
RECALLED = {"name": "names", "thing": "objects", "he": "pronouns"}  # kind or form: kind of recall

KINDS = {
    "name": [
        {"name": "Ann", "he": "she"},
        {"name": "Anna", "he": "she"},
        {"name": "Bo", "he": "he"},
    ],
    "thing": [{"thing": "hat", "a": "a hat"}, {"thing": "egg", "a": "an egg"}],
}
SLOTS = {"hero": "name", "friend": "name", "thing": "thing"}
RULES = {
    "tale": ["<start><aside?> <end>", "{friend} slept."],
    "start": ["{hero} met {friend}.", "{hero} had {thing.a}."],
    "aside?": ['"{thing.A}," said {hero}, and {hero.he} sat.', "{hero.He} sang."],
    "end": ["{friend} and {hero} left.", "The {thing} was {hero.his}.", "So {hero} left."],
}
for entry in KINDS["name"]:
    entry["his"] = "hers" if entry["he"] == "she" else "his"


def source(kinds: dict, slots: dict, rules: dict) -> str:
    """Write a grammar as `world.txt` does."""
    lines = ["# a comment, and an empty line", ""]
    for kind, entries in kinds.items():
        lines.append(f"kind {kind}: {' | '.join(entries[0])}")
        lines += ["  " + " | ".join(entry.values()) for entry in entries]
    lines += [f"slot {slot}: {kind}" for slot, kind in slots.items()]
    for name, alternatives in rules.items():
        lines += [f"rule {name}", *(f"  {line}" for line in alternatives)]
    return "\n".join(lines)


def expand(kinds: dict, slots: dict, rules: dict):
    """Yield (probability, text, mentions) for every way to tell a tale.

    The first mark of a line is replaced by each of its alternatives until no mark is left. What
    stands before that mark is final, so a repeated slot's place in the tale is known at once.
    """
    todo = [(Fraction(1), "<tale>", {}, ())]
    while todo:
        probability, line, chosen, mentions = todo.pop()
        mark = MARK.search(line)
        if mark is None:
            yield probability, line, list(mentions)
            continue
        before, behind = line[: mark.start()], line[mark.end() :]
        rule, slot, form = mark.groups()
        if rule:
            options = [" " * rule.endswith("?") + words for words in rules[rule]]
            options += [""] * rule.endswith("?")
            for words in options:
                todo.append((probability / len(options), before + words + behind, chosen, mentions))
            continue
        kind = slots[slot]
        known = slot in chosen
        taken = [chosen[other] for other in chosen if slots[other] == kind]
        options = [chosen[slot]] if known else [e for e in kinds[kind] if e not in taken]
        for entry in options:
            words = entry[form.lower() or kind]
            words = words[0].upper() + words[1:] if form and form[0].isupper() else words
            recall = RECALLED.get(form.lower()) or RECALLED.get(kind)
            recall = "pronouns" if form == "his" else recall
            end = len(before) + len(words)
            seen = (*mentions, Mention(len(before), end, recall)) if known else mentions
            share = probability / len(options)
            todo.append((share, before + words + behind, {**chosen, slot: entry}, seen))


def enumerate_texts(kinds: dict, slots: dict, rules: dict) -> dict[str, tuple[float, int, list]]:
    """Text → (probability, ways, mentions of one of the ways)."""
    found = defaultdict(list)
    for probability, text, mentions in expand(kinds, slots, rules):
        found[text].append((probability, mentions))
    assert sum(p for ways in found.values() for p, _ in ways) == 1  # fractions: exactly
    return {
        text: (float(sum(p for p, _ in ways)), len(ways), ways[0][1])
        for text, ways in found.items()
    }


@pytest.fixture(scope="module")
def small() -> Grammar:
    return Grammar(source(KINDS, SLOTS, RULES))


@pytest.fixture(scope="module")
def texts() -> dict[str, tuple[float, int, list]]:
    return enumerate_texts(KINDS, SLOTS, RULES)


# A second reading of the same words: the aside may come from either rule.
TWICE = {
    "tale": ["<greet?><wave?> {hero} left.", "Hi. {hero} left."],
    "greet?": ["Hi."],
    "wave?": ["Hi.", "Bye, {hero}."],
}


# ------------------------------------------------------------------- the small grammar, spelled out


def test_probabilities_of_a_small_grammar_sum_to_one(small, texts):
    assert len(texts) > 50
    total = math.fsum(math.exp(small.log_prob(text)) for text in texts)
    assert total == pytest.approx(1, abs=1e-12)


def test_every_probability_is_the_enumerated_one(small, texts):
    for text, (probability, ways, _) in texts.items():
        reading = small.explain(text)
        assert reading.ways == ways == 1, text
        assert reading.log_prob == pytest.approx(math.log(probability), abs=1e-12), text


def test_an_ambiguous_text_gets_the_sum_of_its_ways():
    texts = enumerate_texts(KINDS, SLOTS, TWICE)
    grammar = Grammar(source(KINDS, SLOTS, TWICE))
    assert {ways for _, ways, _ in texts.values()} == {1, 2}
    for text, (probability, ways, _) in texts.items():
        reading = grammar.explain(text)
        assert reading.ways == ways, text
        assert reading.log_prob == pytest.approx(math.log(probability), abs=1e-12), text
        assert reading.surprise(0, len(text) + 1) == pytest.approx(-reading.log_prob, abs=1e-12)
    total = math.fsum(math.exp(grammar.log_prob(text)) for text in texts)
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("rules", [RULES, TWICE], ids=["unambiguous", "ambiguous"])
def test_sampled_frequencies_agree(rules):
    texts = enumerate_texts(KINDS, SLOTS, rules)
    grammar, rng, samples = Grammar(source(KINDS, SLOTS, rules)), random.Random(11), 20_000
    counts = Counter(grammar.tell(rng) for _ in range(samples))
    assert set(counts) <= set(texts)
    expected = {text: samples * probability for text, (probability, _, _) in texts.items()}
    chi_square = sum((counts[text] - mean) ** 2 / mean for text, mean in expected.items())
    freedom = len(texts) - 1  # mean of a chi-square; its variance is twice that
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_prefix_masses_are_the_enumerated_ones(small, texts):
    @cache
    def mass(prefix: str) -> float:
        return math.fsum(p for text, (p, _, _) in texts.items() if text.startswith(prefix))

    for text in texts:
        log_mass = small.explain(text).log_mass()
        assert len(log_mass) == len(text) + 2
        assert log_mass[0] == pytest.approx(0, abs=1e-12)
        assert all(after <= before for before, after in zip(log_mass, log_mass[1:], strict=False))
        expected = [math.log(mass(text[:end])) for end in range(len(text) + 1)]
        assert log_mass[:-1] == pytest.approx(expected, abs=1e-9), text


def test_surprise_of_the_whole_text_is_its_negative_log_prob(small, texts):
    for text in texts:
        reading = small.explain(text)
        assert reading.surprise(0, len(text) + 1) == pytest.approx(-reading.log_prob, abs=1e-12)
        middle = len(text) // 2
        parts = reading.surprise(0, middle) + reading.surprise(middle, len(text) + 1)
        assert parts == pytest.approx(-reading.log_prob, abs=1e-12)


def test_mentions_stand_at_the_right_characters(small, texts):
    for text, (_, _, mentions) in texts.items():
        assert small.explain(text).mentions == mentions, text


def test_mentions_and_recalls_by_hand(small):
    text = 'Bo met Anna. "An egg," said Bo, and he sat. Anna and Bo left.'
    reading = small.explain(text)
    said = [(text[m.start : m.end], m.kind) for m in reading.mentions]
    assert said == [("Bo", "names"), ("he", "pronouns"), ("Anna", "names"), ("Bo", "names")]
    assert [m.start for m in reading.mentions] == [28, 36, 44, 53]
    # "Anna" opens one of three endings, as "The" and "So" do: only the others are certain.
    assert reading.recalls() == [reading.mentions[i] for i in (0, 1, 3)]


def test_recalls_are_the_mentions_that_the_enumeration_calls_certain(small, texts):
    def mass(prefix: str) -> float:
        return math.fsum(p for text, (p, _, _) in texts.items() if text.startswith(prefix))

    for text, (_, _, mentions) in list(texts.items())[::3]:
        certain = [m for m in mentions if mass(text[: m.end]) > 0.9995 * mass(text[: m.start])]
        assert small.explain(text).recalls() == certain, text


@pytest.mark.parametrize(
    "text", ["", "Bo", "Bo slept", "Bo slept. ", "Bo met Bo. So Bo left.", "Zoe slept.", "ünï 你好"]
)
def test_a_text_the_grammar_cannot_tell(small, text):
    reading = small.explain(text)
    assert (reading.log_prob, reading.ways, reading.mentions) == (-math.inf, 0, [])
    assert reading.recalls() == []
    assert reading.surprise(0, len(text) + 1) == math.inf
    assert math.fsum(reading.leaving) == pytest.approx(1, abs=1e-12)


GOOD = source(KINDS, SLOTS, RULES)


@pytest.mark.parametrize(
    "bad, message",
    [
        ("", "tale"),
        ("chapter one\n  Once.", "chapter"),
        ("  an orphan line\n" + GOOD, "orphan"),
        ("kind\n", "kind"),
        (GOOD.replace("<end>", "<ending>"), "ending"),
        (GOOD.replace("{friend} slept", "{enemy} slept"), "enemy"),
        (GOOD.replace("{thing.a}", "{thing.plural}"), "plural"),
        (GOOD.replace("slot thing: thing", "slot thing: object"), "object"),
        (GOOD.replace("  hat | a hat", "  hat"), "hat"),
        (GOOD.replace("  hat | a hat", "  hat | a hat | hats"), "hats"),
        (GOOD.replace("{friend} slept", "{friend slept"), "friend slept"),
        (GOOD.replace("<start><aside?>", "<start><aside?"), "aside"),
        (GOOD.replace("So {hero} left.", "<end> So {hero} left."), "end"),
        (GOOD + "\nrule empty", "empty"),
        ("kind name: name\n  Bo\nslot a b: name\nrule tale\n  {a} met {b}.", "name"),
    ],
    ids=["nothing", "unknown head", "line before any head", "nameless", "missing rule",
         "missing slot", "missing form", "missing kind", "too few forms", "too many forms",
         "open brace", "open bracket", "endless rule", "empty rule", "more slots than values"],
)  # fmt: skip
def test_a_bad_grammar_says_what_is_wrong(bad, message):
    with pytest.raises(ValueError, match=message):
        Grammar(bad)


# ------------------------------------------------------------------------------------- the valley


def count_tellings() -> int:
    """In how many ways the valley can tell a tale: choices multiplied, alternatives added.

    How many values a slot has left depends on which slots are already filled, so the counts are
    kept per set of filled slots. Tales are unambiguous: ways to tell are different tales.
    """
    grammar = world()

    @cache
    def after_rule(rule: str, filled: frozenset) -> Counter:
        total = Counter()
        for line in grammar.rules[rule]:
            states = Counter({filled: 1})
            for part in line:
                states = after_part(part, states)
            total.update(states)
        return total

    def after_part(part, states: Counter) -> Counter:
        if part.text:
            return states
        after = Counter()
        for filled, ways in states.items():
            if part.rule:
                for state, more in after_rule(part.rule, filled).items():
                    after[state] += ways * more
            elif part.slot in filled:
                after[filled] += ways
            else:
                kind = grammar.slots[part.slot]
                taken = sum(grammar.slots[slot] == kind for slot in filled)
                after[filled | {part.slot}] += ways * (len(grammar.kinds[kind]) - taken)
        return after

    return after_rule("tale", frozenset()).total()


def test_the_valley_has_a_billion_tales():
    assert count_tellings() >= 10**9


def test_tellings_are_counted_right(monkeypatch, small, texts):
    monkeypatch.setitem(count_tellings.__globals__, "world", lambda: small)
    assert count_tellings() == len(texts)


def test_the_valley_is_unambiguous():
    for tale in tell_tales(500, seed=99) + load_tales("val"):
        assert explain(tale).ways == 1, tale


def test_a_tale_is_told_with_its_own_probability():
    for tale in tell_tales(20, seed=5):
        reading = explain(tale)
        assert reading.surprise(0, len(tale) + 1) == pytest.approx(-reading.log_prob, abs=1e-9)
        assert reading.log_mass()[0] == pytest.approx(0, abs=1e-9)
        assert -reading.log_prob > math.log(10**9) / 2


def test_the_valley_is_rich():
    tales = load_tales("val")
    words = {word for tale in tales for word in re.findall(r"[a-z]+(?:[-'][a-z]+)*", tale.lower())}
    assert len(words) >= 400
    plots = [line[-1].rule for line in world().rules["tale"]]
    assert len(set(plots)) >= 8
    kinds = Counter(mention.kind for tale in tales for mention in explain(tale).recalls())
    named = {"names", "objects", "colours", "animals", "places", "foods", "pronouns", "sounds"}
    assert set(kinds) == named
    assert min(kinds.values()) >= 100  # enough of each for a recall accuracy to mean something


def test_entropy_floor_counts_nats_per_tale_and_per_token():
    tales = load_tales("val")[:50]
    per_tale = entropy_floor(tales)
    assert per_tale == pytest.approx(-sum(explain(t).log_prob for t in tales) / 50)
    assert entropy_floor(tales, tokens=7000) == pytest.approx(per_tale * 50 / 7000)
    assert 30 < per_tale < 70


def test_tell_tales_are_new_each_time_and_the_same_each_run():
    first = tell_tales(50, seed=3)
    assert first == tell_tales(50, seed=3) and len(set(first)) == 50
    assert not set(first[:10]) & set(tell_tales(40, seed=3, without=first[:10]))
    assert all(rhyme.count("{") == 0 for rhyme in tell_tales(50, seed=3, start="rhyme"))


def test_the_values_of_a_kind_differ():
    for kind, entries in world().kinds.items():
        for form in {"animal": ("animal", "a", "sound"), "job": ("job", "does")}.get(kind, (kind,)):
            values = [entry[form] for entry in entries]
            assert len(set(values)) == len(values), f"{kind}.{form}"


@pytest.mark.parametrize("name", ["stories.txt", "stories_val.txt", "rhymes.txt"])
def test_articles_fit_their_nouns(name):
    wrong = Counter(re.findall(r"\b[Aa] [aeiou]\w*|\b[Aa]n [^aeiou\W]\w*", load_text(name)))
    assert not wrong
