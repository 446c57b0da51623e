"""What every child in the valley knows, as tables, and the lessons that say it in plain sentences.

Pretraining reads the lessons (`facts.txt`), which *state* every fact. Questions with their answers
stand there only for the facts that instruction tuning may ask about too (`fact_splits`): what the
test asks, nothing that a model read has ever answered.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from data.sheets import sheet
from data.world import world


def table(text: str) -> dict[str, str]:
    """'a > b, c > d' → {'a': 'b', 'c': 'd'}."""
    pairs = (pair.split(">") for pair in text.replace("\n", " ").split(","))
    return {left.strip(): right.strip() for left, right in pairs}


def groups(text: str) -> dict[str, str]:
    """Lines 'value: a, b, c' → {'a': 'value', 'b': 'value', 'c': 'value'}."""
    lines = (line.split(":") for line in text.strip().splitlines())
    return {item.strip(): value.strip() for value, items in lines for item in items.split(",")}


def a(noun: str) -> str:
    """The noun behind its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def capital(words: str) -> str:
    """The words with a capital letter at their start."""
    return words[0].upper() + words[1:]


@dataclass(frozen=True)
class FactKind:
    """A table of facts, the statements that say one, and what a lesson about one is headed with.

    {x} is the thing asked about, {y} the answer, {a_x} and {a_y} the same with an article.
    The first statement is the answer that instruction tuning expects. How one asks for a fact
    stands in `wordings.txt`.
    """

    name: str
    pairs: dict[str, str]
    statements: tuple[str, ...]
    topic: str

    def say(self, template: str, x: str) -> str:
        """A template about `x`, with a capital letter at its start."""
        y = self.pairs[x]
        return capital(template.format(x=x, y=y, a_x=a(x), a_y=a(y)))


OPPOSITES = table("""
hot > cold, big > small, fast > slow, old > young, happy > sad, full > empty, open > shut,
dark > bright, wet > dry, loud > quiet, hard > soft, rich > poor, strong > weak, long > short,
thick > thin, clean > dirty, early > late, near > far, high > low, deep > shallow, sweet > sour,
brave > afraid, awake > asleep, first > last, heavy > light, wide > narrow, right > wrong,
true > false, good > bad, kind > cruel, lazy > busy, sharp > blunt, smooth > rough, new > worn,
inside > outside, above > below, left > right side, always > never, everything > nothing,
day > night, summer > winter, north > south, east > west, friend > enemy, question > answer,
begin > end, laugh > cry, push > pull, give > take, buy > sell, win > lose, come > go, rise > fall,
remember > forget, whisper > shout, love > hate
""")
OPPOSITES.pop("left")  # "right" is taken: right > wrong
OPPOSITES |= {y: x for x, y in OPPOSITES.items()}

PLURALS = table("""
mouse > mice, goose > geese, sheep > sheep, foot > feet, tooth > teeth, child > children,
leaf > leaves, knife > knives, wolf > wolves, shelf > shelves, loaf > loaves, man > men,
woman > women, ox > oxen, fish > fish, deer > deer, baby > babies, cherry > cherries, box > boxes,
dish > dishes, bench > benches, potato > potatoes, tomato > tomatoes, fox > foxes, pony > ponies,
story > stories, berry > berries, puppy > puppies, calf > calves, thief > thieves, wife > wives,
half > halves, bush > bushes, brush > brushes, witch > witches, bus > buses, glass > glasses,
penny > pennies, fairy > fairies, party > parties, city > cities, hero > heroes, scarf > scarves,
kite > kites, drum > drums, kettle > kettles, teapot > teapots, ladder > ladders, bell > bells,
bucket > buckets, flute > flutes, hat > hats, map > maps, clock > clocks, spoon > spoons,
boat > boats, pillow > pillows, key > keys, mirror > mirrors, broom > brooms, duck > ducks,
hen > hens, frog > frogs, owl > owls, crow > crows, donkey > donkeys, bear > bears, cow > cows,
apple > apples, egg > eggs, candle > candles, stone > stones, cloud > clouds, door > doors
""")

PASTS = table("""
sing > sang, swim > swam, run > ran, eat > ate, drink > drank, write > wrote, ride > rode,
drive > drove, speak > spoke, break > broke, steal > stole, wake > woke, choose > chose,
freeze > froze, give > gave, come > came, go > went, see > saw, find > found, think > thought,
bring > brought, buy > bought, catch > caught, teach > taught, fight > fought, sleep > slept,
keep > kept, sweep > swept, weep > wept, feel > felt, leave > left, lose > lost, build > built,
send > sent, lend > lent, spend > spent, tell > told, sell > sold, hold > held, stand > stood,
sit > sat, win > won, begin > began, ring > rang, sink > sank, fly > flew, grow > grew,
know > knew, throw > threw, blow > blew, draw > drew, fall > fell, forget > forgot, hide > hid,
bite > bit, meet > met, feed > fed, read > read, cut > cut, put > put, make > made, say > said,
pay > paid, hear > heard, wear > wore, tear > tore, dig > dug, hang > hung, shake > shook,
take > took, paint > painted, wash > washed, mend > mended, polish > polished, carry > carried,
fry > fried, cook > cooked, bake > baked, dance > danced, laugh > laughed, climb > climbed,
jump > jumped, plant > planted, watch > watched, open > opened, lift > lifted, push > pushed,
pull > pulled, visit > visited, follow > followed
""")

