"""The content of the page inside.html: numbers and texts as plain lists and dicts, which JSON can hold.

In reading order: what is about one text (`of_text`: losses, attention, the logit lens); what is measured on many
stories (`of_heads`, `of_parts`, `of_embeddings`); `of_writing`, a story with and without some parts.
"""

import math

import torch

from common.console import log
from common.devices import Precision
from common.errors import UserError
from common.text import without_controls
from data import Tokenizer
from generation.prompts import story_prompt
from generation.writer import Writer
from inside.ablation import ablate
from inside.embeddings import KINDS, is_word, kind_of, nearest_tokens, principal_components
from inside.heads import head_scores, label_of
from inside.parts import Part, all_left_out
from inside.recording import Recording, logit_lens, record
from inside.stories import Batch, Story, batches_of
from model import IGNORED, Transformer

STORIES_FOR_HEADS = 40  # enough for a mean; each is read on its own
MOST_ATTENTION = 30_000_000  # numbers, all heads together
LIKELIEST = 10  # tokens that are listed at each place
WORDS_ON_THE_MAP = 300
MOST_TOKENS = 10_000  # whose neighbours are listed


def of_text(ids: list[int], model: Transformer, tokenizer: Tokenizer, place: str = "--text") -> dict:
    """Return all that is about one text: its losses, the attention, the logit lens.

    ids: `<bos> text`.  place: where the text is from, for the UserError if the page would be too large.
    """
    numbers = len(ids) ** 2 * model.config.num_layers * model.config.num_heads
    if numbers > MOST_ATTENTION:
        size = numbers * 4 / 3 / 1e6  # in base64
        raise UserError(f"{place}: {len(ids)} tokens would make a page of {size:,.0f} MB; shorten it")
    recording = record(model, ids)
    content = of_tokens(ids, recording, tokenizer) | of_layers(ids, model, recording, tokenizer)
    return content | {"attention": of_attention(recording.attention)}


def readable(token: int, tokenizer: Tokenizer) -> str:
    """Return a token as text; its bytes if it is only a part of a character."""
    for name, number in tokenizer.special.items():
        if token == number:
            return name
    text = tokenizer.decode([token])
    return f"(part of a character: {tokenizer.bytes_of(token).hex(' ')})" if "\ufffd" in text else text


def of_tokens(ids: list[int], recording: Recording, tokenizer: Tokenizer) -> dict:
    """Return the loss, the rank and the likeliest alternatives of each token; None for the first, which is given."""
    logarithms = recording.logits[:-1].log_softmax(-1)  # (T - 1, V); row i predicts token i + 1
    right = torch.tensor(ids[1:])[:, None]
    own = logarithms.gather(1, right)
    ranks = (logarithms > own).sum(-1) + 1
    values, tokens = logarithms.exp().topk(min(LIKELIEST, logarithms.size(-1)))
    alternatives = [
        [[readable(token, tokenizer), round(value, 5)] for token, value in zip(*row, strict=True)]
        for row in zip(tokens.tolist(), values.tolist(), strict=True)
    ]
    return {
        "tokens": [readable(token, tokenizer) for token in ids],
        "loss": [None, *rounded((-own[:, 0]).tolist())],
        "rank": [None, *ranks.tolist()],
        "alternatives": [None, *alternatives],
    }


def of_layers(ids: list[int], model: Transformer, recording: Recording, tokenizer: Tokenizer) -> dict:
    """Return the logit lens: for each layer, the likeliest next token at each place, and the loss of the right one."""
    right = torch.tensor(ids[1:])[:, None]
    likeliest = []
    losses = []
    for state in recording.states:
        logarithms = logit_lens(model, state).log_softmax(-1)  # (T, V)
        values, tokens = logarithms.max(-1)
        row = zip(tokens.tolist(), values.exp().tolist(), strict=True)
        likeliest.append([[readable(token, tokenizer), round(value, 5)] for token, value in row])
        own = logarithms[:-1].gather(1, right)[:, 0]
        losses.append([*rounded((-own).tolist()), None])
    return {"lens": likeliest, "lens_loss": losses}


def of_attention(attention: torch.Tensor) -> list[list[list[list[float]]]]:
    """Return attention (L, H, T, T) as lists [layer][head][row]; a row ends with the token itself."""
    lists = attention.tolist()
    return [[[rounded(row[: place + 1]) for place, row in enumerate(head)] for head in layer] for layer in lists]


