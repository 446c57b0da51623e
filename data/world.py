"""The grammar behind the tales: it tells them, and knows exactly how likely each one is.

`world.txt` holds the ingredients. Telling a tale is a chain of equally likely choices, so the
probability of a tale is a product, and its logarithm a sum. Reading works backwards: `explain`
follows every way in which the grammar could have told a text. Where two ways part, part of the
probability leaves the text, and where it leaves is how surprising the text had to be there. That
gives the entropy floor: the cross-entropy of a reader who knows the grammar by heart
(Shannon 1948). No model can do better on average.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PART = re.compile(r"<([\w.?]+)>|\{(\w+)(?:\.(\w+))?\}|([^<{]+)")

# What a repeated mention asks a reader to recall; forms such as {hero.he} have kinds of their own.
RECALL_KINDS = {"name": "names", "thing": "objects", "colour": "colours", "animal": "animals",
                "place": "places", "food": "foods"}  # fmt: skip
FORM_KINDS = {"he": "pronouns", "his": "pronouns", "him": "pronouns", "sound": "sounds"}


@dataclass(frozen=True)
class Part:
    """A piece of a line: fixed text, a rule to continue with, or a slot in some form."""

    text: str = ""
    rule: str = ""
    slot: str = ""
    form: str = ""


@dataclass(frozen=True)
class Mention:
    """A place where a tale repeats an earlier choice: characters start … end of the tale."""

    start: int
    end: int
    kind: str


@dataclass
class Reading:
    """What the grammar knows about one text.

    log_prob   natural logarithm of its probability (-inf for a text the grammar cannot tell)
    ways       in how many ways the grammar can tell it (1 for every tale: it is unambiguous)
    mentions   repeated mentions, in order
    leaving    leaving[i]: probability of all tales that agree on text[:i] and then differ
    """

    log_prob: float
    ways: int
    mentions: list[Mention]
    leaving: list[float] = field(repr=False)

    def log_mass(self) -> list[float]:
        """log P(a tale begins with text[:i]) for i = 0 … len(text), then log P(text) itself."""
        mass, masses = math.exp(self.log_prob), []
        for probability in [0.0, *reversed(self.leaving)]:
            mass += probability
            masses.append(mass)
        return [math.log(mass) if mass else -math.inf for mass in reversed(masses)]

    def surprise(self, start: int, end: int) -> float:
        """Nats that text[start:end] must cost a reader who knows the grammar and text[:start].

        `end` = len(text) + 1 includes the end of the tale. Infinite where no tale goes on like
        this; not a number (nan) when already text[:start] begins no tale.
        """
        log_mass = self.log_mass()
        return log_mass[start] - log_mass[end]

    def recalls(self) -> list[Mention]:
        """The mentions that are certain (probability ≥ 0.999) once the tale is read so far."""
        log_mass = self.log_mass()  # -inf only for a text that cannot be told, without mentions
        return [m for m in self.mentions if log_mass[m.start] - log_mass[m.end] < 0.001]


class Grammar:
    """Rules and slots read from a text like `world.txt`; tells tales and explains them."""

    def __init__(self, source: str) -> None:
        self.kinds: dict[str, list[dict[str, str]]] = {}
        self.slots: dict[str, str] = {}
        self.rules: dict[str, list[list[Part]]] = {}
        self._read(source)
        self._check()

    def _read(self, source: str) -> None:
        head = ""
        for line in source.splitlines():
            words = line.split()
            if not words or line.startswith("#"):
                continue
            if not line.startswith(" "):
                if len(words) == 1:
                    raise ValueError(f"{line!r} has no name: write `{line} NAME`")
                head, name, rest = words[0], words[1].rstrip(":"), line.partition(":")[2]
                if head == "kind":
                    forms = [form.strip() for form in rest.split("|")]
                    entries = self.kinds.setdefault(name, [])
                elif head == "slot":
                    for slot in line.partition(":")[0].split()[1:]:
                        self.slots[slot] = rest.strip()
                elif head == "rule":
                    # A rule that may stay silent brings its own space with every line.
                    entries = self.rules.setdefault(name, [[]] if name.endswith("?") else [])
                else:
                    raise ValueError(f"{line!r} begins with {head!r}, not kind, slot or rule")
            elif head == "kind":
                values = [value.strip() for value in line.split("|")]
                if len(values) != len(forms):
                    raise ValueError(
                        f"{line.strip()!r} has {len(values)} forms, but kind {name} has "
                        f"{len(forms)}: {' | '.join(forms)}"
                    )
                entries.append(dict(zip(forms, values, strict=True)))
            elif head != "rule":
                raise ValueError(f"{line.strip()!r} is indented, but stands under no kind or rule")
            else:
                space = " " if name.endswith("?") else ""
                entries.append(parse_line(space + line.strip()))

    def _check(self) -> None:
        if "tale" not in self.rules:
            raise ValueError("the grammar has no rule tale, with which every tale begins")
        for kind in set(self.slots.values()):
            slots = self.slots_of(kind)
            if len(self.kinds.get(kind, [])) < len(slots):
                raise ValueError(
                    f"{len(slots)} slots ({', '.join(slots)}) of kind {kind} need as many values, "
                    f"but there are {len(self.kinds.get(kind, []))}"
                )
        for name, lines in self.rules.items():
            if not any(lines):
                raise ValueError(f"rule {name} has no lines")
            for part in (part for line in lines for part in line):
                if part.rule and part.rule not in self.rules:
                    raise ValueError(f"rule {name} continues with <{part.rule}>, which is missing")
                if part.slot and part.slot not in self.slots:
                    raise ValueError(f"rule {name} uses {{{part.slot}}}, which is no slot")
                if part.form and part.form.lower() not in self.kinds[self.slots[part.slot]][0]:
                    raise ValueError(f"rule {name} uses {{{part.slot}.{part.form}}}: no such form")
            self._check_end(name, ())

    def _check_end(self, name: str, path: tuple[str, ...]) -> None:
        """Refuse a rule that leads back to itself: its tale might never end."""
        if name in path:
            raise ValueError(f"rule {name} leads back to itself: {' > '.join((*path, name))}")
        for part in (part for line in self.rules[name] for part in line):
            if part.rule in self.rules:
                self._check_end(part.rule, (*path, name))

    def slots_of(self, kind: str) -> list[str]:
        """The slots that are filled with values of a kind, in the order of the grammar."""
        return [slot for slot, its_kind in self.slots.items() if its_kind == kind]

    def _spoken(self, slot: str, form: str, value: int) -> str:
        """The words for a slot's choice, in one of its forms."""
        kind = self.slots[slot]
        entry = self.kinds[kind][value]
        words = entry[form.lower() or kind]
        return words[0].upper() + words[1:] if form[:1].isupper() else words

    def _options(self, slot: str, chosen: dict[str, int]) -> list[int]:
        """Choices still open: slots of one kind never share a value."""
        kind = self.slots[slot]
        taken = {value for other, value in chosen.items() if self.slots[other] == kind}
        return [value for value in range(len(self.kinds[kind])) if value not in taken]

    def tell(
        self, rng: random.Random, start: str = "tale", about: Mapping[str, str] | None = None
    ) -> str:
        """Sample one tale, or one text of another rule ("rhyme").

        `about` makes choices beforehand, {"animal": "owl"}. A slot that it names and the text does
        not use still keeps its value from other slots of its kind. Raises ValueError for a value
        that a slot does not have.
        """
        chosen: dict[str, int] = {}
        for slot, value in (about or {}).items():
            values = [entry[self.slots[slot]] for entry in self.kinds[self.slots[slot]]]
            if value not in values:
                raise ValueError(f"{slot} is {value!r}; it must be one of {', '.join(values)}")
            chosen[slot] = values.index(value)

        def expand(line: list[Part]) -> Iterator[str]:
            for part in line:
                if part.rule:
                    yield from expand(rng.choice(self.rules[part.rule]))
                elif part.slot:
                    if part.slot not in chosen:
                        chosen[part.slot] = rng.choice(self._options(part.slot, chosen))
                    yield self._spoken(part.slot, part.form, chosen[part.slot])
                else:
                    yield part.text

        return "".join(expand(rng.choice(self.rules[start])))

    def explain(self, text: str) -> Reading:
        """Follow every way to tell `text`; see `Reading` for what comes out."""
        leaving = [0.0] * (len(text) + 1)
        found: list[tuple[float, list[Mention]]] = []

        def follow(words: str, at: int, probability: float) -> int | None:
            """Position behind `words`, or None where they part from the text."""
            if text.startswith(words, at):
                return at + len(words)
            leaving[at + common_prefix(words, text[at : at + len(words)])] += probability
            return None

        def walk(at: int, todo: tuple, chosen: dict[str, int], probability: float, trail: tuple):
            while todo:
                part, todo = todo
                if part.rule:
                    lines = self.rules[part.rule]
                    for line in lines:
                        walk(at, chain(line, todo), chosen, probability / len(lines), trail)
                    return
                if part.slot and part.slot not in chosen:
                    options = self._options(part.slot, chosen)
                    share = probability / len(options)
                    for value in options:
                        end = follow(self._spoken(part.slot, part.form, value), at, share)
                        if end is not None:
                            walk(end, todo, chosen | {part.slot: value}, share, trail)
                    return
                words = part.text
                if part.slot:
                    words = self._spoken(part.slot, part.form, chosen[part.slot])
                end = follow(words, at, probability)
                if end is None:
                    return
                if part.slot:
                    kind = FORM_KINDS.get(part.form.lower()) or RECALL_KINDS.get(
                        self.slots[part.slot], ""
                    )
                    if kind:
                        trail = (trail, Mention(at, end, kind))
                at = end
            if at == len(text):
                found.append((probability, trail))
            else:
                leaving[at] += probability

        walk(0, (Part(rule="tale"), ()), {}, 1.0, ())
        total = sum(probability for probability, _ in found)
        mentions: list[Mention] = []
        trail = found[0][1] if found else ()
        while trail:
            trail, mention = trail
            mentions.append(mention)
        log_prob = math.log(total) if found else -math.inf
        return Reading(log_prob, len(found), mentions[::-1], leaving)

    def log_prob(self, tale: str) -> float:
        """Natural logarithm of the probability that the grammar tells exactly this tale."""
        return self.explain(tale).log_prob


