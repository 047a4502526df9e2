"""The network: a decoder-only transformer, and its loss.

Token ids become vectors, which pass through the blocks; the head turns each vector into a score (a logit) for every
token that could come next; the loss compares the scores with the token that does.

This module knows nothing of files, tokenizers or training; generating text is in generation/.
In reading order: `ModelConfig`, the shape of the network; `Attention` and `FeedForward`, the two parts of a `Block`;
`Transformer`, a stack of blocks; `CrossEntropy`, its loss.  In the comments, B is the batch size, T the number of
tokens in a row, S the number of tokens that these may attend to, C the hidden size, H the number of heads, D = C / H
the size of a head, V the size of the vocabulary.

Two architectures have names.  `gpt2` computes the same as transformers' GPT2LMHeadModel, and `llama` the same as its
LlamaForCausalLM, so that a model trained here can be used elsewhere.
"""

import math
from collections import defaultdict
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

ARCHITECTURES = {
    "gpt2": {"positions": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "tie_embeddings": True},
    "llama": {"positions": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "tie_embeddings": True},
}
CHOICES = {"positions": ("learned", "rotary"), "norm": ("layer", "rms"), "mlp": ("gelu", "gelu_exact", "swiglu")}
SIZES = ("vocab_size", "num_layers", "hidden_size", "num_heads", "intermediate_size", "max_seq_len")
IGNORED = -100  # a target with this value is not predicted; data.py has the same value
CPU_LOGITS = 1 << 21  # logits that `CrossEntropy` computes at a time on a CPU: they fit into its caches
GPU_ROWS = 4096  # positions that it computes at a time on a GPU: fewer would not keep it busy


