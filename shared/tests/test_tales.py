"""Tales as a test: the floor is the grammar's, and recall counts exactly the mentions."""

import math
import random

import pytest
import torch
from torch import Tensor, nn

from data.instructions import is_right
from data.world import entropy_floor, explain, tell_tales, world
from shared.classroom.datasets import load_instructions, load_tales, load_text
from shared.classroom.tales import MarkedTale, TaleTest, cast, floor_nats, mark, retell
from shared.gpt import GPTConfig, GPTModel
from shared.tokenizers import BPETokenizer, course_tokenizer

COUNT = 60  # tales


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return course_tokenizer()


@pytest.fixture(scope="module")
def tales() -> list[str]:
    return tell_tales(COUNT, seed=7)


@pytest.fixture(scope="module")
def test_set(tales: list[str], tokenizer: BPETokenizer) -> TaleTest:
    return TaleTest(tales, tokenizer)


def text_of(tale: MarkedTale, tokenizer: BPETokenizer) -> str:
    return tokenizer.decode(tale.ids[1:-1].tolist())


class Cheat(nn.Module):
    """Knows every tale by heart: of each target it gives the probability of a sure reader.

    `wrong` holds (tale, target) positions at which it says <|endoftext|> + 1 instead.
    """

    def __init__(self, test_set: TaleTest, vocab_size: int, wrong: frozenset = frozenset()) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))  # tells the device, as in any model
        self.tales, self.vocab_size, self.wrong = test_set.tales, vocab_size, wrong

    def forward(self, ids: Tensor) -> Tensor:
        logits = torch.zeros(*ids.shape, self.vocab_size)
        for row, scores in zip(ids, logits, strict=True):
            number = next(
                i
                for i, tale in enumerate(self.tales)
                if torch.equal(row[: len(tale.ids) - 1], tale.ids[:-1])
            )
            for place, target in enumerate(self.tales[number].ids[1:].tolist()):
                miss = (number, place) in self.wrong
                scores[place, (target + 1) % self.vocab_size if miss else target] = 50.0
        return logits