SOUNDS = {animal["animal"]: animal["sound"] for animal in world().kinds["animal"]} | table("""
lion > roar, snake > hiss, bee > buzz, wolf > howl, turkey > gobble, dove > coo, cricket > trill,
goat > meh, goose > honk,
dog > woof, crow > caw, donkey > hee-haw, otter > chirp, badger > snort,
cow > moo, pony > neigh, rooster > cock-a-doodle-doo, seal > arf, turtle > nothing at all
""")

YOUNG = table("""
cow > calf, dog > puppy, cat > kitten, sheep > lamb, pig > piglet, duck > duckling, hen > chick,
goose > gosling, frog > tadpole, bear > cub, fox > kit, pony > foal, owl > owlet, goat > kid,
mouse > pup, deer > fawn, swan > cygnet, rabbit > bunny, eagle > eaglet, spider > spiderling,
hare > leveret, eel > elver, butterfly > caterpillar
""")

HOMES = table("""
hen > coop, bee > hive, fox > den, bird > nest, dog > kennel, cow > barn, pig > sty,
pony > stable, rabbit > burrow, spider > web, bear > cave, owl > hollow tree, otter > holt,
mouse > hole, badger > sett, sheep > fold, ant > hill, beaver > lodge, squirrel > drey,
snail > shell, wolf > lair, fish > pond, frog > marsh, goat > pen
""")

KEPT = groups("""
in the kitchen: kettle, teapot, pan, sieve, ladle, apron, rolling pin
in the drawer: spoon, fork, scissors, string, corkscrew, thimble
in the shed: ladder, wheelbarrow, spade, rake, paint, sledge
in the cellar: cheese, jam, cider, barrel, potatoes, coal
on the shelf: clock, map, jar, candle, book, vase
in the wardrobe: scarf, hat, coat, belt, gloves, dress
in the attic: trunk, cradle, violin, old letters, rocking horse, snow shoes
under the bed: slippers, chest, drum, chamber pot, box of buttons, sleeping bag
in the barn: hay, plough, saddle, bucket, milk stool, pitchfork
behind the door: broom, umbrella, mop, boots, walking stick, doormat
""")

JOBS = table("""
baker > bake the bread, miller > grind the flour, painter > paint the fences,
gardener > water the beans, tailor > mend the coats, fiddler > play at weddings,
teacher > teach the little ones, beekeeper > look after the bees, sailor > row the ferry,
blacksmith > make the horseshoes, carpenter > build the chairs, doctor > cure the coughs,
lamplighter > light the lamps, messenger > carry the letters, shepherd > mind the flock,
weaver > weave the cloth, potter > shape the bowls, cobbler > sole the shoes,
clockmaker > wind the clocks, fisher > mend the nets, judge > settle the quarrels,
cook > stir the soup, mason > lay the bricks, librarian > lend the books, barber > trim the beards,
chimney sweep > clean the chimneys, dairymaid > churn the butter, hatter > block the hats,
cooper > make the barrels, locksmith > copy the keys
""")

COLOURS = groups("""
green: grass, moss, the cucumber, the frog prince, the ivy, spinach
yellow: butter, the lemon, straw, the canary, the sunflower, mustard
red: the strawberry, blood, the poppy, the brick, the ladybird, the cherry
white: snow, milk, salt, the swan, the lily, flour
black: coal, soot, tar, the raven, the top hat, ink
blue: the sky, the bluebell, the sea, the forget-me-not, the cornflower, the kingfisher
brown: mud, chocolate, toast, the chestnut, the acorn, bark
orange: the carrot, the pumpkin, the marigold, the fox's tail, rust, the apricot
grey: the donkey, fog, ash, the pebble, the elephant, lead
pink: the piglet, the peony, ham, the flamingo, candy floss, the earthworm
""")

CATEGORIES = groups("""
fruit: apple, pear, plum, cherry, lemon, melon, peach, grape, fig
vegetable: carrot, onion, leek, bean, turnip, pumpkin, cabbage, radish, beetroot
tool: hammer, saw, spade, rake, axe, file, drill, chisel, wrench
instrument: flute, drum, violin, trumpet, harp, horn, cello, banjo, lute
bird: owl, crow, swan, robin, goose, eagle, dove, finch, heron
tree: oak, birch, willow, pine, elm, maple, beech, ash tree, larch
furniture: chair, table, stool, bench, bed, cupboard, desk, sofa, wardrobe
""")

