"""The content of the page inside.html: numbers and texts as plain lists and dicts, which JSON can hold.

In reading order: what is about one text (`of_text`: losses, attention, the logit lens); what is measured on many
stories (`of_heads`, `of_parts`, `of_embeddings`); `of_writing`, a story with and without some parts.
"""

import base64
import math

import torch

from common.console import log
from common.devices import Precision
from common.text import without_controls
from data import Tokenizer
from generation.prompts import story_prompt
from generation.writer import Writer
from inside.ablation import ablate
from inside.embeddings import KINDS, frequent_words, kind_of, nearest_tokens, principal_components
from inside.heads import head_scores, label_of
from inside.parts import Part, all_left_out
from inside.recording import Recording, logit_lens, record
from inside.stories import Batch, Story, batches_of
from model import IGNORED, Transformer

STORIES_FOR_HEADS = 40  # enough for a mean; each is read on its own
LIKELIEST = 10  # tokens that are listed at each place
WORDS_ON_THE_MAP = 300
WORDS_WITH_NEIGHBOURS = 3000


def of_text(ids: list[int], model: Transformer, tokenizer: Tokenizer) -> dict:
    """Return all that is about one text: its losses, the attention, the logit lens.  ids: `<bos> text`."""
    recording = record(model, ids)
    content = of_tokens(ids, recording, tokenizer) | of_layers(ids, model, recording, tokenizer)
    return content | {"attention": of_attention(recording.attention)}


def readable(token: int, tokenizer: Tokenizer) -> str:
    """Return a token as text; a part of a character as words."""
    for name, number in tokenizer.special.items():
        if token == number:
            return name
    text = tokenizer.decode([token])
    return "(part of a character)" if "\ufffd" in text else text


def of_tokens(ids: list[int], recording: Recording, tokenizer: Tokenizer) -> dict:
    """Return the loss, the rank and the likeliest alternatives of each token; None for the first, which is given."""
    logarithms = recording.logits[:-1].log_softmax(-1)  # (T - 1, V); row i predicts token i + 1
    right = torch.tensor(ids[1:])[:, None]
    own = logarithms.gather(1, right)
    ranks = (logarithms > own).sum(-1) + 1
    values, tokens = logarithms.exp().topk(LIKELIEST)
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
    logarithms = logit_lens(model, recording.states).log_softmax(-1)  # (L + 1, T, V)
    values, tokens = logarithms.max(-1)
    likeliest = [
        [[readable(token, tokenizer), round(math.exp(value), 5)] for token, value in zip(*row, strict=True)]
        for row in zip(tokens.tolist(), values.tolist(), strict=True)
    ]
    right = torch.tensor(ids[1:]).expand(len(logarithms), -1)[..., None]
    losses = -logarithms[:, :-1].gather(2, right)[..., 0]  # (L + 1, T - 1)
    return {"lens": likeliest, "lens_loss": [[*rounded(row), None] for row in losses.tolist()]}


def of_attention(attention: torch.Tensor) -> dict:
    """Return attention (L, H, T, T) for the page: for each head, T x T bytes in base64, of which 255 means 1."""
    layers, heads = attention.shape[:2]
    as_bytes = (attention * 255).round().byte().flatten(0, 1)
    data = [base64.b64encode(head.numpy().tobytes()).decode() for head in as_bytes]
    return {"layers": layers, "heads": heads, "data": data}


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
    """Return a map of the most frequent words, and the nearest tokens of each."""
    counts = torch.zeros(tokenizer.vocab_size, dtype=torch.long)
    for batch in batches:
        counts += torch.bincount(batch.ids.flatten().cpu(), minlength=tokenizer.vocab_size)
    vectors = model.tokens.weight.detach().cpu()
    words = frequent_words(counts, tokenizer, WORDS_WITH_NEIGHBOURS)
    if len(words) < 3:
        return {}
    on_the_map = words[:WORDS_ON_THE_MAP]
    places, variance = principal_components(vectors[on_the_map])
    drawn = []
    for token, (x, y) in zip(on_the_map, places.tolist(), strict=True):
        text = tokenizer.decode([token])
        drawn.append({"token": text, "x": round(x, 4), "y": round(y, 4), "kind": kind_of(text.strip())})
    near = nearest_tokens(vectors, words, words)
    neighbours = {
        tokenizer.decode([token]): [[tokenizer.decode([other]), round(cosine, 4)] for other, cosine in row]
        for token, row in near.items()
    }
    return {"words": drawn, "kinds": list(KINDS), "variance": rounded(variance), "neighbours": neighbours}


def rounded(values: list[float]) -> list[float]:
    return [round(value, 5) for value in values]


def finite(content: object) -> object:
    """Return JSON content with None in place of NaN, which JSON does not have."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
