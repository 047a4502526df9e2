"""The network: a decoder-only transformer and its loss.

It works on token ids alone and knows nothing of files, tokenizers or training; how it writes is in generation.py.
Reading order: `ModelConfig` says what is built; `Transformer` is built from `Block`s of `Attention` and a feed-forward
layer; `CrossEntropy` is its loss.  In the comments B is the batch, T the tokens of a row, C the hidden size, H the
heads, D = C / H the size of a head, V the vocabulary.

Two bundles of choices have names: `gpt2` computes what transformers' GPT2LMHeadModel computes, `llama` what its
LlamaForCausalLM computes, so that a model trained here can be used elsewhere.
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

ARCHITECTURES = {
    "gpt2": {"positions": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "tie_embeddings": True},
    "llama": {"positions": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "tie_embeddings": True},
}
CHOICES = {"positions": ("learned", "rotary"), "norm": ("layer", "rms"), "mlp": ("gelu", "gelu_exact", "swiglu")}
IGNORED = -100  # a target with this value is not predicted
CHUNK_LOGITS = {"cpu": 1 << 21, "gpu": 1 << 25}  # how many logits `CrossEntropy` holds at a time


@dataclass
class ModelConfig:
    """The shape of a network; a switch left at None is taken from the bundle that `arch` names.

    vocab_size, num_layers, hidden_size, num_heads, intermediate_size: the usual sizes.
    max_seq_len: the context, in tokens.  window_size: how many tokens a position sees, itself included (None: all).
    dropout: probability, on embeddings and on what is added to the residual stream.
    norm_epsilon, rotary_base: other numbers only where a model was imported that has them.
    Raises ValueError, worded with the flags' names, for a shape that cannot be built.
    """

    vocab_size: int
    num_layers: int = 4
    hidden_size: int = 256
    num_heads: int = 8
    intermediate_size: int = 1024
    max_seq_len: int = 256
    window_size: int | None = None
    dropout: float = 0.1
    arch: str = "llama"
    positions: str | None = None
    norm: str | None = None
    mlp: str | None = None
    bias: bool | None = None
    tie_embeddings: bool | None = None
    norm_epsilon: float = 1e-5
    rotary_base: float = 10_000.0

    def __post_init__(self):
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"--arch {self.arch} is not one of {', '.join(ARCHITECTURES)}")
        for name, value in ARCHITECTURES[self.arch].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"--{name} {getattr(self, name)} is not one of {', '.join(choices)}")
        for name in ("vocab_size", "num_layers", "hidden_size", "num_heads", "intermediate_size", "max_seq_len"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"--{name} must be a whole number of at least 1, not {getattr(self, name)}")
        if self.max_seq_len < 2:
            raise ValueError("--max_seq_len must be at least 2: one token to see, one to predict")
        if self.window_size is not None and not (isinstance(self.window_size, int) and 1 <= self.window_size < 1 << 63):
            raise ValueError(f"--window_size must be a whole number of at least 1, not {self.window_size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"--dropout must be at least 0 and below 1, not {self.dropout}")
        for name in ("norm_epsilon", "rotary_base"):
            if not isinstance(getattr(self, name), (int, float)) or not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number above 0, not {getattr(self, name)}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"--num_heads {self.num_heads} does not divide --hidden_size {self.hidden_size}")
        if self.positions == "rotary" and self.hidden_size // self.num_heads % 2:
            raise ValueError(
                f"rotary positions need an even size of a head, and --hidden_size {self.hidden_size} / "
                f"--num_heads {self.num_heads} is odd; choose another --num_heads, or --positions learned"
            )

    def as_dict(self):
        return asdict(self)

    def describe(self):
        window = f", window {self.window_size}" if self.window_size else ""
        return (
            f"{self.num_layers} layers x {self.hidden_size}, {self.num_heads} heads, feed-forward "
            f"{self.intermediate_size}, context {self.max_seq_len}{window}, vocabulary {self.vocab_size:,}, "
            f"{self.arch} ({self.positions} positions, {self.norm} norm, {self.mlp})"
        )


def make_norm(config):
    if config.norm == "rms":
        return nn.RMSNorm(config.hidden_size, eps=config.norm_epsilon)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon, bias=config.bias)


def rotary_table(head_size, length, base):
    """Cosines and sines of rotary positions (Su et al. 2021), each float32 (length, head_size), halves as in Llama."""
    frequencies = base ** -(torch.arange(0, head_size, 2) / head_size)
    angles = torch.outer(torch.arange(length), frequencies)
    return angles.cos().repeat(1, 2), torch.cat((-angles.sin(), angles.sin()), dim=-1)


def rotate(x, cos, sin):
    """Turn queries or keys x (B, H, T, D) by the angles of their positions; cos and sin are (B or 1, 1, T, D)."""
    return (x * cos + x.roll(x.size(-1) // 2, -1) * sin).type_as(x)


def attend(q, k, v, mask, causal):
    """Attention: q (B, H, T, D) looks at k and v (B, H, S, D) where mask allows it -> (B, H, T, D)."""
    if k.dtype != torch.bfloat16 or k.device.type != "cpu":
        return F.scaled_dot_product_attention(q.type_as(k), k, v, attn_mask=mask, is_causal=causal).type_as(q)
    # PyTorch's kernel takes 2.5 times as long as this on a CPU with bfloat16 units
    scores = (q * q.size(-1) ** -0.5) @ k.transpose(-1, -2)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).type_as(v) @ v


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)

    def forward(self, x, rotary, mask, remember):
        """x (B, T, C) -> (B, T, C).  mask: None for plain causal attention; remember: of a `generation.Cache`."""
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if remember is not None:
            k, v = remember(k, v)
        causal = mask is None and x.size(1) > 1
        y = attend(q, k, v, mask, causal)
        return self.output(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gated = config.mlp == "swiglu"
        self.gelu = nn.GELU(approximate="none" if config.mlp == "gelu_exact" else "tanh")  # Hendrycks and Gimpel 2016
        width = config.intermediate_size * (2 if self.gated else 1)  # the gate and the values in one product
        self.up = nn.Linear(config.hidden_size, width, bias=config.bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)

    def forward(self, x):
        if self.gated:  # Shazeer 2020
            gate, values = self.up(x).chunk(2, dim=-1)
            return self.down(F.silu(gate) * values)
        return self.down(self.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm1, self.attention = make_norm(config), Attention(config)
        self.norm2, self.feed_forward = make_norm(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, rotary=None, mask=None, remember=None):
        x = x + self.dropout(self.attention(self.norm1(x), rotary, mask, remember))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Transformer(nn.Module):
    """Predicts each next token of a row from those before it."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.positions = nn.Embedding(config.max_seq_len, config.hidden_size)
        else:
            cos, sin = rotary_table(config.hidden_size // config.num_heads, config.max_seq_len, config.rotary_base)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = make_norm(config)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.initialize()

    def initialize(self):
        """As in GPT-2: normal, 0.02; what is added to the residual stream smaller, by the number of additions."""
        for name, parameter in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.num_layers))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def num_parameters(self):
        """(in the layers, in all), tied weights counted once."""
        return sum(p.numel() for p in self.blocks.parameters()), sum(p.numel() for p in self.parameters())

    def flops_per_token(self):
        """Operations that training takes a token: 6 a weight that multiplies, and attention (Chowdhery et al. 2022)."""
        config, (in_layers, _) = self.config, self.num_parameters()
        weights = in_layers + config.vocab_size * config.hidden_size
        return 6 * weights + 12 * config.num_layers * config.hidden_size * config.max_seq_len

    def hidden(self, ids, positions=None, mask=None, cache=None):
        """ids int64 (B, T) -> (B, T, C), before the head.

        positions: int64 (B or 1, T) of the ids in their rows; None: 0 to T - 1, T <= max_seq_len.
        mask: bool (T, S) or (B, 1, T, S), True where position T may see S; None: causal, within the window.
        cache: keeps the keys and values (see `generation.Cache`).
        """
        if positions is None:
            positions = torch.arange(ids.size(1), device=ids.device)[None]
        if mask is None and self.config.window_size is not None:
            distance = positions[0, :, None] - positions[0, None, :]
            mask = (distance >= 0) & (distance < self.config.window_size)
        x, rotary = self.tokens(ids), None
        if self.config.positions == "learned":
            x = x + self.positions(positions)
        else:
            rotary = self.cos[positions][:, None], self.sin[positions][:, None]
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, mask, cache.layer(layer) if cache else None)
        return self.norm(x)

    def logits(self, hidden):
        """(..., C) -> (..., V), what softmax turns into the next token's probabilities."""
        return F.linear(hidden, self.head_weight())

    def head_weight(self):
        return self.tokens.weight if self.config.tie_embeddings else self.head.weight

    def forward(self, ids, targets=None):
        """ids (B, T), T <= max_seq_len -> logits (B, T, V); with targets (B, T): their summed cross-entropy in nats.

        Targets of IGNORED are not predicted and not counted.  A row padded on its right needs no mask: padding lies in
        the future of every token before it, which causal attention never sees.
        """
        x = self.hidden(ids)
        if targets is None:
            return self.logits(x)
        x, targets = x.flatten(0, 1), targets.flatten()
        # No product for what is not predicted; but finding it makes a GPU's host wait, and the compiler wants one shape
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            predicted = targets != IGNORED
            x, targets = x[predicted], targets[predicted]
        return CrossEntropy.apply(x, self.head_weight(), targets)