FACTS = (
    FactKind("opposite", OPPOSITES,
             ("the opposite of {x} is {y}.", "{x} is the opposite of {y}.",
              "{x} and {y} are opposites."), "the opposite of {x}"),
    FactKind("plural", PLURALS,
             ("the plural of {x} is {y}.", "one {x}, two {y}.",
              "here is one {x}, and there are many {y}."), "the plural of {x}"),
    FactKind("past_tense", PASTS,
             ("the past tense of {x} is {y}.", "today they {x}, yesterday they {y}.",
              "now we {x}, and long ago we {y}."), "the past tense of {x}"),
    FactKind("sound", SOUNDS,
             ("{a_x} says {y}.", "the {x} says {y}.", "if it says {y}, it is {a_x}."),
             "the sound of {a_x}"),
    FactKind("young", YOUNG,
             ("a young {x} is called {a_y}.", "{a_y} is a young {x}.",
              "{a_y} grows up to be {a_x}."), "the name of a young {x}"),
    FactKind("home", HOMES,
             ("{a_x} lives in {a_y}.", "the home of the {x} is the {y}.",
              "in the {y} lives the {x}."), "the home of {a_x}"),
    FactKind("kept", KEPT,
             ("look for the {x} {y}.", "the {x}? Look {y}.", "{y} you will find the {x}."),
             "the place of the {x}"),
    FactKind("job", JOBS,
             ("it is the {x} who has to {y}.", "to {y} is the work of the {x}.",
              "ask the {x} to {y}."), "the work of the {x}"),
    FactKind("colour", COLOURS,
             ("the colour of {x} is {y}.", "{x} is {y}.", "{y} is the colour of {x}."),
             "the colour of {x}"),
    FactKind("category", CATEGORIES,
             ("{a_x} is a kind of {y}.", "among the kinds of {y} there is the {x}.",
              "the {x} belongs to the group {y}."), "the group of {a_x}"),
)  # fmt: skip

# A lesson may name what it is about before it says it: so a reader learns to take up a word again.
HEADINGS = (
    "The lesson is about {topic}. {said}", "On the board stands {topic}. {said}",
    "Do not forget {topic}. {said}", "Here comes {topic}: {said}",
)  # fmt: skip

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
           "eleven", "twelve")  # fmt: skip

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
STATED, HEADED, ASKED = 3, 6, 4  # how often a fact is said: each statement; under a heading; asked
PER_LESSON = 8


@cache
def fact_splits() -> dict[tuple[str, str], str]:
    """(name of the kind, x) → train, val or test: where instructions may ask about x.

    A pair of opposites shares its split: "hot" in training would tell "cold" in the test.
    """
    rng, splits = random.Random(9), {}
    for kind in FACTS:
        first = {x: min(x, y) if kind.pairs.get(y) == x else x for x, y in kind.pairs.items()}
        items = sorted(set(first.values()))
        items = rng.sample(items, len(items))
        train, val = round(len(items) * SHARES["train"]), round(len(items) * SHARES["val"])
        names = ["train"] * train + ["val"] * val + ["test"] * (len(items) - train - val)
        dealt = dict(zip(items, names, strict=True))
        splits |= {(kind.name, x): dealt[first[x]] for x in kind.pairs}
    return splits


def make_lessons(seed: int) -> list[str]:
    """Lessons of eight sentences each, in which every fact, and the order of the numbers, is said
    in several ways; facts that the test asks are only stated."""
    rng, sentences = random.Random(seed), []
    for kind in FACTS:
        wordings = sheet("wordings.txt")[kind.name].known
        for x in kind.pairs:
            answer = kind.say(kind.statements[0], x)
            sentences += [kind.say(statement, x) for statement in kind.statements] * STATED
            for number in range(HEADED):
                topic = kind.topic.format(x=x, a_x=a(x))
                said = answer[0].lower() + answer[1:] if number % 4 == 3 else answer
                sentences.append(HEADINGS[number % 4].format(topic=topic, said=said))
            if fact_splits()[kind.name, x] == "train":
                for question in rng.sample(wordings, ASKED):
                    sentences.append(f"{kind.say(question, x)} {answer}")
    for low, high in combinations(NUMBERS, 2):
        said = [f"{capital(low)} comes before {high}.", f"{capital(high)} comes after {low}."]
        asked = [f"What comes first, {high} or {low}? {capital(low)} comes first."]
        sentences += (said + asked) * ASKED
    rng.shuffle(sentences)
    return [
        " ".join(sentences[start : start + PER_LESSON])
        for start in range(0, len(sentences), PER_LESSON)
    ]