@dataclass
class ModelConfig:
    """The shape of a network.  A switch that is None gets its value from the architecture that `arch` names.

    vocab_size, num_layers, hidden_size, num_heads, intermediate_size: the usual sizes.
    max_seq_len: the context, in tokens.  window_size: how many tokens a position sees, including itself (None: all).
    dropout: the probability, for embeddings and for everything that is added to the residual stream.
    norm_epsilon, rotary_base: these differ from the default only in an imported model that needs it.
    Raises ValueError, with the names of the flags, for a shape that cannot be built.
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
        self.take_bundle()
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"--{name} must be a whole number of at least 1, not {value}")
        if self.max_seq_len < 2:
            raise ValueError("--max_seq_len must be at least 2: one token to see, one to predict")
        window = self.window_size
        if window is not None and not (isinstance(window, int) and 1 <= window < 1 << 63):
            raise ValueError(f"--window_size must be a whole number of at least 1, not {window}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"--dropout must be at least 0 and below 1, not {self.dropout}")
        for name in ("norm_epsilon", "rotary_base"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0, not {value}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"--num_heads {self.num_heads} does not divide --hidden_size {self.hidden_size}")
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(
                f"rotary positions need an even head size, but --hidden_size {self.hidden_size} / "
                f"--num_heads {self.num_heads} is odd; choose another --num_heads, or --positions learned"
            )

    def take_bundle(self) -> None:
        """Set each switch that is None to the value that `arch` gives it."""
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"--arch {self.arch} is not one of {', '.join(ARCHITECTURES)}")
        for name, value in ARCHITECTURES[self.arch].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"--{name} {getattr(self, name)} is not one of {', '.join(choices)}")

    @property
    def head_size(self) -> int:
        """D, the size of a head."""
        return self.hidden_size // self.num_heads

    def as_dict(self) -> dict:
        return asdict(self)

    def describe(self) -> str:
        window = f", window {self.window_size}" if self.window_size else ""
        return (
            f"{self.num_layers} layers x {self.hidden_size}, {self.num_heads} heads, feed-forward "
            f"{self.intermediate_size}, context {self.max_seq_len}{window}, vocabulary {self.vocab_size:,}, "
            f"{self.arch} ({self.positions} positions, {self.norm} norm, {self.mlp})"
        )


# Layers ---------------------------------------------------------------------------------------------------------------


def make_norm(config: ModelConfig) -> nn.Module:
    """Return an RMSNorm (Zhang and Sennrich 2019) or a LayerNorm."""
    if config.norm == "rms":
        return nn.RMSNorm(config.hidden_size, eps=config.norm_epsilon)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon, bias=config.bias)


def rotary_table(head_size: int, length: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosines and sines of rotary positions (Su et al. 2021), each float32 (length, head_size).

    The numbers of a head are rotated in pairs.  As in Llama, number i forms a pair with number i + D / 2: four numbers
    form the pairs (x0, x2) and (x1, x3).  A pair (a, b) becomes (a cos - b sin, b cos + a sin).  The minus sign is in
    this table: its sines are (-s0, -s1, s0, s1), so `rotate` only multiplies and adds.
    """
    # assignment: rotary, 5 points
    # On the CPU even if the network is made on the meta device, which knows only shapes and computes slowly.
    frequencies = base ** -(torch.arange(0, head_size, 2, device="cpu") / head_size)  # (D / 2,)
    angles = torch.outer(torch.arange(length, device="cpu"), frequencies)  # (length, D / 2)
    return angles.cos().repeat(1, 2), torch.cat((-angles.sin(), angles.sin()), dim=-1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys x (B, H, T, D) by the angles of their positions; cos and sin are (B or 1, 1, T, D)."""
    # assignment: rotary, 5 points
    halves_swapped = x.roll(x.size(-1) // 2, -1)
    return (x * cos + halves_swapped * sin).type_as(x)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig, layer_number: int):
        super().__init__()
        self.layer_number = layer_number
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)

    def forward(self, x: torch.Tensor, rotary=None, mask: torch.Tensor | None = None, cache=None) -> torch.Tensor:
        """x (B, T, C) -> (B, T, C).

        rotary: cosines and sines of the positions.  mask: which tokens each one may see; None: no later ones.
        cache: a `KVCache`, whose keys and values of earlier tokens are seen, too.
        """
        # assignment: attention, 5 points
        B, T, C = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # each (B, T, C)
        q = q.view(B, T, self.num_heads, -1).transpose(1, 2)  # (B, H, T, D)
        k = k.view(B, T, self.num_heads, -1).transpose(1, 2)
        v = v.view(B, T, self.num_heads, -1).transpose(1, 2)
        if rotary is not None:
            cos, sin = rotary
            q = rotate(q, cos, sin)
            k = rotate(k, cos, sin)
        if cache is not None:
            k, v = cache.extend(self.layer_number, k, v)  # (B, H, S, D)
        # Without a mask, T > 1 means that S = T; a single new token (T = 1) may see everything in the cache.
        y = attend(q, k, v, mask, causal=mask is None and T > 1)
        y = y.transpose(1, 2).reshape(B, T, C)  # put the heads side by side again
        return self.output(y)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
    """Let queries q (B, H, T, D) attend to k and v (B, H, S, D), as mask or causal order allows -> (B, H, T, D)."""
    if k.device.type == "cpu" and k.dtype == torch.bfloat16:
        return attend_in_bfloat16_on_cpu(q, k, v, mask, causal)
    if k.device.type == "mps":  # MPS computes a wrong result if the heads are a view (pytorch issue 181133)
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    # a cache may keep keys in float32 while q is bfloat16
    return F.scaled_dot_product_attention(q.type_as(k), k, v, attn_mask=mask, is_causal=causal).type_as(q)


def attend_in_bfloat16_on_cpu(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, causal: bool
) -> torch.Tensor:  # fmt: skip
    """Do what `attend` does, step by step: on a CPU with bfloat16 units, PyTorch's kernel takes 2.5 times as long."""
    # assignment: attention, 10 points
    scores = (q * q.size(-1) ** -0.5) @ k.transpose(-1, -2)  # (B, H, T, S)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1).type_as(v)
    return weights @ v


class FeedForward(nn.Module):
    """The part of a layer that works on each token alone: GELU (Hendrycks and Gimpel 2016) or SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gated = config.mlp == "swiglu"
        self.gelu = nn.GELU(approximate="none" if config.mlp == "gelu_exact" else "tanh")
        width = config.intermediate_size * (2 if self.gated else 1)  # one product computes both gate and values
        self.up = nn.Linear(config.hidden_size, width, bias=config.bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, T, C) -> (B, T, C)."""
        if self.gated:
            gate, values = self.up(x).chunk(2, dim=-1)
            return self.down(F.silu(gate) * values)
        return self.down(self.gelu(self.up(x)))


class Block(nn.Module):
    """One layer: attention, then feed-forward; the result of each is added to the residual stream."""

    def __init__(self, config: ModelConfig, layer_number: int):
        super().__init__()
        self.norm1 = make_norm(config)
        self.attention = Attention(config, layer_number)
        self.norm2 = make_norm(config)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, rotary=None, mask: torch.Tensor | None = None, cache=None) -> torch.Tensor:
        """x (B, T, C) -> (B, T, C); for the other arguments see `Attention`."""
        x = x + self.dropout(self.attention(self.norm1(x), rotary, mask, cache))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