class CrossEntropy(torch.autograd.Function):
    """The summed cross-entropy of hidden (N, C) @ weight.T (V, C) and targets (N,), a chunk of positions at a time.

    The logits (N, V) are the largest tensor of a small model. Here a chunk of them becomes loss and gradient while it
    lies in the processor's cache, and only a chunk exists at a time. Sums and softmax are float32; the products are
    what autocast would make them. The loss is a sum, not a mean, so that its gradients fit into float16 unscaled.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets):
        device, kind, hidden_gradients = hidden.device, hidden.device.type, []
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        loss, weight_gradient = torch.zeros((), device=device), torch.zeros_like(weight)
        head, targets, counted = weight.to(dtype), targets[:, None], (targets != IGNORED)[:, None]
        chunk = max(1, CHUNK_LOGITS["cpu" if kind == "cpu" else "gpu"] // len(weight))
        with torch.autocast(kind, enabled=False):
            for x, target, is_counted in zip(*(t.split(chunk) for t in (hidden, targets, counted)), strict=True):
                x, target = x.to(dtype) * is_counted, target * is_counted
                logits = x @ head.T
                chances, largest = logits.softmax(-1, torch.float32), logits.amax(-1, keepdim=True)
                log_sum = largest - chances.amax(-1, keepdim=True).log()  # of the exponentials of the logits
                loss += ((log_sum - logits.gather(1, target)) * is_counted).sum()
                gradient = chances.scatter_add_(1, target, -torch.ones_like(log_sum)).to(dtype)  # of the logits
                hidden_gradients.append((gradient @ head) * is_counted)
                weight_gradient += gradient.T @ x
                del logits, chances, gradient  # before the next ones are made
        ctx.save_for_backward(torch.cat(hidden_gradients).type_as(hidden), weight_gradient)
        return loss

    @staticmethod
    def backward(ctx, gradient):
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * gradient, of_weight * gradient, None
