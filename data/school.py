"""What the children of the valley practise: to say again, and to find what was said.

Two kinds of documents for pretraining (`school.txt`): words repeated after the teacher, and small
stories with questions, in the wordings that `wordings.txt` calls known. Facts are never asked here.
"""

from __future__ import annotations

from data.facts import capital
from data.instructions import ALL_GUESTS, STORY_ANSWERS, WORDS, Writer, small_story, values
from data.sheets import sheet

STORIES, REPEATS = 2400, 1800

REPEATED = (
    '"{one}," said the teacher. "{one}," said the class.',
    "Say {one}. {one}",
    "The word was {one}. Say it again: {one}.",
    "First came {one} and then came {two}. What came first? {One}. What came then? {Two}.",
    "I like the word {one}, and you like the word {two}. What do I like? The word {one}.",
    "On the board stood {one}, {two}, {three}. In the middle stood {two}, at the end {three}.",
    "Read the words: {one}, {two}, {three}. Once more: {one}, {two}, {three}.",
)


def reading(writer: Writer) -> str:
    """A small story, and four questions about it with their answers."""
    text, words = small_story(writer)
    said = [text]
    for head in writer.rng.sample(sorted(STORY_ANSWERS), 4):
        question = writer.pick(sheet("wordings.txt")[head].known).format(**words)
        said.append(f"{question} {STORY_ANSWERS[head].format(**words)}")
    return " ".join(said)


def repeating(writer: Writer) -> str:
    """Five times words that are said again."""
    said = []
    pool = (*WORDS, *2 * values("name"), *4 * ALL_GUESTS)  # names matter most: they must be found
    for _ in range(5):
        while len({*(drawn := writer.rng.sample(pool, 3))}) < 3:
            pass
        one, two, three = drawn
        words = {"one": one, "two": two, "three": three, "One": capital(one), "Two": capital(two)}
        said.append(writer.pick(REPEATED).format(**words))
    return " ".join(said)


def make_school(seed: int) -> list[str]:
    """All documents, in a random order."""
    writer = Writer("school", seed)
    made = [reading(writer) for _ in range(STORIES)] + [repeating(writer) for _ in range(REPEATS)]
    writer.rng.shuffle(made)
    return made
