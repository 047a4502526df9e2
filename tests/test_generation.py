"""Writing: the cache, what a token is drawn from, texts that are drawn, and the search for the likeliest."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import CONTEXT, VOCAB, assert_same, both, make_model, random_ids, random_prompts, with_and_without_window

from generation import generate as generate_module
from generation.beam_search import beam_search
from generation.generate import Rules, generate
from generation.kv_cache import KVCache
from generation.sampling import Sampling, draw, penalize, probabilities


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def how(count, options):
    """The Sampling and the Rules that options stand for; without any, tokens are drawn as the model has them."""
    named = {name: options.pop(name) for name in ("end", "banned", "stopped") if name in options}
    drawn = {} if options.get("num_beams", 1) > 1 else {"temperature": 1.0, "top_k": 0}
    return Sampling(**{"max_new_tokens": count} | drawn | options), Rules(**named)


def write(model, prompts, count, keys=None, **options):
    """What generate yields, as one list a row."""
    return [list(row) for row in zip(*generate(model, prompts, *how(count, options), keys), strict=True)]


def search(model, prompts, count, beams, **options):
    """What beam_search finds."""
    return beam_search(model, prompts, *how(count, options | {"num_beams": beams}))


class Recomputed(KVCache):
    """Computes every position again for every token: slow, and the same tokens."""

    def step(self, tokens):
        for row, text in enumerate(self.texts):
            if len(text) == self.model.config.max_seq_len:
                self.texts[row] = text[len(text) // 2 :]
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)
        return self.fill(list(range(len(self.texts))))


# The cache ------------------------------------------------------------------------------------------------------------


@both
@with_and_without_window
@pytest.mark.parametrize("lengths", [(1, 4, 7), (3, 3, 3)])
def test_cached_logits_are_those_of_a_full_forward(arch, window, lengths):
    model, ids = make_model(arch, window_size=window), random_ids(3, CONTEXT)
    expected, places = model(ids), torch.tensor(lengths)
    cache = KVCache(model, [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)])
    logits = cache.fill([0, 1, 2])
    while True:
        assert_same(logits, expected[range(3), places - 1])
        if places.max() == CONTEXT:
            break
        logits = cache.step(ids[range(3), places])
        places += 1


@both
def test_a_row_that_starts_again_leaves_the_others_alone(arch):
    model, ids = make_model(arch), random_ids(3, CONTEXT)
    expected, cache = model(ids), KVCache(model, ids[:, :6].tolist())
    cache.fill([0, 1, 2])
    cache.texts[1] = ids[1, :2].tolist()
    assert_same(cache.fill([1]), expected[1:2, 1])
    assert_same(cache.step(ids[range(3), [6, 2, 6]]), expected[range(3), [6, 2, 6]])


@both
@with_and_without_window
@pytest.mark.parametrize("lengths", [(1, 7, CONTEXT), (4, 4, 4), (CONTEXT,)])
def test_cached_and_uncached_generation_give_the_same_tokens(arch, window, lengths, monkeypatch):
    model, prompts = make_model(arch, window_size=window), random_prompts(*lengths)
    cached = write(model, prompts, 4 * CONTEXT)
    monkeypatch.setattr(generate_module, "KVCache", Recomputed)
    assert cached == write(model, prompts, 4 * CONTEXT)
    assert all(len(set(row)) > 5 for row in cached)


@both
@with_and_without_window
def test_past_the_context_a_row_goes_on_from_its_newest_half(arch, window):
    model, (prompt,) = make_model(arch, window_size=window), random_prompts(5)
    seen, expected = list(prompt), []
    for _ in range(3 * CONTEXT):
        expected.append(model(torch.tensor([seen]))[0, -1].argmax().item())
        if len(seen) == CONTEXT:
            seen = seen[CONTEXT // 2 :]
        seen.append(expected[-1])
    assert write(model, [prompt], 3 * CONTEXT, temperature=0) == [expected]


@pytest.mark.parametrize("context", [2, 3])
def test_the_smallest_contexts_can_be_written_past(context):
    (text,) = write(make_model(max_seq_len=context), [[3]], 9)
    assert len(text) == 9


# Drawing --------------------------------------------------------------------------------------------------------------


def spread(logits, **options):
    """The chances of all tokens (B, V), those that may not be drawn with 0."""
    chances, tokens = probabilities(logits, **options)
    return torch.zeros_like(logits).scatter(-1, tokens.expand(len(logits), -1), chances)


def random_logits(rows=50):
    return 3 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"temperature": 0.3}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 9, "top_p": 0.9}]
)
def test_probabilities_sum_to_1(options):
    chances = spread(random_logits(), **options)
    assert (chances >= 0).all()
    assert_same(chances.sum(-1), torch.ones(50))


def test_temperature_divides_the_logits_and_0_takes_the_likeliest_token():
    logits = random_logits()
    assert_same(spread(logits), logits.softmax(-1))
    assert_same(spread(logits, temperature=2.0), (logits / 2).softmax(-1))
    assert torch.equal(spread(logits, temperature=0), F.one_hot(logits.argmax(-1), VOCAB).float())


@pytest.mark.parametrize("k", [1, 4, VOCAB, VOCAB + 10])
def test_top_k_leaves_the_k_likeliest_tokens_in_their_proportions(k):
    logits = random_logits()
    chances, k = spread(logits, top_k=k), min(k, VOCAB)
    assert ((chances > 0).sum(-1) == k).all()
    kept = logits.softmax(-1).topk(k).values
    assert_same(chances.topk(k).values, kept / kept.sum(-1, keepdim=True))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
def test_top_p_leaves_the_fewest_tokens_that_have_at_least_p(p):
    logits = random_logits()
    for chances, full in zip(spread(logits, top_p=p), logits.softmax(-1), strict=True):
        kept = chances > 0
        assert full[kept].sum() >= p - 1e-6
        assert full[kept].sum() - full[kept].min() < p
        assert not kept.all() and full[kept].min() >= full[~kept].max()
        assert_same(chances[kept], full[kept] / full[kept].sum())


def test_draw_takes_tokens_as_often_as_they_are_likely():
    count, chances = 20_000, torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    uniform = torch.from_numpy(np.random.default_rng(0).random(count, np.float32))
    drawn = torch.bincount(draw(chances.expand(count, -1), torch.arange(7)[None], uniform), minlength=len(chances))
    spread = (count * chances * (1 - chances)).sqrt()
    assert ((drawn - count * chances).abs() <= 4 * spread).all()


@pytest.mark.parametrize("uniform", [0.0, float(np.nextafter(np.float32(1), np.float32(0)))])
@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.6}])
def test_draw_never_takes_a_token_of_probability_0(uniform, options):
    logits = random_logits(500)
    logits[:, [0, 1, VOCAB - 1]] = -math.inf
    drawn = draw(*probabilities(logits, **options), torch.full((500,), uniform))
    assert (spread(logits, **options)[range(500), drawn] > 0).all()


# Writing --------------------------------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_text_and_another_one_another():
    model, prompts = make_model(), random_prompts(2, 5)
    text = write(model, prompts, 30, seed=1)
    assert text == write(model, prompts, 30, seed=1)
    other = write(model, prompts, 30, seed=2)
    assert text[0] != other[0] and text[1] != other[1]
    same_prompt_twice = write(model, [prompts[0]] * 2, 30, seed=1)
    assert same_prompt_twice[0] != same_prompt_twice[1]


@both
@with_and_without_window
def test_the_text_of_a_row_does_not_depend_on_the_rows_beside_it(arch, window):
    model = make_model(arch, window_size=window)
    one, other, long, prompt = random_prompts(1, 6, CONTEXT, 4)
    alone = write(model, [one, prompt], 3 * CONTEXT)[1]
    assert alone == write(model, [other, prompt, long, one], 3 * CONTEXT)[1]
    assert alone == write(model, [prompt, prompt], 3 * CONTEXT)[1]


def test_temperature_top_k_and_top_p_are_heeded():
    model, prompts = make_model(), random_prompts(3, 3)
    likeliest = write(model, prompts, 20, temperature=0)
    assert likeliest == write(model, prompts, 20, top_k=1) == write(model, prompts, 20, top_p=1e-6)
    assert likeliest != write(model, prompts, 20)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_banned_tokens_never_appear(temperature):
    model, prompts = make_model(), random_prompts(3, 3)
    free = set(sum(write(model, prompts, 40, temperature=temperature), []))
    banned = set(sorted(free)[::2])
    text = set(sum(write(model, prompts, 40, temperature=temperature, banned=banned), []))
    assert text and not text & banned


def test_a_row_is_over_after_its_end_and_the_writing_when_all_are():
    model, prompts = make_model(), random_prompts(2, 5, 7)
    endless = write(model, prompts, 60)
    end = next(token for token in range(VOCAB) if len({row.index(token) for row in endless if token in row}) == 3)
    lengths = [row.index(end) + 1 for row in endless]
    expected = [row[:n] + [None] * (max(lengths) - n) for row, n in zip(endless, lengths, strict=True)]
    assert write(model, prompts, 60, end=end) == expected


def test_min_new_tokens_delays_the_end():
    model, (prompt,) = make_model(), random_prompts(4)
    (text,) = write(model, [prompt], 20, temperature=0)
    end = text[0]
    assert write(model, [prompt], 20, temperature=0, end=end) == [[end]]
    (text,) = write(model, [prompt], 20, temperature=0, end=end, min_new_tokens=6)
    assert end not in text[:6] and len(text) > 6

    for parameter in model.parameters():  # now all tokens are equally likely, and the first allowed one is taken
        parameter.zero_()
    assert write(model, [prompt], 20, temperature=0, end=0, banned=[1], min_new_tokens=6) == [[2] * 6 + [0]]


@pytest.mark.parametrize("count", [1, 5])
def test_no_more_than_max_new_tokens_are_written(count):
    assert len(write(make_model(), random_prompts(3), count)[0]) == count


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_prompt_that_is_empty_or_longer_than_the_context_is_refused(length):
    with pytest.raises(ValueError, match=f"1 to {CONTEXT} tokens"):
        write(make_model(), [[1, 2], [1] * length], 5)


def test_weights_in_bfloat16_write_from_a_cache_that_is_float32():
    model, prompts = make_model().bfloat16(), random_prompts(2, 5)
    assert KVCache(model, prompts).keys.dtype == torch.float32
    text = write(model, prompts, 3 * CONTEXT)
    assert len(text) == 2 and all(0 <= token < VOCAB for row in text for token in row)


def test_a_row_is_over_where_the_caller_says_so_of_its_new_ids():
    model, prompts = make_model(), random_prompts(2, 5, 7)
    endless = write(model, prompts, 30)
    wanted = [row[3 * number + 2] for number, row in enumerate(endless)]
    stopped = lambda ids: ids[-1] in wanted and len(ids) > 2
    lengths = [next(n for n in range(3, 31) if stopped(row[:n])) for row in endless]
    expected = [row[:n] + [None] * (max(lengths) - n) for row, n in zip(endless, lengths, strict=True)]
    assert write(model, prompts, 30, stopped=stopped) == expected


def test_the_keys_of_rows_say_what_they_draw_wherever_they_stand():
    model, (one, other) = make_model(), random_prompts(4, 6)
    alone = write(model, [one], 20, seed=3, keys=[7])
    assert alone[0] == write(model, [other, one], 20, seed=3, keys=[2, 7])[1]
    assert alone != write(model, [one], 20, seed=3, keys=[8])


def test_texts_are_drawn_as_often_as_their_probabilities_say():
    """Pairs of tokens, with everything that changes what is drawn, against the same formulas over whole rows."""
    model, (prompt,), count = make_model(), random_prompts(4), 4000
    options = {"temperature": 1.4, "top_k": 9, "top_p": 0.95, "min_p": 0.04, "repetition_penalty": 1.3, "banned": [3]}
    expected, next_chances = {}, {}
    for length in (0, 1):
        for begun in list(next_chances) if length else [()]:
            text = [*prompt, *begun]
            logits = model(torch.tensor([text]))[0, -1]
            for token in set(text):
                logits[token] *= 1.3 if logits[token] < 0 else 1 / 1.3
            logits[3] = -math.inf
            chances = (logits / 1.4).softmax(-1)
            order = chances.argsort(descending=True)[:9]
            kept = chances[order] / chances[order].sum()
            kept = torch.where(kept.cumsum(0) - kept < 0.95, kept, 0)
            kept = torch.where(kept >= 0.04 * kept.max(), kept, 0)
            drawn = {(*begun, int(token)): float(p / kept.sum()) for token, p in zip(order, kept, strict=True) if p}
            before = next_chances.get(begun, 1.0)
            expected |= {pair: before * p for pair, p in drawn.items() if length}
            next_chances |= drawn if not length else {}
    found = list(map(tuple, write(model, [prompt] * count, 2, **options)))
    assert set(found) <= set(expected) and len(expected) > 20
    assert sum(expected.values()) == pytest.approx(1, abs=1e-4)
    for pair, p in expected.items():
        assert abs(found.count(pair) - count * p) <= 4.5 * math.sqrt(count * p * (1 - p)) + 1


# Searching ------------------------------------------------------------------------------------------------------------


def likeliest_of_all(model, prompt, length, *, end=None, banned=(), min_new_tokens=0, repetition_penalty=1.0, stop=()):
    """The text with the highest sum of log-probabilities, by trying every one; stop: ids that end a text."""
    size, texts = model.config.vocab_size, []

    def score(text):
        total, seen = 0.0, set(prompt)
        for place, token in enumerate(text):
            logits = model(torch.tensor([prompt + list(text[:place])]))[0, -1]
            for old in seen - set(banned) - {end}:
                logits[old] *= repetition_penalty if logits[old] < 0 else 1 / repetition_penalty
            logits[list(banned) + ([end] if end is not None and place < min_new_tokens else [])] = -math.inf
            total += logits.log_softmax(-1)[token].item()
            seen.add(token)
        return total

    ends = {end, *stop}
    for count in range(1, length + 1):
        for text in itertools.product(range(size), repeat=count):
            over = text[-1] in ends or count == length
            if over and not ends & set(text[:-1]):
                texts.append(text)
    return list(max(texts, key=score))


@both
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"end": 0},
        {"end": 0, "min_new_tokens": 2},
        {"end": 1, "banned": [2]},
        {"end": 1, "repetition_penalty": 1.5},
        {"end": 2, "stop": [0]},
    ],
)
def test_a_search_with_enough_beams_finds_the_likeliest_text_of_all(arch, options):
    model = make_model(arch, vocab_size=4)
    prompts = [[1, 3], [2], [0, 1, 3, 3, 2]]
    expected = [likeliest_of_all(model, prompt, 3, **options) for prompt in prompts]
    options = dict(options)
    stop = options.pop("stop", ())
    found = search(model, prompts, 3, 16, stopped=lambda ids: ids[-1] in stop, **options)
    assert found == expected


def plain_beam_search(model, prompt, length, beams, end, penalty):
    """The same search for one prompt, with every text computed anew and all candidates looked at."""
    live, over = [(0.0, [])], []
    for _ in range(length):
        longer = []
        for score, text in live:
            logits = model(torch.tensor([prompt + text]))[0, -1]
            for token in {*prompt, *text} - {end}:
                logits[token] *= penalty if logits[token] < 0 else 1 / penalty
            longer += [(score + p, [*text, token]) for token, p in enumerate(logits.log_softmax(-1).tolist())]
        longer.sort(reverse=True)
        over += [(score, text) for score, text in longer[: 2 * beams] if text[-1] == end]
        live = [(score, text) for score, text in longer if text[-1] != end][:beams]
    return max(over + live)[1]


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_a_narrow_search_is_the_plain_one(beams, penalty):
    for seed in range(4):
        model, prompts = make_model(seed=seed, vocab_size=6), [[1, 3], [2, 2, 4], [5]]
        expected = [plain_beam_search(model, prompt, 7, beams, 0, penalty) for prompt in prompts]
        assert search(model, prompts, 7, beams, end=0, repetition_penalty=penalty) == expected


def test_one_beam_is_greedy_and_more_find_texts_at_least_as_likely():
    model, prompts = make_model(), random_prompts(3, 7, CONTEXT)
    assert search(model, prompts, 30, 1) == write(model, prompts, 30, temperature=0)

    def score(prompt, text):
        logits = model(torch.tensor([prompt + text]))[0].log_softmax(-1)
        return sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(text))

    few, many = (search(model, prompts[:1], 8, beams)[0] for beams in (1, 40))
    assert score(prompts[0], many) > score(prompts[0], few)


def test_a_search_does_not_depend_on_the_prompts_beside_it_and_goes_past_the_context():
    model, prompts = make_model(), random_prompts(2, 6, CONTEXT)
    end = search(model, prompts[:1], 9, 3)[0][6]
    options = {"end": end, "min_new_tokens": CONTEXT + 2}
    together = search(model, prompts, 3 * CONTEXT, 3, **options)
    assert together == [search(model, [prompt], 3 * CONTEXT, 3, **options)[0] for prompt in prompts]
    assert min(map(len, together)) > CONTEXT


# Less likely or not at all --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.01, 0.3, 1.0])
def test_min_p_leaves_the_tokens_that_are_not_much_less_likely_than_the_likeliest(p):
    full = random_logits().softmax(-1)
    chances = spread(random_logits(), min_p=p)
    assert torch.equal(chances > 0, full >= p * full.amax(-1, keepdim=True))
    assert_same(chances.sum(-1), torch.ones(50))


def test_the_repetition_penalty_lowers_the_logits_of_what_was_seen():
    logits, seen = torch.tensor([[4.0, -1.0, 3.0, -2.0]]), torch.tensor([[True, True, False, False]])
    assert penalize(logits, seen, 2.0).tolist() == [[2.0, -2.0, 3.0, -2.0]]


def test_a_penalized_text_does_not_depend_on_the_rows_beside_it_that_have_ended():
    model, prompts = make_model(), random_prompts(2, 3, 4, 5)
    alone = [write(model, [prompt], 25, keys=[key], repetition_penalty=3.0)[0] for key, prompt in enumerate(prompts)]
    stopped = lambda ids: any(ids == text[: number + 2] for number, text in enumerate(alone[:3]))
    together = write(model, prompts, 25, stopped=stopped, repetition_penalty=3.0)
    assert [len([t for t in text if t is not None]) for text in together] == [2, 3, 4, 25]
    assert together[3] == alone[3]


def test_a_high_repetition_penalty_writes_every_token_once_but_may_still_end():
    model, (prompt,) = make_model(), [[1, 2]]
    (text,) = write(model, [prompt], 20, temperature=0, repetition_penalty=1e6)
    assert len(set(text) | set(prompt)) == 22
    (plain,) = write(model, [prompt], 20, temperature=0)
    assert len(set(plain)) < 20
    likeliest = lambda prompt, **options: write(model, [prompt], 1, temperature=0, **options)[0][0]
    prompt = next([1, token, 2] for token in range(VOCAB) if likeliest([1, token, 2]) == token)
    assert likeliest(prompt, repetition_penalty=1e6) != prompt[1]
    assert likeliest(prompt, repetition_penalty=1e6, end=prompt[1]) == prompt[1]
