"""The cache of keys and values: text is the same with and without it, also past the context."""

import pytest
import torch
from tiny import (
    CONTEXT,
    VOCAB,
    assert_same,
    both,
    make_model,
    random_ids,
    random_prompts,
    with_and_without_window,
    write,
)

from generation import generate as generate_module
from generation.kv_cache import KVCache

pytestmark = pytest.mark.usefixtures("no_gradients")


class Recomputed(KVCache):
    """Computes every position again for every token: slow, but with the same result."""

    def step(self, tokens):
        for row, text in enumerate(self.texts):
            if len(text) == self.model.config.max_seq_len:
                self.texts[row] = text[len(text) // 2 :]
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)
        return self.fill(list(range(len(self.texts))))


@pytest.mark.parametrize(
    ("arch", "window", "lengths"),
    [  # every pair of values from two columns occurs
        ("gpt2", None, (1, 4, 7)), ("gpt2", 1, (3, 3, 3)), ("gpt2", 5, (1, 4, 7)),
        ("llama", None, (3, 3, 3)), ("llama", 1, (1, 4, 7)), ("llama", 5, (3, 3, 3)),
    ],
)  # fmt: skip
def test_cached_logits_equal_those_of_a_full_forward_pass(arch, window, lengths):
    model, ids = make_model(arch, window_size=window), random_ids(3, CONTEXT)
    expected = model(ids)
    places = torch.tensor(lengths)
    cache = KVCache(model, [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)])
    logits = cache.fill([0, 1, 2])
    while True:
        assert_same(logits, expected[range(3), places - 1])
        if places.max() == CONTEXT:
            break
        logits = cache.step(ids[range(3), places])
        places += 1


@both
def test_restarting_a_row_does_not_change_the_others(arch):
    model, ids = make_model(arch), random_ids(3, CONTEXT)
    expected, cache = model(ids), KVCache(model, ids[:, :6].tolist())
    cache.fill([0, 1, 2])
    cache.texts[1] = ids[1, :2].tolist()
    assert_same(cache.fill([1]), expected[1:2, 1])
    assert_same(cache.step(ids[range(3), [6, 2, 6]]), expected[range(3), [6, 2, 6]])


@pytest.mark.parametrize(
    ("arch", "window", "lengths"),
    [  # every pair of values from two columns occurs
        ("gpt2", None, (1, 7, CONTEXT)), ("llama", None, (4, 4, 4)), ("gpt2", None, (CONTEXT,)),
        ("llama", 1, (1, 7, CONTEXT)), ("gpt2", 1, (4, 4, 4)), ("llama", 1, (CONTEXT,)),
        ("gpt2", 5, (1, 7, CONTEXT)), ("llama", 5, (4, 4, 4)), ("gpt2", 5, (CONTEXT,)),
    ],
)  # fmt: skip
def test_cached_and_uncached_generation_give_the_same_tokens(arch, window, lengths, monkeypatch):
    model, prompts = make_model(arch, window_size=window), random_prompts(*lengths)
    cached = write(model, prompts, 4 * CONTEXT)
    monkeypatch.setattr(generate_module, "KVCache", Recomputed)
    assert cached == write(model, prompts, 4 * CONTEXT)
    assert all(len(set(row)) > 5 for row in cached)


@both
@with_and_without_window
def test_past_the_context_a_row_continues_from_its_newer_half(arch, window):
    model, (prompt,) = make_model(arch, window_size=window), random_prompts(5)
    seen = list(prompt)
    expected = []
    for _ in range(3 * CONTEXT):
        expected.append(model(torch.tensor([seen]))[0, -1].argmax().item())
        if len(seen) == CONTEXT:
            seen = seen[CONTEXT // 2 :]
        seen.append(expected[-1])
    assert write(model, [prompt], 3 * CONTEXT, temperature=0) == [expected]


@pytest.mark.parametrize("context", [2, 3])
def test_a_text_can_exceed_the_smallest_contexts(context):
    (text,) = write(make_model(max_seq_len=context), [[3]], 9)
    assert len(text) == 9


def test_with_bfloat16_weights_the_cache_is_float32():
    model, prompts = make_model().bfloat16(), random_prompts(2, 5)
    assert KVCache(model, prompts).keys.dtype == torch.float32
    text = write(model, prompts, 3 * CONTEXT)
    assert len(text) == 2 and all(0 <= token < VOCAB for row in text for token in row)
