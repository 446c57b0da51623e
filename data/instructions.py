"""Instructions about the valley: facts, questions on small stories, and work on sentences.

Every task draws *arguments* (a word, a small story, a list), and an argument belongs to one split:
what the test asks was never asked in training. For facts that means that the answer must come from
the lessons of pretraining.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from data.facts import FACTS, NUMBERS, PASTS, a, capital
from data.world import world

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
PER_TASK = 150  # entries of a task whose arguments are made, not listed
HARDER = {"sort": 400, "where": 250, "which_animal": 250}  # these take more examples to learn

VERBS = ("painted", "washed", "mended", "polished", "carried", "lifted", "pushed", "pulled",
         "watched", "cooked", "planted", "baked")  # fmt: skip
BASES = {past: verb for verb, past in PASTS.items()}

HAPPY = (
    "{name} the {animal} laughed all the way home", "{name} won the {thing} and danced",
    "at last {name} found the {colour} {thing}", "{name} sang because the sun was out",
    "the {animal} hugged {name} and gave a plate of {food}", "{name} loved the new {thing}",
    '"What a lovely {thing}," said {name}, and smiled', "{name} was proud of the {colour} {thing}",
    "everyone clapped for {name} the {animal}", "{name} had the best {food} in years",
    "{name} jumped for joy at the {place}", '"The {food} is wonderful," said {name}',
)  # fmt: skip
SAD = (
    "{name} the {animal} cried all night", "{name} lost the {thing} and sighed",
    "nobody came to the party of {name}", "{name} sat alone at the {place}",
    "the {colour} {thing} was broken, and {name} wept", "{name} missed the old {thing}",
    '"What a terrible {time}," said {name}, and sobbed', "{name} was ashamed of the {thing}",
    "no one spoke to {name} the {animal}", "the {food} was burnt, and {name} went hungry",
    "{name} had no friend left at the {place}", "{name} dropped the {food} into the mud",
)  # fmt: skip

Entry = dict[str, str]
Words = Callable[[str], str]  # picks a value of a kind of the world


def format_prompt(entry: Entry) -> str:
    """The text a model reads before it answers (Alpaca's format, Taori et al. 2023, in short)."""
    text = f"\n\n### Input:\n{entry['input']}" if entry.get("input") else ""
    return f"### Instruction:\n{entry['instruction']}{text}\n\n### Response:\n"


def ask(instruction: str, text: str, output: str) -> Entry:
    """One entry in Alpaca's format, without task and split."""
    return {"instruction": instruction, "input": text, "output": output}


def small_story(pick: Words) -> tuple[str, dict[str, str]]:
    """Three sentences about two animals, and the choices in them."""
    words = {kind: pick(kind) for kind in ("name", "animal", "colour", "thing", "place")}
    words |= {"friend": pick("name"), "other": pick("animal"), "place2": pick("place")}
    first = pick(
        (
            "{name} the {animal} had a {colour} {thing}.",
            "There was a {colour} {thing} in the house of {name} the {animal}.",
            "{name} the {animal} bought a {colour} {thing}.",
        )
    )
    second = pick(
        (
            "{name} lost the {thing} at the {place}.",
            "One day {name} forgot the {thing} at the {place}.",
            "At the {place} {name} dropped the {thing}.",
        )
    )
    third = pick(
        (
            "{friend} the {other} from the {place2} brought it back.",
            "Then {friend} the {other} found it and took it to the {place2}.",
            "{friend} the {other} saw it and hid it at the {place2}.",
        )
    )
    return " ".join((first, second, third)).format(**words), words


def who(pick: Words) -> Entry:
    text, words = small_story(pick)
    question, key = pick((("Who lost the {thing}?", "name"), ("Who came later?", "friend")))
    return ask(question.format(**words), text, f"{words[key]}.")


def where(pick: Words) -> Entry:
    text, words = small_story(pick)
    question = pick(("Where was the {thing} lost?", "At which place did {name} lose the {thing}?"))
    return ask(question.format(**words), text, f"At the {words['place']}.")


def what_colour(pick: Words) -> Entry:
    text, words = small_story(pick)
    question = pick(("What colour was the {thing}?", "Which colour did the {thing} have?"))
    return ask(question.format(**words), text, f"The {words['thing']} was {words['colour']}.")


def what_thing(pick: Words) -> Entry:
    text, words = small_story(pick)
    question = pick(("What did {name} lose?", "Which thing is the story about?"))
    return ask(question.format(**words), text, f"A {words['colour']} {words['thing']}.")


def which_animal(pick: Words) -> Entry:
    # By what it did, not by its name: in the tales, too, its part tells which animal it is.
    text, words = small_story(pick)
    questions = (
        ("Which animal lost the {thing}?", "animal"),
        ("Which animal came later?", "other"),
    )
    question, key = pick(questions)
    return ask(question.format(**words), text, f"{capital(a(words[key]))}.")


def plain_sentence(pick: Words) -> tuple[str, str, str]:
    """Subject, verb in the past tense, object."""
    return f"the {pick('animal')}", pick(VERBS), f"the {pick('colour')} {pick('thing')}"


def passive(pick: Words) -> Entry:
    subject, verb, thing = plain_sentence(pick)
    instruction = pick(("Put the sentence into the passive voice.", "Make the sentence passive."))
    passive = f"{capital(thing)} was {verb} by {subject}."
    return ask(instruction, f"{capital(subject)} {verb} {thing}.", passive)


def make_question(pick: Words) -> Entry:
    subject, verb, thing = plain_sentence(pick)
    instruction = pick(("Make a question from the sentence.", "Turn the sentence into a question."))
    question = f"Did {subject} {BASES[verb]} {thing}?"
    return ask(instruction, f"{capital(subject)} {verb} {thing}.", question)


def negative(pick: Words) -> Entry:
    subject, verb, thing = plain_sentence(pick)
    instruction = pick(("Say that it did not happen.", "Make the sentence negative."))
    return ask(
        instruction,
        f"{capital(subject)} {verb} {thing}.",
        f"{capital(subject)} did not {BASES[verb]} {thing}.",
    )


def count(pick: Words) -> Entry:
    things = [pick("thing") for _ in range(int(pick("23456")))]
    instruction = pick(("How many things are in the list?", "Count the things in the list."))
    return ask(instruction, ", ".join(things), f"There are {NUMBERS[len(things) - 1]} things.")


def sort(pick: Words) -> Entry:
    numbers = [pick(NUMBERS) for _ in range(3)]
    instruction = pick(("Sort the numbers.", "Put the numbers in order, the smallest first."))
    return ask(instruction, ", ".join(numbers), ", ".join(sorted(numbers, key=NUMBERS.index)))


def sentiment(pick: Words) -> Entry:
    mood, patterns = pick((("happy", HAPPY), ("sad", SAD)))
    kinds = ("name", "animal", "thing", "colour", "food", "place", "time")
    sentence = pick(patterns).format(**{kind: pick(kind) for kind in kinds})
    instruction = pick(("Is this happy or sad?", "Does the sentence sound happy or sad?"))
    return ask(instruction, f"{capital(sentence)}.", f"It is {mood}.")


MADE = (who, where, what_colour, what_thing, which_animal, passive, make_question, negative,
        count, sort, sentiment)  # fmt: skip


def deal(items: list, rng: random.Random) -> list[tuple[str, object]]:
    """Shuffle the items and give each its split, 70 / 10 / 20."""
    items = rng.sample(items, len(items))
    train, val = round(len(items) * SHARES["train"]), round(len(items) * SHARES["val"])
    splits = ["train"] * train + ["val"] * val + ["test"] * (len(items) - train - val)
    return list(zip(splits, items, strict=True))


def picker(rng: random.Random) -> Words:
    """Choose from a sequence, or from a kind of the world without repeating within one entry."""
    used: dict[str, set[str]] = {}

    def pick(source):
        if not isinstance(source, str) or source.isdigit():
            key, options = repr(source), list(source)
        else:
            key, options = source, [entry[source] for entry in world().kinds[source]]
        taken = used.setdefault(key, set())
        choice = rng.choice([o for o in options if str(o) not in taken])
        taken.add(str(choice))
        return choice

    return pick


def fact_entries(rng: random.Random) -> list[Entry]:
    """Questions about facts; the thing asked about decides the split, however it is asked."""
    entries = []
    for kind in FACTS:
        # A pair of opposites is one argument: "hot" in training would tell "cold" in the test.
        partner = {x: min(x, y) if kind.pairs.get(y) == x else x for x, y in kind.pairs.items()}
        for split, argument in deal(sorted(set(partner.values())), rng):
            for x in (x for x in kind.pairs if partner[x] == argument):
                answer = kind.say(kind.statements[0], x)
                for question in rng.sample(kind.questions, 1 if kind.name == "opposite" else 2):
                    entry = ask(kind.say(question, x), "", answer)
                    entries.append({**entry, "task": kind.name, "split": split})
    return entries


def made_entries(rng: random.Random) -> list[Entry]:
    """Work on stories, sentences and lists; no input occurs in two splits."""
    entries = []
    for make in MADE:
        by_input: dict[str, Entry] = {}
        while len(by_input) < HARDER.get(make.__name__, PER_TASK):
            entry = make(picker(rng))
            by_input.setdefault(entry["input"], entry)
        for split, text in deal(list(by_input), rng):
            entries.append({**by_input[text], "task": make.__name__, "split": split})
    return entries


def tale_entries(rng: random.Random, count: int = 60) -> list[Entry]:
    """Beginnings of fresh tales with one possible continuation (scored by a rule, not by match)."""
    entries, seen = [], set()
    while len(seen) < count:
        sentences = re.split(r'(?<=[.!?])\s|(?<=[.!?]")\s', world().tell(rng))
        seen.add((" ".join(sentences[:2]), " ".join(sentences[2:])))
    for split, (beginning, rest) in deal(sorted(seen), rng):
        entry = ask("Continue the tale.", beginning, rest)
        entries.append({**entry, "task": "continue", "split": split})
    return entries


def make_instructions(seed: int) -> list[Entry]:
    """All entries, shuffled: instruction, input, output, task, split."""
    rng = random.Random(seed)
    entries = fact_entries(rng) + made_entries(rng) + tale_entries(rng)
    rng.shuffle(entries)
    return entries
