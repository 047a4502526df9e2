"""Import a model from elsewhere: write a model file and a tokenizer file that steps 3 to 5 accept.

    python tools/import_model.py TinyStories-33M imported
    python tools/import_model.py stories260K.bin imported --tokenizer_path tok512.bin
    python tools/import_model.py old/best_model.pth imported --tokenizer_path old/bpe_tokenizer_tinystories.pkl

SOURCE is a folder in transformers' format with a GPT-2, GPT-Neo or Llama model (config.json, model.safetensors or
pytorch_model.bin, and a tokenizer.json, or vocab.json and merges.txt), a .bin of llama2.c, or an older course's model
file with its run's args.json next to it.  No code in these files is run.  The logits of the model's own tokens do not
change.  If its tokenizer does not have some of the course's special tokens, they get ids after its last one.

In reading order: `Settings` and `Source`, which read the files; `older_course`, `gpt2`, `gpt_neo` and `llama`, which
convert them to a config and weights; the tokenizers; `import_model`, which puts both together.  llama2.c's two formats
are read in formats/llama2c.py.
"""

import argparse
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export_to_hf import GPT2_NAMES, LLAMA_NAMES
from formats import llama2c

from common.console import log
from common.errors import UserError, one_line, reason_of
from common.files import read_json, read_plain_pickle
from common.flags import FlagParser
from common.program import run_program
from common.weights_files import check_weights, read_any_torch_file, save_model
from corpus.other_tokenizers import NotTaken, WordBPE, byte_level_only, from_folder
from data import SPECIAL_TOKENS, Tokenizer
from model import ModelConfig, Transformer

MODEL_FILE = "best_model.pth"
TOKENIZER_FILE = "bpe_tokenizer_tinystories.pkl"
LLAMA2C_TOKENIZER = "tokenizer.bin"  # next to a model of llama2.c
ANY = -1  # a size that is unknown before the weights are read
BUFFERS = re.compile(r"(position_ids|\.attn\.bias|\.attention\.bias|masked_bias|inv_freq)$")  # computed, not learned
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


# Reading the files ----------------------------------------------------------------------------------------------------


class Settings:
    """The fields of a config.json or args.json; a missing or null field has its default."""

    def __init__(self, path: Path, fields: dict | None = None):
        """path: the file to read; fields: used instead of the file, if given."""
        self.path = path
        fields = read_json(path) if fields is None else fields
        self.fields = {name: value for name, value in fields.items() if value is not None}

    def number(self, name: str, default: int | float) -> int | float:
        """Return the number above 0 in a field, of the type of the default.  Raises UserError for other values."""
        value = self.fields.get(name, default)
        if type(value) not in (int, type(default)) or not 0 < value < 1 << 40:
            raise UserError(f"{self.path}: {name} is {one_line(value)}, but must be a number above 0")
        return value

    def numbers(self, sizes: dict[str, tuple]) -> dict:
        """Return {our name: number} for sizes = {our name: (name of the field, default)}."""
        return {ours: self.number(theirs, default) for ours, (theirs, default) in sizes.items()}

    def demand(self, name: str, *allowed):
        """Return a field (default: the first allowed value).  Raises UserError if its value is not allowed."""
        value = self.fields.get(name, allowed[0])
        if value not in allowed:
            wanted = " or ".join(str(value) for value in allowed)
            raise UserError(f"{self.path}: {name} is {one_line(value)}; only {wanted} can be imported")
        return value


