"""Instructions about the valley: facts, small stories, sentences, lists, tales, and talk.

Each has *arguments* (the word asked about, a story, a set of things) and a *wording*. An argument
belongs to one split: what the test asks was never asked in training, in no other order either. And
some wordings, sizes of lists, names, messages and topics occur in the test alone, so that it can
say what the model does with requests that nobody showed it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Hashable, Iterator

from data.facts import FACTS, NUMBERS, PASTS, a, capital, fact_splits
from data.sheets import Head, sheet
from data.world import explain, world

Entry = dict[str, str]
SPLITS = ("train", "val", "test")

# How many entries a split gets of what is made anew for every entry.
COUNTS = {
    "who": (400, 20, 60), "where": (350, 20, 60), "what_colour": (250, 20, 60),
    "what_thing": (250, 20, 60), "which_animal": (400, 20, 60), "animal_of_name": (350, 20, 60),
    "passive": (200, 20, 40), "make_question": (200, 20, 40), "negative": (200, 20, 40),
    "count": (450, 25, 60), "sort": (500, 25, 60), "alphabet": (500, 20, 60),
    "total": (500, 20, 40), "sentiment": (160, 20, 40), "say": (360, 20, 60),
    "continue": (80, 5, 20), "tale": (400, 10, 60),
}  # fmt: skip
FACT_WORDINGS = {"train": 5, "val": 1, "test": 3}  # in how many wordings a fact is asked
TALK_TIMES = 4  # how often training shows a message of talk, each time with one of its answers
OUTSIDE_TIMES = 2  # the same for a question about what lies outside the valley

TRAINED_SIZES, FREE_SIZES = range(2, 7), (7, 8)  # of the lists; the second only in the test
FREE_SIZE_COUNT = 20  # test entries of a list task with these sizes
# Reported apart: two that the chat model gets half of the time, which leaves something to learn by
# reward, and one, sums, that it hardly ever gets.
HARD = ("animal_of_name", "say", "total")
FREE_TASKS = ("continue", "tale")  # many right answers: judged by the grammar
VOICED = ("talk", "outside")  # several right answers: any voice will do

# Names from outside the valley; the second row occurs in no instruction of training.
GUESTS = ("Anton", "Bella", "Carlo", "Dora", "Elsa", "Fritz", "Greta", "Ivan", "Karl", "Lola",
          "Marco", "Olga", "Paula", "Ruben", "Sven", "Vera")  # fmt: skip
NEW_GUESTS = ("Clemens", "Edda", "Gustav", "Ilse", "Lorenz", "Martha", "Quentin", "Wanda")
ALL_GUESTS = GUESTS + NEW_GUESTS  # the school of pretraining knows them all
GUEST_SHARE = 0.15  # of the names of a small story

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

SUMS = (*NUMBERS, "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen")
IMPERATIVES = ("Give", "Tell", "Name", "Put", "Make", "Sort", "Count", "Say", "Write", "Add",
               "Turn", "Order", "Repeat", "Use", "Continue", "Go")  # fmt: skip


def values(kind: str) -> list[str]:
    """All things of a kind of the world, `values("thing")`."""
    return [entry[kind] for entry in world().kinds[kind]]


# --------------------------------------------------------------------------- the form of an entry


def format_prompt(entry: Entry) -> str:
    """The text a model reads before it answers (Alpaca's format, Taori et al. 2023, in short)."""
    text = f"\n\n### Input:\n{entry['input']}" if entry.get("input") else ""
    return f"### Instruction:\n{entry['instruction']}{text}\n\n### Response:\n"


def typed(request: str, rng: random.Random) -> str:
    """The request as somebody types it: politely, in small letters, without a full stop."""
    first, rest = request[0].lower() + request[1:], rng.random()
    may_be_small = not re.match(rf"I\b|{'|'.join((*values('name'), *ALL_GUESTS))}", request)
    ends = request.rstrip(".?!")
    if request.split()[0] in IMPERATIVES and ":" not in request and rest < 0.2:
        return f"Please {first}" if rest < 0.1 else f"can you {first.rstrip('.')}?"
    if rest > 0.9:
        return f"{ends} please" if ":" not in request and "please" not in request else request
    if rest > 0.75:
        return ends[0].lower() + ends[1:] if may_be_small else ends
    return first if rest > 0.6 and may_be_small else request


class Writer:
    """Makes the entries of one split, with random choices of its own."""

    def __init__(self, split: str, seed: int) -> None:
        self.split, self.rng = split, random.Random(f"{seed} {split}")

    def pick(self, source):
        """One of a sequence, or of a kind of the world."""
        return self.rng.choice(values(source) if isinstance(source, str) else list(source))

    def wording(self, head: Head) -> str:
        """One that the split may use: in the test every second is new."""
        new = self.split == "test" and self.rng.random() < 0.5
        return self.pick(head.new if new else head.known)

    def entry(self, task: str, wording: str, output: str, text: str = "", **words: str) -> Entry:
        """An entry in Alpaca's format; `text` is the input, unless the wording names it."""
        request = capital(wording.format(text=text, **words))
        return {
            "instruction": typed(request, self.rng),
            "input": "" if "{text}" in wording else text,
            "output": output, "task": task, "split": self.split, "wording": wording,
        }  # fmt: skip

    def ask(self, head: str, output: str, text: str = "", **words: str) -> Entry:
        """An entry in one of the wordings of a head."""
        wording = self.wording(sheet("wordings.txt")[head])
        return self.entry(head.split(".")[0], wording, output, text, **words)


# ---------------------------------------------------------------------------------- small stories

# What can be asked about one, and the answer; {asked} is one of the two names.
STORY_ANSWERS = {
    "who.lost": "{name}.", "who.later": "{friend}.", "where": "At the {place}.",
    "what_colour": "The {thing} was {colour}.", "what_thing": "A {colour} {thing}.",
    "which_animal.lost": "{A_animal}.", "which_animal.later": "{A_other}.",
    "animal_of_name": "{asked} is {a_asked}.",
}  # fmt: skip


def small_story(writer: Writer) -> tuple[str, dict[str, str]]:
    """Three sentences about two animals, and the choices in them."""
    rng = writer.rng
    name, friend = rng.sample(values("name"), 2)
    guests = {"train": GUESTS, "val": GUESTS, "test": NEW_GUESTS}.get(writer.split, ALL_GUESTS)
    if rng.random() < GUEST_SHARE:
        name = writer.pick(guests)
    elif rng.random() < GUEST_SHARE:
        friend = writer.pick(guests)
    animal, other = rng.sample(values("animal"), 2)
    place, place2 = rng.sample(values("place"), 2)
    words = {"name": name, "friend": friend, "animal": animal, "other": other}
    words |= {"place": place, "place2": place2}
    words |= {"colour": writer.pick("colour"), "thing": writer.pick("thing")}
    first = writer.pick(
        (
            "{name} the {animal} had a {colour} {thing}.",
            "There was a {colour} {thing} in the house of {name} the {animal}.",
            "{name} the {animal} bought a {colour} {thing}.",
        )
    )
    second = writer.pick(
        (
            "{name} lost the {thing} at the {place}.",
            "One day {name} forgot the {thing} at the {place}.",
            "At the {place} {name} dropped the {thing}.",
        )
    )
    third = writer.pick(
        (
            "{friend} the {other} from the {place2} brought it back.",
            "Then {friend} the {other} found it and took it to the {place2}.",
            "{friend} the {other} saw it and hid it at the {place2}.",
        )
    )
    asked, kind = writer.pick(((name, animal), (friend, other)))
    words |= {"asked": asked, "a_asked": a(kind)}
    words |= {"A_animal": capital(a(animal)), "A_other": capital(a(other))}
    return " ".join((first, second, third)).format(**words), words


def about_story(task: str) -> Callable[[Writer], Entry]:
    """The maker of a task that asks about a small story, from one of its sides."""
    heads = [head for head in STORY_ANSWERS if head.split(".")[0] == task]

    def make(writer: Writer) -> Entry:
        (text, words), head = small_story(writer), writer.pick(heads)
        return writer.ask(head, STORY_ANSWERS[head].format(**words), text, **words)

    return make


# --------------------------------------------------------------------------- sentences and lists


def plain_sentence(writer: Writer) -> tuple[str, str, str]:
    """Subject, verb in the past tense, object."""
    thing = f"the {writer.pick('colour')} {writer.pick('thing')}"
    return f"the {writer.pick('animal')}", writer.pick(VERBS), thing


def passive(writer: Writer) -> Entry:
    subject, verb, thing = plain_sentence(writer)
    output = f"{capital(thing)} was {verb} by {subject}."
    return writer.ask("passive", output, f"{capital(subject)} {verb} {thing}.")


def make_question(writer: Writer) -> Entry:
    subject, verb, thing = plain_sentence(writer)
    output = f"Did {subject} {BASES[verb]} {thing}?"
    return writer.ask("make_question", output, f"{capital(subject)} {verb} {thing}.")


def negative(writer: Writer) -> Entry:
    subject, verb, thing = plain_sentence(writer)
    output = f"{capital(subject)} did not {BASES[verb]} {thing}."
    return writer.ask("negative", output, f"{capital(subject)} {verb} {thing}.")


def sentiment(writer: Writer) -> Entry:
    mood, patterns = writer.pick((("happy", HAPPY), ("sad", SAD)))
    kinds = ("name", "animal", "thing", "colour", "food", "place", "time")
    sentence = writer.pick(patterns).format(**{kind: writer.pick(kind) for kind in kinds})
    return writer.ask("sentiment", f"It is {mood}.", f"{capital(sentence)}.")


def count(writer: Writer, sizes=TRAINED_SIZES) -> Entry:
    things = writer.rng.sample(values("thing"), writer.pick(sizes))
    output = f"There are {NUMBERS[len(things) - 1]} things."
    return writer.ask("count", output, ", ".join(things))


def sort(writer: Writer, sizes=TRAINED_SIZES) -> Entry:
    numbers = writer.rng.sample(NUMBERS, writer.pick(sizes))
    output = ", ".join(sorted(numbers, key=NUMBERS.index))
    return writer.ask("sort", output, ", ".join(numbers))


def alphabet(writer: Writer) -> Entry:
    things = writer.rng.sample(values("thing"), writer.pick((3, 4, 5)))
    return writer.ask("alphabet", ", ".join(sorted(things)), ", ".join(things))


def total(writer: Writer) -> Entry:
    numbers = [writer.pick(range(1, 7)) for _ in range(writer.pick((2, 3)))]
    output = f"Together they make {SUMS[sum(numbers) - 1]}."
    return writer.ask("total", output, ", ".join(NUMBERS[n - 1] for n in numbers))


def say(writer: Writer) -> Entry:
    word = writer.pick(WORDS)
    side, output = writer.pick((("word", word), ("sentence", f"I like the word {word}.")))
    return writer.ask(f"say.{side}", output, x=word)


WORDS = sorted({x for kind in FACTS for x in kind.pairs if " " not in x} | set(values("thing")))
LISTED = {"count": values("thing"), "sort": NUMBERS, "alphabet": values("thing"), "total": NUMBERS}

# -------------------------------------------------------------------------------------------- tales

ABOUT = {"any": None, "animal": "animal", "thing": "thing", "place": "place", "name": "hero"}
LONGEST_TALE = 760  # characters: with its request it must fit into the model's context


def sentences(tale: str) -> list[str]:
    """A tale, sentence by sentence."""
    return re.split(r'(?<=[.!?])\s|(?<=[.!?]")\s', tale)


def go_on(writer: Writer) -> Entry:
    """Beginnings of fresh tales, with one possible continuation."""
    told = sentences(short_tale(writer))
    return writer.ask("continue", " ".join(told[2:]), " ".join(told[:2]))


def tale(writer: Writer) -> Entry:
    """A whole tale: any, or about something."""
    side = writer.pick(tuple(ABOUT))
    if side == "any":
        return writer.ask("tale.any", short_tale(writer))
    x = writer.pick(side)
    return writer.ask(f"tale.{side}", short_tale(writer, {ABOUT[side]: x}), x=x, a_x=a(x))


def short_tale(writer: Writer, about: dict[str, str] | None = None) -> str:
    """A new tale that is not too long."""
    while len(told := world().tell(writer.rng, about=about)) > LONGEST_TALE:
        pass
    return told


def topics(request: str) -> set[str]:
    """What of the valley a request for a tale names: animals, things, places, names."""
    kinds = ("animal", "thing", "place", "name")
    known = {value for kind in kinds for value in values(kind)}
    return known & set(re.findall(r"\w+", request))


# --------------------------------------------------------------------------------- all of them

MADE: dict[str, Callable[[Writer], Entry]] = {
    **{task: about_story(task) for task in dict.fromkeys(h.split(".")[0] for h in STORY_ANSWERS)},
    **{make.__name__: make for make in (passive, make_question, negative, count, sort, alphabet,
                                        total, sentiment, say, tale)},
    "continue": go_on,
}  # fmt: skip


def listed(entry: Entry) -> tuple[str, ...]:
    """What stands in the list of an entry, alphabetically: the same for all orders."""
    words = re.findall(r"[a-z]+", f"{entry['instruction']} {entry['input']}")
    return tuple(sorted(word for word in words if word in LISTED[entry["task"]]))


def argument(entry: Entry) -> Hashable:
    """What belongs to one split alone: the set of a list, else the text that is asked about."""
    task = entry["task"]
    if task in LISTED:
        return task, listed(entry)
    if task == "say":
        return task, re.findall(r"[\w-]+", entry["output"])[-1]
    return task, entry["output"] if task == "tale" else (entry["input"] or entry["output"])


def fact_entries(writer: Writer) -> Iterator[Entry]:
    """Questions about the facts of a split, each in several wordings."""
    for kind in FACTS:
        head = sheet("wordings.txt")[kind.name]
        for x in (x for x in kind.pairs if fact_splits()[kind.name, x] == writer.split):
            wordings = writer.rng.sample(head.known, FACT_WORDINGS[writer.split])
            if writer.split == "test":
                wordings[-1] = writer.pick(head.new)
            answer = kind.say(kind.statements[0], x)
            for wording in wordings:
                yield writer.entry(kind.name, wording, answer, x=x, a_x=a(x))


def made_entries(writer: Writer, taken: set[Hashable]) -> Iterator[Entry]:
    """Work on stories, sentences, lists and tales; no argument in `taken`, and none twice.

    A list or a word may come again in the same split, in another order or wording.
    """
    of_others, asked = set(taken), set()
    for task, make in MADE.items():
        missing = COUNTS[task][SPLITS.index(writer.split)]
        while missing:
            entry = make(writer)
            new = task in (*LISTED, "say") or argument(entry) not in taken
            if new and argument(entry) not in of_others and _question(entry) not in asked:
                taken.add(argument(entry))
                asked.add(_question(entry))
                missing -= 1
                yield entry


def _question(entry: Entry) -> tuple[str, str]:
    return entry["instruction"], entry["input"]


def larger_lists(writer: Writer) -> Iterator[Entry]:
    """Lists of sizes that no training shows."""
    for make in (count, sort):
        yield from (make(writer, FREE_SIZES) for _ in range(FREE_SIZE_COUNT))


def talk_entries(writer: Writer) -> Iterator[Entry]:
    """What people say to a chat, and what lies outside the valley."""
    for head in sheet("talk.txt").values():
        for message in head.new if writer.split == "test" else head.known:
            for _ in range(TALK_TIMES):
                yield writer.entry("talk", message, writer.pick(head.answers))
    voices = sheet("talk.txt")["unknown"].answers
    for name, head in sheet("outside.txt").items():
        if name.endswith("(new)") == (writer.split == "test"):
            for question in head.known:
                for _ in range(OUTSIDE_TIMES):
                    yield writer.entry("outside", question, writer.pick(voices))


def make_instructions(seed: int) -> list[Entry]:
    """All entries, shuffled: instruction, input, output, task, split, wording."""
    entries, taken = [], set()
    for split in reversed(SPLITS):  # the test chooses first: of few sets of two it needs some
        writer = Writer(split, seed)
        mine = [*fact_entries(writer), *made_entries(writer, taken)]
        if split == "test":
            mine += larger_lists(writer)
        if split != "val":
            mine += talk_entries(writer)
        if split == "test":  # asked once is enough
            mine = list({_question(entry): entry for entry in mine}.values())
        entries += mine
    random.Random(seed).shuffle(entries)
    return entries


# ------------------------------------------------------------------------------- what is right


def voices(answer: str) -> list[str]:
    """All answers that are as right as this one: the voices of its head in `talk.txt`."""
    for head in sheet("talk.txt").values():
        if answer in head.answers:
            return head.answers
    raise ValueError(f"{answer!r} is no answer of talk.txt")


def declines(answer: str) -> bool:
    """Does the answer say that it lies outside the valley?"""
    return answer.strip() in sheet("talk.txt")["unknown"].answers


def is_right(entry: Entry, answer: str) -> bool:
    """Is that a right answer: word for word, in one of the voices, or a possible tale?"""
    if entry["task"] == "continue":
        return explain(f"{entry['input']} {answer}").ways > 0
    if entry["task"] == "tale":
        asked = topics(entry["instruction"])
        return asked <= topics(answer) and explain(answer).ways > 0
    right = voices(entry["output"]) if entry["task"] in VOICED else [entry["output"]]
    return answer.split() in [one.split() for one in right]


def is_new(entry: Entry) -> bool:
    """Is its wording one of those that only the test uses?"""
    heads = {**sheet("wordings.txt"), **sheet("talk.txt")}.items()
    names = [entry["task"]] if entry["task"] != "talk" else [name for name, _ in heads]
    return (
        entry["task"] == "outside"
        and entry["split"] == "test"
        or any(entry["wording"] in head.new for name, head in heads if name.split(".")[0] in names)
    )
