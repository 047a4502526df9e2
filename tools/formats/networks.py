"""Kinds of foreign models: each function converts a `Source` and its `Settings` to a config and our weights.

In reading order: `older_course`; `gpt2`, `gpt_neo` and `llama`, the kinds in transformers' format, which `KINDS` names.
"""

import json
import math
import re

import torch
from export_to_hf import GPT2_NAMES, LLAMA_NAMES

from common.console import log
from common.errors import UserError, one_line
from formats.source import ANY, Settings, Source

GELUS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact"}  # {transformers' name: our name}
# The names of the sizes in a config.json: {our name: (its name, transformers' default)}.
GPT2_SIZES = {
    "hidden_size": ("n_embd", 768), "num_heads": ("n_head", 12), "num_layers": ("n_layer", 12),
    "max_seq_len": ("n_positions", 1024), "norm_epsilon": ("layer_norm_epsilon", 1e-5),
}  # fmt: skip
GPT_NEO_SIZES = {
    "hidden_size": ("hidden_size", 2048), "num_heads": ("num_heads", 16), "num_layers": ("num_layers", 24),
    "max_seq_len": ("max_position_embeddings", 2048), "norm_epsilon": ("layer_norm_epsilon", 1e-5),
}  # fmt: skip
LLAMA_SIZES = {
    "hidden_size": ("hidden_size", 4096), "num_heads": ("num_attention_heads", 32),
    "num_layers": ("num_hidden_layers", 32), "max_seq_len": ("max_position_embeddings", 2048),
    "intermediate_size": ("intermediate_size", 11008), "norm_epsilon": ("rms_norm_eps", 1e-6),
    "rotary_base": ("rope_theta", 10_000.0),
}  # fmt: skip
# The names of a `Block`'s modules, as in export_to_hf.py; if there are several, their matrices are stacked into one.
GPT_NEO_NAMES = GPT2_NAMES | {
    "attention.qkv": ["attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"],
    "attention.output": ["attn.attention.out_proj"],
}
OLDER_NAMES = {
    "norm1": ["layer_norm1"], "norm2": ["layer_norm2"],
    "attention.qkv": ["attention.query", "attention.key", "attention.value"],
    "attention.output": ["attention.output"],
    "feed_forward.up": ["feed_forward.dense1"], "feed_forward.down": ["feed_forward.dense2"],
}  # fmt: skip


def older_course(source: Source, settings: Settings) -> tuple[dict, dict]:
    """Convert an older course's model: like GPT-2, except for the exact GELU and the epsilon.

    The run's args.json has the settings that the shapes do not show.
    """
    for prefix in ("module.", "_orig_mod."):  # of DistributedDataParallel, of torch.compile
        source.tensors = {name.removeprefix(prefix): tensor for name, tensor in source.tensors.items()}
    layers = {name.split(".")[2] for name in source.tensors if name.startswith("transformer.layers.")}
    outside = {name: tensor for name, tensor in source.tensors.items() if ".layers." not in name}
    tables = [name for name, tensor in outside.items() if tensor.dim() == 2 and "head" not in name]
    positions = [name for name in tables if "position" in name]
    words = [name for name in tables if "position" not in name]
    norms = [name for name in outside if name.endswith("norm.weight")]
    if not layers or not len(positions) == len(words) == len(norms) == 1:
        raise UserError(
            f"{source.path}: expected layers, token embeddings, position embeddings and a last norm, but outside the "
            f"layers found: {one_line(', '.join(sorted(outside)) or 'nothing')}"
        )
    weights = {
        "tokens.weight": source.take(words[0], ANY, ANY),
        "positions.weight": source.take(positions[0], ANY, ANY),
    }
    context, size = weights["positions.weight"].shape
    weights["norm.weight"] = source.take(norms[0], size)
    weights["norm.bias"] = source.take(norms[0].removesuffix("weight") + "bias", size)
    config = {
        "arch": "gpt2", "mlp": "gelu_exact", "norm_epsilon": 1e-12, "num_layers": len(layers), "hidden_size": size,
        "num_heads": settings.number("num_heads", 8), "max_seq_len": context,
        "intermediate_size": ANY,  # set below, from the weights
    }  # fmt: skip
    weights |= source.take_layers(config, "transformer.layers", OLDER_NAMES)
    config["intermediate_size"] = len(weights["blocks.0.feed_forward.up.weight"])
    for name in outside:
        if "head" in name:
            head = source.take(name, *weights["tokens.weight"].shape)
            if not torch.equal(head, weights["tokens.weight"]):
                weights["head.weight"] = head
    config["tie_embeddings"] = "head.weight" not in weights
    window = settings.number("window_size", 256)
    config["window_size"] = window if window < context else None
    return config, weights


def gpt2(source: Source, settings: Settings) -> tuple[dict, dict]:
    """Convert GPT-2, which stores its matrices as (inputs, outputs)."""
    settings.demand("add_cross_attention", False)
    scaled = settings.demand("scale_attn_weights", True, False)
    by_layer = settings.demand("scale_attn_by_inverse_layer_idx", False, True)
    for name, tensor in source.tensors.items():
        if re.search(r"\.c_\w+\.weight$", name) and tensor.dim() == 2:
            source.tensors[name] = tensor.T
    config = settings.numbers(GPT2_SIZES)
    config["intermediate_size"] = settings.number("n_inner", 4 * config["hidden_size"])
    weights = take_gpt(source, settings, config, GPT2_NAMES)
    for layer in range(config["num_layers"]):
        factor = 1.0 if scaled else math.sqrt(config["hidden_size"] / config["num_heads"])
        if by_layer:
            factor /= layer + 1
        scale_queries(weights, layer, factor)
    return config, weights