def of_model(model: Transformer, tokenizer: Tokenizer, stories: list[Story]) -> dict:
    """Return all that is measured on many stories: what the heads do, what each part is worth, the embeddings."""
    device = model.tokens.weight.device
    batches = list(batches_of(stories, device))
    log.info("measuring what each head does")
    heads = of_heads(model, stories[:STORIES_FOR_HEADS])
    log.info("leaving out each head and each layer in turn")
    ablation = of_parts(model, batches, Precision(device, amp=None))
    return {"heads": heads, "ablation": ablation, "embeddings": of_embeddings(model, batches, tokenizer)}


def of_heads(model: Transformer, stories: list[Story]) -> list[dict]:
    """Return the scores of each head, and the label that they give it."""
    scores = head_scores(model, stories)
    rows = []
    for layer in range(model.config.num_layers):
        for head in range(model.config.num_heads):
            own = {kind: round(values[layer, head].item(), 4) for kind, values in scores.items()}
            rows.append({"layer": layer, "head": head, "label": label_of(own), "scores": own})
    return rows


def of_parts(model: Transformer, batches: list[Batch], precision: Precision) -> dict:
    """Return how the losses rise without each part."""
    base, rises = ablate(model, batches, precision)
    rows = []
    for rise in rises:
        row = {"part": str(rise.part), "zero": rise.zero.all, "mean": rise.mean.all}
        row |= {"names_zero": rise.zero.names, "names_mean": rise.mean.names}
        rows.append({name: value if name == "part" else round(value, 5) for name, value in row.items()})
    tokens = sum((batch.targets != IGNORED).sum().item() for batch in batches)
    return {"loss": base.all, "names_loss": base.names, "tokens": tokens, "rows": rows}


def of_writing(writer: Writer, prompt: str, parts: list[Part]) -> dict:
    """Return a story written by the whole network, and the same without some parts."""
    ids = story_prompt(writer, prompt)
    (whole,) = writer.write([ids], [0])
    with all_left_out(writer.model, parts):
        (less,) = writer.write([ids], [0])
    texts = {"with_them": prompt + without_controls(whole.text), "without_them": prompt + without_controls(less.text)}
    return {"parts": [str(part) for part in parts], "prompt": prompt} | texts


def of_embeddings(model: Transformer, batches: list[Batch], tokenizer: Tokenizer) -> dict:
    """Return a map of the words that are most frequent in the stories, and the nearest tokens of each token."""
    counts = torch.zeros(tokenizer.vocab_size, dtype=torch.long)
    for batch in batches:
        read = batch.ids[batch.targets != IGNORED].cpu()
        counts += torch.bincount(read, minlength=tokenizer.vocab_size)
    vectors = model.tokens.weight.detach().cpu()
    texts = readable_tokens(counts, tokenizer)
    on_the_map = [token for token in texts if is_word(texts[token]) and counts[token]][:WORDS_ON_THE_MAP]
    if len(on_the_map) < 3:
        return {}
    places, variance = principal_components(vectors[on_the_map])
    drawn = []
    for token, (x, y) in zip(on_the_map, places.tolist(), strict=True):
        kind = kind_of(texts[token].strip())
        drawn.append({"token": texts[token], "x": round(x, 4), "y": round(y, 4), "kind": kind})
    near = nearest_tokens(vectors, list(texts))
    neighbours = {
        texts[token]: [[texts[other], round(cosine, 4)] for other, cosine in row] for token, row in near.items()
    }
    return {"words": drawn, "kinds": list(KINDS), "variance": rounded(variance), "neighbours": neighbours}


def readable_tokens(counts: torch.Tensor, tokenizer: Tokenizer) -> dict[int, str]:
    """Return {token: text} of at most MOST_TOKENS whole texts, the most frequent first.  counts (V)."""
    by_frequency = counts.argsort(descending=True, stable=True).tolist()
    never_written = set(tokenizer.never_written)
    texts = {token: tokenizer.decode([token]) for token in by_frequency if token not in never_written}
    whole = [token for token, text in texts.items() if text and "\ufffd" not in text]
    return {token: texts[token] for token in whole[:MOST_TOKENS]}


def rounded(values: list[float]) -> list[float]:
    return [round(value, 5) for value in values]


def finite(content: object) -> object:
    """Return JSON content with None in place of NaN, which JSON does not have."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