@dataclass
class Source:
    """The tensors of a model by name.  `take` removes them, so at the end the tensors that remain are unknown ones."""

    path: Path
    tensors: dict[str, torch.Tensor]

    def __post_init__(self):
        if not isinstance(self.tensors, dict) or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in self.tensors.items()
        ):
            raise UserError(f"{self.path} does not contain a model's weights; pass a file with only weights")
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if not BUFFERS.search(name)}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Remove and return a tensor in float32.  Raises UserError if it is missing or has another shape (ANY fits)."""
        if name not in self.tensors:
            raise UserError(f"{self.path} does not have the weights {name}")
        tensor = self.tensors.pop(name)
        found = tensor.shape
        if len(found) != len(shape) or any(size not in (ANY, n) for size, n in zip(shape, found, strict=True)):
            raise UserError(f"{self.path}: {name} has the shape {list(found)}, but {list(shape)} was expected")
        if not tensor.is_floating_point():
            raise UserError(f"{self.path}: {name} contains integers; a quantized model cannot be imported")
        return tensor.float()

    def take_layers(self, config: dict, prefix: str, names: dict[str, list]) -> dict[str, torch.Tensor]:
        """Take the weights of all layers, with the biases that exist; return them by their names in `Transformer`.

        prefix: the text before a layer's number; names: {module of a `Block`: [names of its parts in the file]}.
        """
        size = config["hidden_size"]
        inner = config["intermediate_size"]
        shapes = {  # of each part
            "attention.qkv": (3 * size // len(names["attention.qkv"]), size), "attention.output": (size, size),
            "feed_forward.up": (inner, size), "feed_forward.down": (size, inner), "norm1": (size,), "norm2": (size,),
        }  # fmt: skip
        weights = {}
        for layer in range(config["num_layers"]):
            for ours, theirs in names.items():
                paths = [f"{prefix}.{layer}.{name}" for name in theirs]
                parts = [self.take(f"{path}.weight", *shapes[ours]) for path in paths]
                weights[f"blocks.{layer}.{ours}.weight"] = torch.cat(parts).contiguous()
                if f"{paths[0]}.bias" in self.tensors:
                    biases = [self.take(f"{path}.bias", len(part)) for path, part in zip(paths, parts, strict=True)]
                    weights[f"blocks.{layer}.{ours}.bias"] = torch.cat(biases)
        return weights

    def take_head(self, weights: dict, tied: bool) -> None:
        """Set the weights of the head; if they are tied, check that they are equal to the token embeddings."""
        table = weights["tokens.weight"]
        if tied and "lm_head.weight" not in self.tensors:
            return
        head = self.take("lm_head.weight", *table.shape)
        if not tied:
            weights["head.weight"] = head
        elif not torch.equal(head, table):
            raise UserError(f"{self.path}: lm_head.weight is not equal to the token embeddings (tie_word_embeddings)")

    def refuse_rest(self) -> None:
        if self.tensors:
            more = f" and {len(self.tensors) - 1} more" if len(self.tensors) > 1 else ""
            unknown = one_line(min(self.tensors))
            raise UserError(f"{self.path} has unknown weights: {unknown}{more}")


def read_tensors(folder: Path) -> Source:
    """Read the tensors of a folder in transformers' format, in one or several files; other files are not read."""
    kinds = (("model", ".safetensors", read_safetensors), ("pytorch_model", ".bin", read_any_torch_file))
    for stem, suffix, read in kinds:
        whole = folder / f"{stem}{suffix}"
        paths = [whole] if whole.is_file() else sorted(folder.glob(f"{stem}-[0-9]*-of-[0-9]*{suffix}"))
        if paths:
            tensors = {}
            for path in paths:
                tensors |= Source(path, read(path)).tensors
            return Source(paths[0], tensors)
    raise UserError(f"{folder} has neither a model.safetensors nor a pytorch_model.bin")


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError('reading .safetensors needs safetensors: pip install -e ".[hf]"') from None
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own error type
        raise UserError(f"{path} is damaged ({one_line(reason_of(error))}); copy it again") from None


# Kinds of models: each function converts a Source and its Settings to a config and the weights of `Transformer` -------


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


# Tokenizers -----------------------------------------------------------------------------------------------------------