def gpt_neo(source: Source, settings: Settings) -> tuple[dict, dict]:
    """Convert GPT-Neo, which does not divide attention scores by the square root of the head size.

    Its local layers see only a window, ours see all tokens.  Both are the same if the context fits into the window.
    """
    config = settings.numbers(GPT_NEO_SIZES)
    config["intermediate_size"] = settings.number("intermediate_size", 4 * config["hidden_size"])
    weights = take_gpt(source, settings, config, GPT_NEO_NAMES)
    for layer in range(config["num_layers"]):
        scale_queries(weights, layer, math.sqrt(config["hidden_size"] / config["num_heads"]))
    kinds = json.dumps(settings.fields.get("attention_types", [[["global", "local"], 12]]))
    if not re.fullmatch(r"[][, 0-9]*(\"(global|local)\"[][, 0-9]*)+", kinds):
        raise UserError(f"{settings.path}: attention_types is {one_line(kinds)}; only global and local can be imported")
    window = settings.number("window_size", 256)
    if "local" in kinds and window < config["max_seq_len"]:
        log.info(
            f"context: {window} tokens, not {config['max_seq_len']:,}, since its local layers see no more (window_size)"
        )
        config["max_seq_len"] = window
        weights["positions.weight"] = weights["positions.weight"][:window].clone()
    return config, weights


def take_gpt(source: Source, settings: Settings, config: dict, names: dict) -> dict:
    """Do what GPT-2 and GPT-Neo have in common: complete the config and return the weights."""
    config["arch"] = "gpt2"
    config["mlp"] = GELUS[settings.demand("activation_function", *GELUS)]
    config["tie_embeddings"] = settings.demand("tie_word_embeddings", True, False)
    size = config["hidden_size"]
    prefix = "transformer." if "transformer.wte.weight" in source.tensors else ""
    weights = {
        "tokens.weight": source.take(f"{prefix}wte.weight", ANY, size),
        "positions.weight": source.take(f"{prefix}wpe.weight", config["max_seq_len"], size),
        "norm.weight": source.take(f"{prefix}ln_f.weight", size),
        "norm.bias": source.take(f"{prefix}ln_f.bias", size),
    }
    weights |= source.take_layers(config, f"{prefix}h", names)
    add_missing_biases(weights)
    source.take_head(weights, config["tie_embeddings"])
    return weights


def scale_queries(weights: dict, layer: int, factor: float) -> None:
    """Scale the queries of a layer: our attention divides by the square root of the head size, other models may not."""
    for kind in ("weight", "bias"):
        queries, _, _ = weights[f"blocks.{layer}.attention.qkv.{kind}"].chunk(3)
        queries *= factor  # in place


def add_missing_biases(weights: dict) -> None:
    """Add zero biases to matrices without one, in a network where other matrices have a bias."""
    for name, weight in list(weights.items()):
        if name.startswith("blocks.") and weight.dim() == 2:
            weights.setdefault(name.replace(".weight", ".bias"), torch.zeros(len(weight)))


def llama(source: Source, settings: Settings) -> tuple[dict, dict]:
    """Convert Llama; keys and values that are shared by several heads are repeated for each head."""
    rope = settings.fields.get("rope_parameters") or settings.fields.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UserError(f"{settings.path}: rope_scaling cannot be imported; only models without it can")
    if rope.get("rope_theta") is not None:
        settings.fields["rope_theta"] = rope["rope_theta"]
    config = settings.numbers(LLAMA_SIZES)
    size = config["hidden_size"]
    heads = config["num_heads"]
    groups = settings.number("num_key_value_heads", heads)
    if size % heads or heads % groups:
        raise UserError(f"{settings.path}: num_attention_heads {heads} does not fit hidden_size or num_key_value_heads")
    settings.demand("head_dim", size // heads)
    settings.demand("hidden_act", "silu")
    settings.demand("partial_rotary_factor", 1)
    config["arch"] = "llama"
    config["tie_embeddings"] = settings.demand("tie_word_embeddings", False, True)
    weights = {
        "tokens.weight": source.take("model.embed_tokens.weight", ANY, size),
        "norm.weight": source.take("model.norm.weight", size),
    }
    for name, tensor in source.tensors.items():
        if re.search(r"\.[kv]_proj\.", name) and tensor.shape[:1] == (size // heads * groups,):
            shared = tensor.unflatten(0, (groups, -1))
            source.tensors[name] = shared.repeat_interleave(heads // groups, dim=0).flatten(0, 1)
    weights |= source.take_layers(config, "model.layers", LLAMA_NAMES)
    config["bias"] = any(name.endswith(".bias") for name in weights)
    if config["bias"]:
        add_missing_biases(weights)
    source.take_head(weights, config["tie_embeddings"])
    return config, weights


KINDS = {"gpt2": gpt2, "gpt_neo": gpt_neo, "llama": llama}
