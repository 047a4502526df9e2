"""llama2.c's network and its function `encode`, in Python, for tiny models of the sizes below."""

import math
import struct

import numpy as np

SIZE, INNER, LAYERS, HEADS, CONTEXT = 16, 20, 2, 4, 12


def original_logits(weights, ids, groups):
    """Compute llama2.c's forward pass token by token: ids [T] -> logits (T, V)."""
    norm = lambda x, weight: weight * x / np.sqrt((x * x).mean() + 1e-5)
    head_size = SIZE // HEADS
    keys, values = [[] for _ in range(LAYERS)], [[] for _ in range(LAYERS)]
    rows = []
    for position, token in enumerate(ids):
        turn = np.exp(1j * position / 10000.0 ** (np.arange(0, head_size, 2) / head_size))

        def turned(x, turn=turn):
            pairs = x.reshape(-1, head_size // 2, 2)
            product = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
            return np.stack([product.real, product.imag], -1).reshape(-1, head_size)

        x = weights["token_embedding_table"][token].astype(np.float64)
        for layer in range(LAYERS):
            y = norm(x, weights["rms_att_weight"][layer])
            q = turned(weights["wq"][layer] @ y)
            keys[layer].append(turned(weights["wk"][layer] @ y))
            values[layer].append((weights["wv"][layer] @ y).reshape(-1, head_size))
            heads = []
            for head in range(HEADS):
                group = head // (HEADS // groups)
                scores = np.array([q[head] @ key[group] for key in keys[layer]]) / math.sqrt(head_size)
                shares = np.exp(scores - scores.max())
                seen = np.array([value[group] for value in values[layer]])
                heads.append(shares @ seen / shares.sum())
            x = x + weights["wo"][layer] @ np.concatenate(heads)
            y = norm(x, weights["rms_ffn_weight"][layer])
            gate = weights["w1"][layer] @ y
            x = x + weights["w2"][layer] @ (gate / (1 + np.exp(-gate)) * (weights["w3"][layer] @ y))
        rows.append(weights["wcls"] @ norm(x, weights["rms_final_weight"]))
    return np.array(rows)


def original_ids(text, rows):
    """Return llama2.c's ids of a text, without <s>."""
    numbers = {piece: number for number, (_, piece) in enumerate(rows)}
    ids = [numbers[" "]] if text else []
    for character in text:
        ids += [numbers[character]] if character in numbers else [byte + 3 for byte in character.encode()]
    while True:
        best, place = -math.inf, None
        for at, (one, other) in enumerate(zip(ids, ids[1:], strict=False)):
            number = numbers.get(rows[one][1] + rows[other][1])
            if number is not None and rows[number][0] > best:
                best, place, merged = rows[number][0], at, number
        if place is None:
            return ids
        ids[place : place + 2] = [merged]


def read_rows(path):
    """Return [(score, text), ...] of a tokenizer.bin."""
    content = path.read_bytes()
    rows = []
    place = 4
    while place < len(content):
        score, length = struct.unpack_from("<fi", content, place)
        rows.append((score, content[place + 8 : place + 8 + length].decode()))
        place += 8 + length
    return rows
