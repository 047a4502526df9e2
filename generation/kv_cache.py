"""Keys and values of what was already computed."""

import torch


class Cache:
    """Texts that grow, and the keys and values of their tokens, so that a new token costs one position, not all.

    contexts: the ids that each row goes on from, lists.  keys, values: (layers, B, H, max_seq_len, D).
    Rows are independent: each has its own length, and a full row starts again with its newest half.
    """

    def __init__(self, model, contexts):
        config, weight = model.config, model.tokens.weight
        head_size = config.hidden_size // config.num_heads
        shape = config.num_layers, len(contexts), config.num_heads, config.max_seq_len, head_size
        self.model, self.contexts = model, [list(context) for context in contexts]
        dtype = torch.float32 if weight.device.type == "cpu" else weight.dtype  # a CPU reads them faster in float32
        self.keys, self.values = (torch.zeros(shape, device=weight.device, dtype=dtype) for _ in range(2))
        self.remember = None

    def layer(self, index):
        """What `Attention` calls with the new keys and values (B, H, T, D); it returns those to attend to."""
        return lambda k, v: self.remember(self.keys[index], self.values[index], k, v)

    def fill(self, rows):
        """Compute the keys and values of all that these rows hold; returns the logits (len(rows), V) after each."""
        device, contexts = self.keys.device, [self.contexts[row] for row in rows]
        ends = torch.tensor([len(context) - 1 for context in contexts], device=device)
        ids = torch.zeros(len(rows), int(ends.max()) + 1, dtype=torch.int64)  # padded on the right: never seen
        for row, context in enumerate(contexts):
            ids[row, : len(context)] = torch.tensor(context)

        def remember(keys, values, k, v):
            keys[rows, :, : k.size(2)], values[rows, :, : k.size(2)] = k.type_as(keys), v.type_as(values)
            return k, v

        self.remember = remember
        x = self.model.hidden(ids.to(device), cache=self)
        return self.model.logits(x[torch.arange(len(rows), device=device), ends])

    def step(self, tokens):
        """Add one token to every row; tokens int64 (B,).  Returns the logits (B, V) after it."""
        window = self.model.config.window_size
        if full := self.make_room():
            self.fill(full)
        lengths = [len(ids) for ids in self.contexts]
        longest, equal = max(lengths) + 1, len(set(lengths)) == 1
        positions = torch.tensor(lengths, device=tokens.device)[:, None]  # (B, 1)
        everyone = torch.arange(len(lengths), device=tokens.device)
        mask = None
        if not equal or (window is not None and longest > window):
            distance = positions - torch.arange(longest, device=tokens.device)  # (B, S)
            mask = ((distance >= 0) & (distance < (window or longest)))[:, None, None]

        def remember(keys, values, k, v):
            if equal:
                keys[:, :, lengths[0]], values[:, :, lengths[0]] = k[:, :, 0].type_as(keys), v[:, :, 0].type_as(values)
            else:
                keys[everyone, :, positions[:, 0]] = k[:, :, 0].type_as(keys)
                values[everyone, :, positions[:, 0]] = v[:, :, 0].type_as(values)
            return keys[:, :, :longest], values[:, :, :longest]

        self.remember = remember
        x = self.model.hidden(tokens[:, None], positions[:1] if equal else positions, mask, self)
        for ids, token in zip(self.contexts, tokens.tolist(), strict=True):
            ids.append(token)
        return self.model.logits(x[:, -1])

    def recompute(self, tokens):
        """The same as `step`, with every position computed again."""
        self.make_room()
        for ids, token in zip(self.contexts, tokens.tolist(), strict=True):
            ids.append(token)
        return self.fill(list(range(len(self.contexts))))

    def make_room(self):
        """Leave the rows that are full their newest half; returns which they are."""
        context = self.model.config.max_seq_len
        full = [row for row, ids in enumerate(self.contexts) if len(ids) == context]
        for row in full:
            self.contexts[row] = self.contexts[row][context // 2 :]
        return full

    def take(self, rows):
        """Let row r go on from what row rows[r] held: rows change places, are repeated, or left out."""
        used = max(len(ids) for ids in self.contexts)
        if len(rows) == len(self.contexts):
            self.keys[..., :used, :] = self.keys[:, rows, :, :used]
            self.values[..., :used, :] = self.values[:, rows, :, :used]
        else:
            self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.contexts = [list(self.contexts[row]) for row in rows]
