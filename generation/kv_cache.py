"""Keys and values of what was already computed, so that a new token costs one position, not all.

In the comments B is the rows, T the new positions, S the tokens that a row holds, H the heads, D the size of a head, V
the vocabulary.
"""

import torch

from model import Transformer


class KVCache:
    """Texts that grow, and the keys and values of their tokens.

    texts: the ids of each row, lists.  keys, values: (layers, B, H, max_seq_len, D).
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
        self.filling = None  # while `fill` works: which rows it fills

    def fill(self, rows: list[int]) -> torch.Tensor:
        """Compute the keys and values of all that these rows hold; returns the logits (len(rows), V) after each."""
        device = self.keys.device
        texts = [self.texts[row] for row in rows]
        lengths = torch.tensor([len(text) for text in texts], device=device)
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)  # padded on the right: never seen
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
        self.filling = rows
        x = self.model.hidden(ids.to(device), cache=self)  # (rows, T, C)
        self.filling = None
        last = x[torch.arange(len(rows), device=device), lengths - 1]
        return self.model.logits(last)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Add one token to every row; tokens int64 (B,).  Returns the logits (B, V) after it."""
        self.make_room()
        window = self.model.config.window_size
        self.lengths = [len(text) for text in self.texts]
        self.longest = max(self.lengths) + 1  # the new token included
        self.is_even = len(set(self.lengths)) == 1  # all rows of one length, which is faster
        self.places = torch.tensor(self.lengths, device=tokens.device)  # (B,), where the new token stands
        positions = self.places[:, None]
        mask = None
        if not self.is_even or (window is not None and self.longest > window):
            distance = positions - torch.arange(self.longest, device=tokens.device)  # (B, S)
            mask = ((distance >= 0) & (distance < (window or self.longest)))[:, None, None]  # (B, 1, 1, S)
        x = self.model.hidden(tokens[:, None], positions[:1] if self.is_even else positions, mask, self)
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)
        return self.model.logits(x[:, -1])

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the new keys and values (B, H, T, D) of a layer; returns those of all positions, (B, H, S, D).

        S is the length of the longest row; what a shorter row does not have, the mask of `step` hides.
        """
        keys, values = self.keys[layer], self.values[layer]
        if self.filling is not None:  # the new positions are all that there are
            keys[self.filling, :, : k.size(2)] = k.type_as(keys)
            values[self.filling, :, : v.size(2)] = v.type_as(values)
            return k, v
        if self.is_even:
            place = self.lengths[0]
            keys[:, :, place] = k[:, :, 0].type_as(keys)
            values[:, :, place] = v[:, :, 0].type_as(values)
        else:
            rows = torch.arange(len(self.lengths), device=k.device)
            keys[rows, :, self.places] = k[:, :, 0].type_as(keys)
            values[rows, :, self.places] = v[:, :, 0].type_as(values)
        return keys[:, :, : self.longest], values[:, :, : self.longest]

    def make_room(self) -> None:
        """Leave full rows their newest half, computed once more."""
        context = self.model.config.max_seq_len
        full = [row for row, text in enumerate(self.texts) if len(text) == context]
        for row in full:
            self.texts[row] = self.texts[row][context // 2 :]
        if full:
            self.fill(full)

    def take(self, rows: list[int]) -> None:
        """Let row r hold what row rows[r] held: rows change places, are repeated, or left out."""
        used = max(len(text) for text in self.texts)
        if len(rows) == len(self.texts):
            self.keys[..., :used, :] = self.keys[:, rows, :, :used]
            self.values[..., :used, :] = self.values[:, rows, :, :used]
        else:
            self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.texts = [list(self.texts[row]) for row in rows]
