"""The KV cache: it keeps the keys and values of earlier tokens, so that a new token costs one position, not all.

In the comments B is the number of rows, T of new positions, S of tokens in a row, H of heads, D the size of a head, V
the size of the vocabulary.
"""

import torch

from model import Transformer


class KVCache:
    """Growing texts, with the keys and values of their tokens.

    texts: a list of ids for each row.  keys, values: (layers, B, H, max_seq_len, D).
    Rows are independent: each has its own length, and a full row starts again with its newest half.
    """

    def __init__(self, model: Transformer, texts: list[list[int]]):
        config = model.config
        weight = model.tokens.weight
        shape = (config.num_layers, len(texts), config.num_heads, config.max_seq_len, config.head_size)
        dtype = torch.float32 if weight.device.type == "cpu" else weight.dtype  # a CPU reads them faster in float32
        self.model = model
        self.texts = [list(text) for text in texts]
        self.keys = torch.zeros(shape, device=weight.device, dtype=dtype)
        self.values = torch.zeros(shape, device=weight.device, dtype=dtype)
        self.filling = None  # the rows that `fill` is filling

    def fill(self, rows: list[int]) -> torch.Tensor:
        """Compute the keys and values of all tokens in these rows; return the logits (len(rows), V) after each row."""
        device = self.keys.device
        texts = [self.texts[row] for row in rows]
        lengths = torch.tensor([len(text) for text in texts], device=device)
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)  # padding on the right is never seen
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
        self.filling = rows
        x = self.model.hidden(ids.to(device), cache=self)  # (rows, T, C)
        self.filling = None
        last = x[torch.arange(len(rows), device=device), lengths - 1]
        return self.model.logits(last)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Add one token to every row, tokens int64 (B,); return the logits (B, V) after it."""
        self.make_room()
        window = self.model.config.window_size
        self.lengths = [len(text) for text in self.texts]
        self.longest = max(self.lengths) + 1  # the new token included
        self.is_even = len(set(self.lengths)) == 1  # all rows have the same length, which is faster
        self.positions = torch.tensor(self.lengths, device=tokens.device)  # (B,), the new token's position
        positions = self.positions[:, None]
        mask = None
        if not self.is_even or (window is not None and self.longest > window):
            distance = positions - torch.arange(self.longest, device=tokens.device)  # (B, S)
            mask = ((distance >= 0) & (distance < (window or self.longest)))[:, None, None]  # (B, 1, 1, S)
        x = self.model.hidden(tokens[:, None], positions[:1] if self.is_even else positions, mask, self)
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)
        return self.model.logits(x[:, -1])

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a layer's new keys and values (B, H, T, D); return those of all positions, (B, H, S, D).

        S is the length of the longest row; the mask of `step` hides the positions that a shorter row does not have.
        """
        keys, values = self.keys[layer], self.values[layer]
        if self.filling is not None:  # there are no positions before the new ones
            keys[self.filling, :, : k.size(2)] = k.type_as(keys)
            values[self.filling, :, : v.size(2)] = v.type_as(values)
            return k, v
        if self.is_even:
            place = self.lengths[0]
            keys[:, :, place] = k[:, :, 0].type_as(keys)
            values[:, :, place] = v[:, :, 0].type_as(values)
        else:
            rows = torch.arange(len(self.lengths), device=k.device)
            keys[rows, :, self.positions] = k[:, :, 0].type_as(keys)
            values[rows, :, self.positions] = v[:, :, 0].type_as(values)
        return keys[:, :, : self.longest], values[:, :, : self.longest]

    def make_room(self) -> None:
        """Shorten full rows to their newest half, and compute it again."""
        context = self.model.config.max_seq_len
        full = [row for row, text in enumerate(self.texts) if len(text) == context]
        for row in full:
            self.texts[row] = self.texts[row][context // 2 :]
        if full:
            self.fill(full)

    def take(self, rows: list[int]) -> None:
        """Make row r what row rows[r] was: rows can change places, be repeated, or be dropped."""
        used = max(len(text) for text in self.texts)
        if len(rows) == len(self.texts):
            self.keys[..., :used, :] = self.keys[:, rows, :, :used]
            self.values[..., :used, :] = self.values[:, rows, :, :used]
        else:
            self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.texts = [list(self.texts[row]) for row in rows]