def parse_line(line: str) -> list[Part]:
    """Cut a grammar line into its parts."""
    matches = list(PART.finditer(line))
    if "".join(match[0] for match in matches) != line:
        raise ValueError(f"{line.strip()!r} has a bracket or brace that does not match")
    return [
        Part(text=text or "", rule=rule or "", slot=slot or "", form=form or "")
        for rule, slot, form, text in (match.groups() for match in matches)
    ]


def chain(line: Sequence[Part], rest: tuple) -> tuple:
    """`line` in front of the linked list `rest`."""
    for part in reversed(line):
        rest = (part, rest)
    return rest


def common_prefix(a: str, b: str) -> int:
    """Number of characters that two strings share from the start."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


@cache
def world() -> Grammar:
    """The grammar of the valley, from `world.txt`."""
    return Grammar((Path(__file__).parent / "world.txt").read_text(encoding="utf-8"))


def explain(tale: str) -> Reading:
    """What the valley's grammar knows about one tale."""
    return world().explain(tale)


def entropy_floor(tales: Iterable[str], tokens: int | None = None) -> float:
    """Mean nats per tale, or per token when the tales' total number of tokens is given.

    Count one end-of-text token per tale: that the tale is over is part of what it says.
    """
    nats = [-world().log_prob(tale) for tale in tales]
    return sum(nats) / (len(nats) if tokens is None else tokens)


def tell_tales(
    count: int, seed: int, without: Iterable[str] = (), start: str = "tale"
) -> list[str]:
    """`count` different tales (or texts of another rule), none of them in `without`."""
    rng, told, tales = random.Random(seed), set(without), []
    while len(tales) < count:
        tale = world().tell(rng, start)
        if tale not in told:
            told.add(tale)
            tales.append(tale)
    return tales