def older_tokenizer(path: Path) -> WordBPE:
    """Read the tokenizer of an older course from its .pkl file; the ids do not change."""
    if not path.is_file():
        raise UserError(f"no tokenizer file {path}; pass the tokenizer of the model with --tokenizer_path")
    try:
        content = read_plain_pickle(path.read_bytes())
        codes = content["bpe_codes"]  # {pair of tokens: rank}, or pairs in the order of their ranks
        vocab = content["token2id"]
        merges = sorted(codes, key=lambda pair: int(codes[pair])) if isinstance(codes, dict) else codes
        if not all(isinstance(token, str) for token in vocab):
            raise ValueError("a token is not text")
        return WordBPE(vocab, merges)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # pickle can raise almost any error for damaged bytes
        reason = f"{type(error).__name__}: {one_line(reason_of(error))}"
        raise UserError(f"{path} is not a tokenizer file of an older course ({reason}); pass another file") from None


def wrapped_tokenizer(place: Path, settings: Settings) -> tokenizers.Tokenizer:
    """Read the tokenizer in a folder or a tokenizer.json; its begin and end tokens become the course's <bos> and <eos>.

    If the model's config has one token for both, it becomes <eos>, because generated texts should end there.
    """
    try:
        content = from_folder(place) if place.is_dir() else read_json(place)
        content = json.loads(byte_level_only(json.dumps(content)))
        rename(content, settings.fields.get("eos_token_id"), "<eos>")
        rename(content, settings.fields.get("bos_token_id"), "<bos>")
        return tokenizers.Tokenizer.from_str(json.dumps(content))
    except UserError as error:
        advice = "" if isinstance(error, NotTaken) else "; pass --tokenizer_path"
        raise UserError(str(error) if str(place) in str(error) else f"{place}: {error}{advice}") from None
    except Exception as error:  # tokenizers can raise almost any error for damaged files
        raise UserError(f"{place}: this tokenizer cannot be imported ({one_line(reason_of(error))})") from None


def rename(content: dict, number: object, name: str) -> None:
    """Rename the token with this id in a tokenizer's JSON, unless normal text can contain it or the name is used.

    If the id of <eos> is not a token, <|endoftext|> is used: the config of a self-trained tokenizer may be wrong.
    """
    vocab = content["model"]["vocab"]
    added = content.setdefault("added_tokens", [])
    names = {i: token for token, i in vocab.items()} | {token["id"]: token["content"] for token in added}
    if isinstance(number, list) and number:
        number = number[0]
    old = names.get(number)
    if old is None and name == "<eos>" and "<|endoftext|>" in names.values():
        old = "<|endoftext|>"
    marks = [token for token in added if token["content"] == old]
    if old is None or name in names.values() or old in SPECIAL_TOKENS or not (marks or re.fullmatch("<.+>", old)):
        return
    for token in marks:
        token["content"] = name
    if old in vocab:
        vocab[name] = vocab.pop(old)


# Model and tokenizer together -----------------------------------------------------------------------------------------


def with_special_rows(weight: torch.Tensor, known: int, tokenizer: Tokenizer) -> torch.Tensor:
    """Return the first `known` rows (C numbers each) of an embedding, plus one row for each added special token.

    A new row is the mean of the others, so that no new token stands out at first.  Only a new <bos> is a copy of a
    known <eos>: both come before a new text.
    """
    rows = weight[:known]
    new = rows.mean(0, keepdim=True).repeat(tokenizer.vocab_size - known, 1)
    begin = tokenizer.special["<bos>"]
    end = tokenizer.special["<eos>"]
    if begin >= known > end:
        new[begin - known] = rows[end]
    return torch.cat((rows, new))