# The network ----------------------------------------------------------------------------------------------------------


class Transformer(nn.Module):
    """Predicts the next token at each position of a row, from the tokens up to it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.positions = nn.Embedding(config.max_seq_len, config.hidden_size)
        else:
            cos, sin = rotary_table(config.head_size, config.max_seq_len, config.rotary_base)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = make_norm(config)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.initialize()

    def initialize(self) -> None:
        """Set the first weights as in GPT-2: normal with standard deviation 0.02; biases are 0.

        For weights whose result is added to the residual stream, 0.02 is divided by the square root of the number of
        additions.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.num_layers))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def num_parameters(self) -> tuple[int, int]:
        """Return (parameters in the layers, all parameters); tied weights count once."""
        in_layers = sum(parameter.numel() for parameter in self.blocks.parameters())
        in_all = sum(parameter.numel() for parameter in self.parameters())
        return in_layers, in_all

    def matrices_inside(self) -> dict[int, list[nn.Parameter]]:
        """Return the matrices in the layers, for optimizers that need whole matrices: {parts: matrices}.

        parts: how many matrices are stacked in one weight.  Queries, keys and values share a weight, and so do the gate
        and the values of SwiGLU.
        """
        matrices = defaultdict(list)
        for block in self.blocks:
            feed_forward = block.feed_forward
            matrices[3].append(block.attention.qkv.weight)
            matrices[1].append(block.attention.output.weight)
            matrices[2 if feed_forward.gated else 1].append(feed_forward.up.weight)
            matrices[1].append(feed_forward.down.weight)
        return matrices

    def flops_per_token(self) -> int:
        """Return the operations that training needs per token (Chowdhery et al. 2022).

        These are 6 per weight in the layers and the head, and those of attention.
        """
        config = self.config
        in_layers, _ = self.num_parameters()
        weights = in_layers + config.vocab_size * config.hidden_size
        return 6 * weights + 12 * config.num_layers * config.hidden_size * config.max_seq_len

    def embed(self, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """ids int64 (B, T) -> (B, T, C), the input of the layers; for positions see `hidden`."""
        x = self.tokens(ids)
        if self.config.positions == "learned":
            if positions is None:
                positions = torch.arange(ids.size(1), device=ids.device)[None]
            x = x + self.positions(positions)
        return self.dropout(x)

    def layers(
        self, x: torch.Tensor, positions: torch.Tensor | None = None, mask: torch.Tensor | None = None, cache=None
    ) -> torch.Tensor:
        """x (B, T, C) from `embed` -> (B, T, C), the input of the head; for the other arguments see `hidden`."""
        if positions is None:
            positions = torch.arange(x.size(1), device=x.device)[None]
        if mask is None and self.config.window_size is not None:
            distance = positions[0, :, None] - positions[0, None, :]  # (T, T)
            mask = (distance >= 0) & (distance < self.config.window_size)
        rotary = None
        if self.config.positions == "rotary":
            rotary = (self.cos[positions][:, None], self.sin[positions][:, None])  # each (B or 1, 1, T, D)
        for block in self.blocks:
            x = block(x, rotary, mask, cache)
        return self.norm(x)

    def hidden(
        self, ids: torch.Tensor, positions: torch.Tensor | None = None, mask: torch.Tensor | None = None, cache=None
    ) -> torch.Tensor:
        """ids int64 (B, T) -> (B, T, C), the input of the head.

        positions: int64 (B or 1, T), where the ids are in their rows; None: 0 to T - 1, with T <= max_seq_len.
        mask: bool (T, S) or (B, 1, T, S), True if position T may see position S; None: causal, within the window.
        cache: keeps keys and values (see `generation.kv_cache`).
        """
        return self.layers(self.embed(ids, positions), positions, mask, cache)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., V); softmax turns the logits into the probabilities of the next token."""
        return F.linear(hidden, self.head_weight())

    def head_weight(self) -> torch.Tensor:
        """Return the matrix of the head (V, C): the token embeddings again, unless the head has its own."""
        return self.tokens.weight if self.config.tie_embeddings else self.head.weight

    def forward(self, ids: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        """ids (B, T), T <= max_seq_len -> logits (B, T, V); with targets (B, T): their summed cross-entropy in nats.

        Targets that are IGNORED do not count.  Padding on the right of a row needs no mask: it comes after all other
        tokens, and causal attention never sees later tokens.
        """
        if targets is None:
            return self.logits(self.hidden(ids))
        return self.loss_of(self.embed(ids), targets)

    def loss_of(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """x (B, T, C) from `embed`, targets (B, T) -> the loss of `forward`."""
        x = self.layers(x).flatten(0, 1)  # (B x T, C)
        targets = targets.flatten()
        # Leave out what is not predicted.  Not on a GPU, whose host would have to wait for the result; and not when
        # compiling, which needs fixed shapes.
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            predicted = targets != IGNORED
            x, targets = x[predicted], targets[predicted]
        return CrossEntropy.apply(x, self.head_weight(), targets)


# The loss -------------------------------------------------------------------------------------------------------------


class CrossEntropy(torch.autograd.Function):
    """The sum of the cross-entropy of the logits hidden (N, C) @ weight.T (C, V) for targets (N,).

    The logits (N, V) are the largest tensor of a small model.  So they are computed in chunks of positions, and only
    one chunk exists at a time.  Its loss and its gradient are both computed while it is in the processor's cache.
    That is why the forward pass computes the gradient, too.
    Sums and softmax are in float32; products are in the number format of autocast.  The loss is a sum, not a mean, so
    that its gradients fit into float16 without scaling.
    """

    @staticmethod
    def forward(ctx, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # assignment: cross_entropy, 20 points
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        needs_weight_gradient = ctx.needs_input_grad[1]  # LoRA trains only adapters, not the head
        rows = chunk_rows(len(targets), len(weight), on_cpu=kind == "cpu")
        loss = torch.zeros((), device=hidden.device)
        hidden_gradients = []
        weight_gradient = torch.zeros_like(weight) if needs_weight_gradient else None
        head = weight.to(dtype)
        targets = targets[:, None]
        counted = targets != IGNORED
        # A factor of 0 removes what does not count: on a GPU, an index would make the host wait.
        with torch.autocast(kind, enabled=False):
            chunks = zip(hidden.split(rows), targets.split(rows), counted.split(rows), strict=True)
            for x, target, is_counted in chunks:
                x = x.to(dtype) * is_counted
                target = target * is_counted  # 0 instead of IGNORED, which is not a valid index
                logits = x @ head.T
                probabilities = logits.softmax(-1, torch.float32)
                # log_sum is the log of the sum of the exponentials.  It follows from the softmax: the probability of
                # the largest logit is e^(largest - log_sum).
                largest = logits.amax(-1, keepdim=True)
                log_sum = largest - probabilities.amax(-1, keepdim=True).log()
                log_probability = logits.gather(1, target) - log_sum  # of the target
                loss -= (log_probability * is_counted).sum()
                # The gradient of the logits is the probabilities, minus 1 at the target.  The target's value is set
                # after rounding to dtype, so that the compiler never writes the float32 probabilities to memory.
                gradient = probabilities.to(dtype)
                gradient.scatter_(1, target, torch.expm1(log_probability).to(dtype))
                hidden_gradients.append((gradient @ head) * is_counted)
                if needs_weight_gradient:
                    # The sum over many positions may be too large for float16; a mean is not.
                    scale = len(x) if dtype == torch.float16 else 1
                    weight_gradient.add_(gradient.T @ (x / scale), alpha=scale)
                del logits, probabilities, gradient  # before those of the next chunk are made
        ctx.save_for_backward(torch.cat(hidden_gradients).type_as(hidden), weight_gradient)
        return loss

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        if of_weight is not None:
            of_weight = of_weight * gradient
        return of_hidden * gradient, of_weight, None


def chunk_rows(rows: int, vocab_size: int, on_cpu: bool) -> int:
    """Return the number of rows in a chunk of `CrossEntropy`, such that all chunks have almost the same size."""
    most = max(1, CPU_LOGITS // vocab_size) if on_cpu else GPU_ROWS
    multiple = 1 if on_cpu else 128  # a GPU multiplies in tiles of this many rows
    chunks = max(1, math.ceil(rows / most))
    return max(1, math.ceil(rows / chunks / multiple)) * multiple