class Uniform(Cheat):
    """Gives every token the same probability."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, self.vocab_size)


# -- marked tales -----------------------------------------------------------------------------


def test_a_marked_tale_is_the_tale_between_two_ends(
    tales: list[str], tokenizer: BPETokenizer
) -> None:
    for tale in tales:
        marked = mark(tale, tokenizer)
        assert marked.ids[0] == marked.ids[-1] == tokenizer.eot_id
        assert text_of(marked, tokenizer) == tale
        assert len(marked.ends) == len(marked.ids) - 1
        assert marked.ends[0] == 0 and marked.ends[-1] == len(tale)
        for target, end in enumerate(marked.ends):
            assert tokenizer.decode(marked.ids[1 : target + 1].tolist()) == tale[:end]


@pytest.mark.parametrize("change", [lambda t: t + " And so on.", lambda t: t[:-20], lambda t: "x"])
def test_a_text_that_the_grammar_cannot_tell_has_no_floor(
    tales: list[str], tokenizer: BPETokenizer, change
) -> None:
    with pytest.raises(ValueError, match="the grammar tells no such tale"):
        mark(change(tales[0]), tokenizer)


def test_recall_positions_are_the_tokens_of_the_mention(
    tales: list[str], tokenizer: BPETokenizer
) -> None:
    kinds, long = set(), 0
    for tale in tales:
        marked, mentions = mark(tale, tokenizer), explain(tale).recalls()
        assert mentions and len(marked.recalls) == len(mentions)
        targets = marked.ids[1:].tolist()
        for (kind, positions), mention in zip(marked.recalls, mentions, strict=True):
            words = tale[mention.start : mention.end]
            assert kind == mention.kind
            assert tokenizer.decode([targets[i] for i in positions]).strip() == words
            assert (
                tokenizer.decode(targets[: positions[0]]).rstrip() == tale[: mention.start].rstrip()
            )
            kinds.add(kind)
            long += len(positions) > 1
    assert {"names", "objects", "colours", "animals", "places"} <= kinds
    assert long  # some mentions have several tokens


def test_recalled_mentions_were_read_before(tales: list[str], tokenizer: BPETokenizer) -> None:
    for tale in tales:
        for mention in explain(tale).recalls():
            if mention.kind in ("names", "objects", "colours", "places"):
                word = tale[mention.start : mention.end].lower()
                assert word in tale[: mention.start].lower(), (word, tale)


# -- the floor --------------------------------------------------------------------------------


def test_floor_of_the_tokens_adds_up_to_the_tale(test_set: TaleTest) -> None:
    for tale in test_set.tales:
        nats = floor_nats(tale)
        assert nats.shape == tale.ids[1:].shape
        assert (nats >= 0).all()
        assert nats.sum().item() == pytest.approx(-tale.reading.log_prob, abs=1e-4)


def test_mean_floor_is_the_floor_of_the_test(test_set: TaleTest, tales: list[str]) -> None:
    nats = torch.cat([floor_nats(tale) for tale in test_set.tales])
    assert len(nats) == test_set.tokens
    assert nats.mean().item() == pytest.approx(test_set.floor, abs=1e-5)
    assert entropy_floor(tales, test_set.tokens) == pytest.approx(test_set.floor)
    assert 0.05 < test_set.floor < 1.0  # a tale says something, and much of it can be known


def test_what_must_be_recalled_costs_nothing(test_set: TaleTest) -> None:
    for tale in test_set.tales:
        nats = floor_nats(tale)
        for kind, positions in tale.recalls:
            assert nats[list(positions)].sum() < 0.002, kind
    # while where a tale begins, nobody can know who it is about
    assert all(floor_nats(tale)[:3].sum() > 1 for tale in test_set.tales)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_the_costs_of_finding_out_add_up_to_the_mixture_floor(
    tales: list[str], tokenizer: BPETokenizer, share: float
) -> None:
    """A reader who expects tales, and rhymes: M = share · P(tale) + (1 − share) · P(rhyme)."""
    rhymes, costs, few = load_text("rhymes.txt").splitlines(), [], tales[:4]
    for marked in (mark(tale, tokenizer) for tale in few):
        tale = text_of(marked, tokenizer)
        log_mass = marked.reading.log_mass()
        begun = [tale[:end] for end in marked.ends]
        rhyming = [sum(rhyme.startswith(text) for rhyme in rhymes) / len(rhymes) for text in begun]
        rhyming.append(rhymes.count(tale) / len(rhymes))  # that it is over is read, too
        telling = [math.exp(log_mass[end]) for end in (*marked.ends, -1)]
        read = [share * p + (1 - share) * q for p, q in zip(telling, rhyming, strict=True)]
        assert read[0] == pytest.approx(1) and rhyming[0] == 1
        nats = [math.log(before / after) for before, after in zip(read, read[1:], strict=False)]
        assert len(nats) == len(marked.ids) - 1 and min(nats) > -1e-9
        costs += nats
        found_out = sum(nats[:20]) - floor_nats(marked)[:20].sum().item()
        assert found_out == pytest.approx(-math.log(share), abs=1e-4)  # soon, and once for all
    test_set = TaleTest(few, tokenizer)
    assert sum(costs) / len(costs) == pytest.approx(test_set.mixture_floor(share))


def test_where_all_are_tales_there_is_nothing_to_find_out(test_set: TaleTest) -> None:
    assert test_set.mixture_floor(1) == test_set.floor
    assert test_set.mixture_floor(0.9) < test_set.mixture_floor(0.3)
    for share in (0, -0.5, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"share is {share}; it must lie above 0"):
            test_set.mixture_floor(share)


# -- models put to the test -------------------------------------------------------------------


def test_a_model_that_knows_the_tales_recalls_all(
    test_set: TaleTest, tokenizer: BPETokenizer
) -> None:
    result = test_set(Cheat(test_set, tokenizer.vocab_size))
    assert result.pop("val_loss") == pytest.approx(0, abs=1e-6)
    assert set(result) == {kind for tale in test_set.tales for kind, _ in tale.recalls}
    assert set(result.values()) == {1.0}


def test_one_wrong_token_loses_its_mention(test_set: TaleTest, tokenizer: BPETokenizer) -> None:
    number, (kind, positions) = next(
        (i, recall)
        for i, tale in enumerate(test_set.tales)
        for recall in tale.recalls
        if len(recall[1]) > 1
    )
    mentions = sum(k == kind for tale in test_set.tales for k, _ in tale.recalls)
    for wrong in positions:  # whichever of the mention's tokens it is
        model = Cheat(test_set, tokenizer.vocab_size, frozenset({(number, wrong)}))
        result = test_set(model)
        assert result.pop(kind) == pytest.approx(1 - 1 / mentions)
        assert result.pop("val_loss") == pytest.approx(50 / test_set.tokens, rel=1e-4)
        assert set(result.values()) == {1.0}


def test_a_wrong_token_elsewhere_costs_no_recall(
    test_set: TaleTest, tokenizer: BPETokenizer
) -> None:
    recalled = {place for _, positions in test_set.tales[0].recalls for place in positions}
    free = set(range(len(test_set.tales[0].ids) - 1)) - recalled
    wrong = frozenset((0, place) for place in free)
    result = test_set(Cheat(test_set, tokenizer.vocab_size, wrong))
    assert result.pop("val_loss") > 0.1
    assert set(result.values()) == {1.0}


def test_a_uniform_model_loses_the_logarithm_of_the_vocabulary(
    test_set: TaleTest, tokenizer: BPETokenizer
) -> None:
    result = test_set(Uniform(test_set, tokenizer.vocab_size))
    assert result.pop("val_loss") == pytest.approx(math.log(tokenizer.vocab_size), rel=1e-5)
    assert set(result.values()) == {0.0}  # its first choice is always token 0


def test_no_batch_size_changes_the_result(tales: list[str], tokenizer: BPETokenizer) -> None:
    torch.manual_seed(0)
    sizes = {"emb_dim": 32, "n_heads": 4, "n_layers": 2, "drop_rate": 0.3}
    model = GPTModel(GPTConfig(tokenizer.vocab_size, 256, **sizes)).train()
    results = [TaleTest(tales[:12], tokenizer, batch_size)(model) for batch_size in (1, 5, 12)]
    assert results[0] == pytest.approx(results[1], abs=1e-5)
    assert results[0] == pytest.approx(results[2], abs=1e-5)
    assert model.training  # restored, and off meanwhile: dropout would have shown
    assert results[0]["val_loss"] == pytest.approx(math.log(tokenizer.vocab_size), abs=0.5)


def test_tales_fit_into_the_context_of_the_course_model(tokenizer: BPETokenizer) -> None:
    longest = max(len(tokenizer.encode(tale)) + 1 for tale in load_tales("val"))
    assert longest <= GPTConfig.preset("course").context_length


def test_no_tales_are_refused(tokenizer: BPETokenizer) -> None:
    with pytest.raises(ValueError, match="no tales to test with: give at least one"):
        TaleTest([], tokenizer)


def test_slots_of_one_kind_never_share_a_value_whatever_is_asked_for():
    rng, grammar = random.Random(1), world()
    for kind, entries in grammar.kinds.items():
        slots = grammar.slots_of(kind)
        for value in [entry[kind] for entry in entries] if slots else ():
            chosen = [cast({slots[0]: value}, rng) for _ in range(30)]
            assert all(one[slots[0]] == value for one in chosen)
            for one in chosen:
                assert len({one[slot] for slot in slots}) == len(slots)
            # The first part is not told apart by luck: no other part ever comes from its share.
            shares = [{one[slot] for one in chosen} for slot in slots[1:]]
            assert all(not a & b for i, a in enumerate(shares) for b in shares[:i])


def test_a_request_is_answered_by_another_tale_each_time_and_always_rightly():
    rng = random.Random(2)
    requests = [entry for entry in load_instructions("train") if entry["task"] == "tale"]
    for entry in rng.sample(requests, 60):
        told = [retell(entry, rng) for _ in range(3)]
        assert len({one["output"] for one in told} | {entry["output"]}) == 4
        for one in told:
            assert one | {"output": entry["output"]} == entry and is_right(one, one["output"])