def read_source(path: Path, tokenizer_path: Path | None) -> tuple:
    """Read a folder or file; return (source, config, weights, the tokenizer's backend)."""
    if path.is_dir():
        settings = Settings(path / "config.json")
        kind = settings.fields.get("model_type")
        if not isinstance(kind, str) or kind not in KINDS:
            raise UserError(f"{settings.path}: model_type is {one_line(kind)}; only {', '.join(KINDS)} can be imported")
        source = read_tensors(path)
        config, weights = KINDS[kind](source, settings)
        return source, config, weights, wrapped_tokenizer(tokenizer_path or path, settings)
    if llama2c.is_llama2c(path):
        return read_llama2c(path, tokenizer_path or path.with_name(LLAMA2C_TOKENIZER))
    content = read_any_torch_file(path)
    if isinstance(content, dict) and "format" in content:
        raise UserError(f"{path} is already a file of this course; use it directly in steps 3 to 5")
    if isinstance(content, dict) and "model_state_dict" in content:
        content = content["model_state_dict"]
    source = Source(path, content)
    config, weights = older_course(source, Settings(path.with_name("args.json")))
    return source, config, weights, older_tokenizer(tokenizer_path or Path(TOKENIZER_FILE))


def read_llama2c(path: Path, tokenizer_path: Path) -> tuple:
    """Do the same for a model of llama2.c."""
    fields, tensors = llama2c.read_model(path)
    source = Source(path, tensors)
    config, weights = llama(source, Settings(path, fields))
    content = llama2c.read_tokenizer(tokenizer_path, len(weights["tokens.weight"]))
    backend = tokenizers.Tokenizer.from_str(byte_level_only(json.dumps(content)))
    log.info('prompts: llama2.c puts a space before each prompt; do the same to get the same tokens: " Once upon"')
    return source, config, weights, backend


def import_model(path: Path, tokenizer_path: Path | None = None) -> tuple[Transformer, Tokenizer]:
    """Import a folder or file; return (model, tokenizer).  Raises UserError that names what cannot be imported."""
    source, config, weights, backend = read_source(path, tokenizer_path)
    source.refuse_rest()
    known = max(backend.get_vocab().values()) + 1
    backend.add_special_tokens(SPECIAL_TOKENS)
    tokenizer = Tokenizer(backend)
    if known > len(weights["tokens.weight"]):
        raise UserError(
            f"{source.path} has rows for {len(weights['tokens.weight']):,} tokens, but the tokenizer has {known:,}; "
            "pass the tokenizer of the model with --tokenizer_path"
        )
    for name in ("tokens.weight", "head.weight"):
        if name in weights:
            weights[name] = with_special_rows(weights[name], known, tokenizer)
    try:
        config = ModelConfig(**config, vocab_size=tokenizer.vocab_size)
        check_weights(config, weights)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{source.path}: {one_line(reason_of(error))}; use another file") from None
    model = Transformer(config)
    model.load_state_dict(weights)
    added = [name for name in SPECIAL_TOKENS if tokenizer.special[name] >= known]
    log.info(f"model: {source.path}, {model.num_parameters()[1]:,} parameters, {config.describe()}")
    log.info(f"tokens: {known:,}" + (f", plus {' '.join(added)}, which are untrained" if added else ""))
    return model.eval(), tokenizer


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/import_model.py SOURCE OUT_DIR [flags]"
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder in transformers' format, a .bin of llama2.c, or an older course's .pth",
    )
    parser.add_argument("out_dir", metavar="OUT_DIR", help=f"folder for {MODEL_FILE} and {TOKENIZER_FILE}")
    parser.add_argument(
        "--tokenizer_path",
        help=f"the tokenizer, if it is not in the folder; for llama2.c: its .bin (default: {LLAMA2C_TOKENIZER} next to "
        f"the model); for an older course: its .pkl (default: {TOKENIZER_FILE})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the two files if they exist")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    paths = [Path(args.out_dir, name) for name in (MODEL_FILE, TOKENIZER_FILE)]
    for path in paths:
        if path.exists() and not args.overwrite:
            raise UserError(f"{path} already exists; pass --overwrite to replace it, or use another OUT_DIR")
    model, tokenizer = import_model(Path(args.source), args.tokenizer_path and Path(args.tokenizer_path))
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    save_model(paths[0], model, tokenizer.fingerprint)
    tokenizer.save(paths[1])
    for path in paths:
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    print(f"python generate_tinystories_text.py --model_path {paths[0]} --tokenizer_path {paths[1]}")


if __name__ == "__main__":
    run_program(main)
