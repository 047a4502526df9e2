"""Known models as flags: the presets of train_tinystories_model.py (`--preset NAME`).

`PRESETS` has the source of each preset and the flags that it sets, for the shape and for the training.  All other
flags keep the program's defaults.  The program calls `flags_of` and `preset_table`.
"""

from argparse import Namespace

import torch

from common.flags import settings_from
from model import ModelConfig, Transformer
from training.settings import TrainingSettings

PAPER = "the TinyStories paper (shape); gpt-tinystories (training: Adam, constant lr)"
OF_PAPER = {
    "num_layers": 8, "num_heads": 16, "max_seq_len": 256, "arch": "gpt2", "dropout": 0.1, "batch_size": 64,
    "epochs": 3, "lr": 1e-3, "min_lr": 1e-3, "warmup_steps": 0, "optimizer": "adamw", "adam_beta1": 0.9,
    "adam_beta2": 0.95, "weight_decay": 0.0,
}  # fmt: skip
OF_BABIES = {
    "max_seq_len": 512, "arch": "gpt2", "bias": False, "dropout": 0.2, "lr": 1e-3, "min_lr": 1e-4, "warmup_steps": 100,
    "optimizer": "adamw", "adam_beta2": 0.99,
}  # fmt: skip
PRESETS = {
    "course": ("the handout: the program's defaults", {}),
    "tuned": (
        "measured here, to 20 million tokens: the course's shape with Muon (docs/models.md)",
        {"optimizer": "muon", "lr": 5e-3},
    ),
    "laptop": (
        "measured here: the best of an hour on 2 CPU cores, from 8,666 stories (docs/models.md)",
        {
            "num_layers": 6, "hidden_size": 256, "num_heads": 4, "intermediate_size": 768, "max_seq_len": 512,
            "dropout": 0.1, "batch_size": 8, "max_steps": 6500, "optimizer": "muon", "lr": 2e-3,
        },
    ),
    "1M": (PAPER, OF_PAPER | {"hidden_size": 64, "intermediate_size": 256}),
    "8M": (PAPER, OF_PAPER | {"hidden_size": 256, "intermediate_size": 1024}),
    "28M": (PAPER, OF_PAPER | {"hidden_size": 512, "intermediate_size": 2048}),
    "baby_cpu": (
        "tiny_stories (its CPU model)",
        OF_BABIES | {
            "num_layers": 4, "hidden_size": 256, "num_heads": 4, "intermediate_size": 1024, "batch_size": 8,
            "max_steps": 5000,
        },
    ),
    "baby_gpu": (
        "tiny_stories (its GPU model)",
        OF_BABIES | {
            "num_layers": 6, "hidden_size": 384, "num_heads": 6, "intermediate_size": 1536, "batch_size": 64,
            "max_steps": 10_000,
        },
    ),
    "mini_chat": (
        "mini_chat_gpt",
        {
            "num_layers": 12, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072, "max_seq_len": 1024,
            "arch": "llama", "norm": "layer", "dropout": 0.0, "batch_size": 8, "max_steps": 100_000, "lr": 3e-4,
            "warmup_steps": 2000, "optimizer": "adamw",
        },
    ),
    "slm": (
        "a small-language-model notebook (its min_lr of 5e-4 is above its lr; here it is 1e-5)",
        {
            "num_layers": 6, "hidden_size": 384, "num_heads": 6, "intermediate_size": 1536, "max_seq_len": 128,
            "arch": "gpt2", "dropout": 0.1, "batch_size": 32, "gradient_accumulation_steps": 32, "max_steps": 30_000,
            "lr": 1e-4, "min_lr": 1e-5, "warmup_steps": 1000, "optimizer": "adamw", "adam_beta1": 0.9,
            "adam_beta2": 0.95, "weight_decay": 0.1,
        },
    ),
    "cs336": (
        "Stanford CS336, assignment 1, goal: validation loss 1.45 after 327.68 M tokens (lr and batch are ours)",
        {
            "num_layers": 4, "hidden_size": 512, "num_heads": 16, "intermediate_size": 1344, "max_seq_len": 256,
            "arch": "llama", "tie_embeddings": False, "dropout": 0.0, "batch_size": 64, "max_steps": 20_000,
            "lr": 1e-3, "optimizer": "adamw",
        },
    ),
    "gpt2": (
        "GPT-2 small; nanoGPT (lr and batch)",
        {
            "num_layers": 12, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072, "max_seq_len": 1024,
            "arch": "gpt2", "dropout": 0.0, "batch_size": 12, "gradient_accumulation_steps": 40, "lr": 6e-4,
            "min_lr": 6e-5, "optimizer": "adamw",
        },
    ),
}  # fmt: skip
VOCABULARIES = (10_000, 50_257)  # step 1's default, GPT-2's
TITLES = (
    "preset", "in the layers", *(f"with {size:,} tokens" for size in VOCABULARIES), "layers x hidden, heads", "context",
    "batch", "lr", "length", "from",
)  # fmt: skip


def flags_of(name: str) -> dict:
    return PRESETS[name][1]


def config_of(name: str, vocab_size: int) -> ModelConfig:
    return settings_from(Namespace(**flags_of(name)), ModelConfig, vocab_size=vocab_size)


def parameters_of(name: str, vocab_size: int) -> tuple[int, int]:
    """Return how many parameters a preset's network has, (in the layers, in all), without allocating them."""
    with torch.device("meta"):
        return Transformer(config_of(name, vocab_size)).num_parameters()


def preset_table() -> str:
    """Return the table that --preset list prints, one line per preset."""
    rows = [TITLES, *(preset_row(name) for name in PRESETS)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def preset_row(name: str) -> list[str]:
    source, flags = PRESETS[name]
    config = config_of(name, VOCABULARIES[0])
    settings = settings_from(Namespace(**flags), TrainingSettings)
    in_layers, _ = parameters_of(name, VOCABULARIES[0])
    sizes = [in_layers, *(parameters_of(name, size)[1] for size in VOCABULARIES)]
    batch = [str(count) for count in (settings.batch_size, settings.gradient_accumulation_steps) if count > 1]
    return [
        name,
        *(f"{size / 1e6:.1f} M" for size in sizes),
        f"{config.num_layers} x {config.hidden_size}, {config.num_heads}",
        str(config.max_seq_len),
        " x ".join(batch),
        f"{settings.lr:.0e}",
        f"{settings.max_steps:,} steps" if settings.max_steps else f"{settings.epochs} epochs",
        source,
    ]
