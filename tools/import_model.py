"""Take over a model from elsewhere: into a model file and a tokenizer file that steps 3 to 5 accept.

    python tools/import_model.py TinyStories-33M imported
    python tools/import_model.py stories260K.bin imported --tokenizer_path tok512.bin
    python tools/import_model.py old/best_model.pth imported --tokenizer_path old/bpe_tokenizer_tinystories.pkl

SOURCE is a folder in transformers' format with a GPT-2, GPT-Neo or Llama model (config.json, model.safetensors or
pytorch_model.bin, and a tokenizer.json, or vocab.json and merges.txt), a .bin of llama2.c, or an older course's model
file with the args.json of its run beside it.  No code in any of these runs.  The logits of the tokens that the model
knows stay what they were; the course's special tokens that its tokenizer lacks come after its last id.

In reading order: `Settings` and `Source`, a stranger's files; `older_course`, `gpt2`, `gpt_neo` and `llama`, which turn
them into a config and weights; the tokenizers; `import_model`, which joins the two.  llama2.c's two formats are read in
formats/llama2c.py.
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
LLAMA2C_TOKENIZER = "tokenizer.bin"  # beside a model of llama2.c
ANY = -1  # a size that is not known before the weights are read
BUFFERS = re.compile(r"(position_ids|\.attn\.bias|\.attention\.bias|masked_bias|inv_freq)$")  # computed, not learned
GELUS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact"}  # transformers' names: ours
# Where a config.json has the sizes: {ours: (theirs, transformers' default)}.
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
# The modules of a `Block` by their names, as in export_to_hf.py; several matrices are stacked into one.
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


# What is in a stranger's files ----------------------------------------------------------------------------------------


class Settings:
    """The fields of a config.json or args.json; a field that is not there, or null, has the default."""

    def __init__(self, path: Path, fields: dict | None = None):
        """fields: those of a model that has no such file; None: read the file."""
        self.path = path
        fields = read_json(path) if fields is None else fields
        self.fields = {name: value for name, value in fields.items() if value is not None}

    def number(self, name: str, default: int | float) -> int | float:
        """The number above 0 in a field, of the default's kind.  Raises UserError for anything else."""
        value = self.fields.get(name, default)
        if type(value) not in (int, type(default)) or not 0 < value < 1 << 40:
            raise UserError(f"{self.path}: {name} is {one_line(value)}, and must be a number above 0")
        return value

    def numbers(self, sizes: dict[str, tuple]) -> dict:
        """{ours: number} of {ours: (theirs, default)}."""
        return {ours: self.number(theirs, default) for ours, (theirs, default) in sizes.items()}

    def demand(self, name: str, *allowed):
        """Raise UserError unless a field, or else the first of allowed, has one of the allowed values."""
        value = self.fields.get(name, allowed[0])
        if value not in allowed:
            wanted = " or ".join(str(value) for value in allowed)
            raise UserError(f"{self.path}: {name} is {one_line(value)}; only {wanted} can be taken over")
        return value


@dataclass
class Source:
    """A model's tensors by their names; what is taken is no longer there, so that what is left was not understood."""

    path: Path
    tensors: dict[str, torch.Tensor]

    def __post_init__(self):
        if not isinstance(self.tensors, dict) or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in self.tensors.items()
        ):
            raise UserError(f"{self.path} holds no model's weights; pass a file of weights alone")
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if not BUFFERS.search(name)}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """A tensor in float32.  Raises UserError if it is missing or has another shape, which may have sizes of ANY."""
        if name not in self.tensors:
            raise UserError(f"{self.path} lacks the weights {name}")
        tensor = self.tensors.pop(name)
        found = tensor.shape
        if len(found) != len(shape) or any(size not in (ANY, n) for size, n in zip(shape, found, strict=True)):
            raise UserError(f"{self.path}: {name} has the shape {list(found)}, where {list(shape)} was expected")
        if not tensor.is_floating_point():
            raise UserError(f"{self.path}: {name} holds whole numbers; a quantized model cannot be taken over")
        return tensor.float()

    def take_layers(self, config: dict, prefix: str, names: dict[str, list]) -> dict[str, torch.Tensor]:
        """The weights of all layers by the names of `Transformer`, with the biases that there are.

        prefix: what stands before a layer's number; names: {module of a `Block`: their names of its parts}.
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
        """Set the head's weights, or check that they are the table of tokens where the model says so."""
        table = weights["tokens.weight"]
        if tied and "lm_head.weight" not in self.tensors:
            return
        head = self.take("lm_head.weight", *table.shape)
        if not tied:
            weights["head.weight"] = head
        elif not torch.equal(head, table):
            raise UserError(f"{self.path}: lm_head.weight is not the table of tokens, as tie_word_embeddings says")

    def refuse_rest(self) -> None:
        if self.tensors:
            more = f" and {len(self.tensors) - 1} more" if len(self.tensors) > 1 else ""
            unknown = one_line(min(self.tensors))
            raise UserError(f"{self.path}: it is not known what {unknown}{more} does in the network")


def read_tensors(folder: Path) -> Source:
    """The tensors of a folder in transformers' format, in one file or in several; files of other names are not read."""
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
    except Exception as error:  # of its own kind
        raise UserError(f"{path} is damaged ({one_line(reason_of(error))}); copy it again") from None


# The kinds of models: from a Source and its Settings to a config, and weights by the names of `Transformer` -----------


def older_course(source: Source, settings: Settings) -> tuple[dict, dict]:
    """An older course's model: as GPT-2, but for the exact GELU and the epsilon.

    The run's args.json says what no shape shows.
    """
    for prefix in ("module.", "_orig_mod."):  # of several processes, of the compiler
        source.tensors = {name.removeprefix(prefix): tensor for name, tensor in source.tensors.items()}
    layers = {name.split(".")[2] for name in source.tensors if name.startswith("transformer.layers.")}
    outside = {name: tensor for name, tensor in source.tensors.items() if ".layers." not in name}
    tables = [name for name, tensor in outside.items() if tensor.dim() == 2 and "head" not in name]
    positions = [name for name in tables if "position" in name]
    words = [name for name in tables if "position" not in name]
    norms = [name for name in outside if name.endswith("norm.weight")]
    if not layers or not len(positions) == len(words) == len(norms) == 1:
        raise UserError(
            f"{source.path}: a table of tokens, one of positions and a last norm were expected beside the layers, "
            f"and found: {one_line(', '.join(sorted(outside)) or 'nothing')}"
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
        "intermediate_size": ANY,  # until the weights show it
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
    """GPT-2, which keeps its matrices as inputs x outputs."""
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
    """GPT-Neo, which does not divide by the root of a head's size.

    Its local layers see a window, ours all tokens: the same where the context is no longer than the window.
    """
    config = settings.numbers(GPT_NEO_SIZES)
    config["intermediate_size"] = settings.number("intermediate_size", 4 * config["hidden_size"])
    weights = take_gpt(source, settings, config, GPT_NEO_NAMES)
    for layer in range(config["num_layers"]):
        scale_queries(weights, layer, math.sqrt(config["hidden_size"] / config["num_heads"]))
    kinds = json.dumps(settings.fields.get("attention_types", [[["global", "local"], 12]]))
    if not re.fullmatch(r"[][, 0-9]*(\"(global|local)\"[][, 0-9]*)+", kinds):
        raise UserError(f"{settings.path}: attention_types is {one_line(kinds)}; only global and local are known")
    window = settings.number("window_size", 256)
    if "local" in kinds and window < config["max_seq_len"]:
        log.info(
            f"context: {window} tokens, not {config['max_seq_len']:,}: as far as its local layers see (window_size)"
        )
        config["max_seq_len"] = window
        weights["positions.weight"] = weights["positions.weight"][:window].clone()
    return config, weights


def take_gpt(source: Source, settings: Settings, config: dict, names: dict) -> dict:
    """What GPT-2 and GPT-Neo have in common: complete the config, and return the weights."""
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
    """Attention here divides by the root of a head's size; a model that does otherwise has other queries."""
    for kind in ("weight", "bias"):
        queries, _, _ = weights[f"blocks.{layer}.attention.qkv.{kind}"].chunk(3)
        queries *= factor  # in place


def add_missing_biases(weights: dict) -> None:
    """Give zeros to the matrices without a bias, in a network where others have one."""
    for name, weight in list(weights.items()):
        if name.startswith("blocks.") and weight.dim() == 2:
            weights.setdefault(name.replace(".weight", ".bias"), torch.zeros(len(weight)))


def llama(source: Source, settings: Settings) -> tuple[dict, dict]:
    """Llama; keys and values that several heads share are repeated for each of them."""
    rope = settings.fields.get("rope_parameters") or settings.fields.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UserError(f"{settings.path}: rope_scaling, other than none, cannot be taken over")
    if rope.get("rope_theta") is not None:
        settings.fields["rope_theta"] = rope["rope_theta"]
    config = settings.numbers(LLAMA_SIZES)
    size = config["hidden_size"]
    heads = config["num_heads"]
    groups = settings.number("num_key_value_heads", heads)
    if size % heads or heads % groups:
        raise UserError(f"{settings.path}: num_attention_heads {heads} does not divide into its other sizes")
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


# The tokenizers -------------------------------------------------------------------------------------------------------


def older_tokenizer(path: Path) -> WordBPE:
    """The tokenizer of an older course's .pkl file, whose ids it keeps."""
    if not path.is_file():
        raise UserError(f"no tokenizer file {path}; pass --tokenizer_path the one that the model was trained with")
    try:
        content = read_plain_pickle(path.read_bytes())
        codes = content["bpe_codes"]  # {pair of tokens: rank}, or pairs in the order of their ranks
        vocab = content["token2id"]
        merges = sorted(codes, key=lambda pair: int(codes[pair])) if isinstance(codes, dict) else codes
        if not all(isinstance(token, str) for token in vocab):
            raise ValueError("a token is no text")
        return WordBPE(vocab, merges)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # pickle raises nearly every kind on damaged bytes
        reason = f"{type(error).__name__}: {one_line(reason_of(error))}"
        raise UserError(f"{path} is no tokenizer file of an older course ({reason}); pass another") from None


def wrapped_tokenizer(place: Path, settings: Settings) -> tokenizers.Tokenizer:
    """The tokenizer in a folder, or a tokenizer.json; the ends of its texts become the course's <bos> and <eos>.

    Where the model's config names one token for both, it becomes <eos>: a text that the model writes should end there.
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
    except Exception as error:  # tokenizers raises nearly every kind on damaged files
        raise UserError(f"{place}: this tokenizer cannot be taken over ({one_line(reason_of(error))})") from None


def rename(content: dict, number: object, name: str) -> None:
    """Give the token with an id another name in a tokenizer's JSON, unless a text can have it or the name is taken.

    A text's end is <|endoftext|> where the id is no token's: who trained a tokenizer of their own may not have said it.
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


# Both together --------------------------------------------------------------------------------------------------------


def with_special_rows(weight: torch.Tensor, known: int, tokenizer: Tokenizer) -> torch.Tensor:
    """The rows (known tokens, C) of a table, and one for each special token that was added after them.

    These begin as the mean of the others, so that none stands out, and <bos>, which begins a text, as <eos>, after
    which the model was trained to begin one.
    """
    rows = weight[:known]
    new = rows.mean(0, keepdim=True).repeat(tokenizer.vocab_size - known, 1)
    begin = tokenizer.special["<bos>"]
    end = tokenizer.special["<eos>"]
    if begin >= known > end:
        new[begin - known] = rows[end]
    return torch.cat((rows, new))


def read_source(path: Path, tokenizer_path: Path | None) -> tuple:
    """(source, config, weights, tokenizer's backend) of what the user named."""
    if path.is_dir():
        settings = Settings(path / "config.json")
        kind = settings.fields.get("model_type")
        if not isinstance(kind, str) or kind not in KINDS:
            raise UserError(f"{settings.path}: model_type is {one_line(kind)}; known are {', '.join(KINDS)}")
        source = read_tensors(path)
        config, weights = KINDS[kind](source, settings)
        return source, config, weights, wrapped_tokenizer(tokenizer_path or path, settings)
    if llama2c.is_llama2c(path):
        return read_llama2c(path, tokenizer_path or path.with_name(LLAMA2C_TOKENIZER))
    content = read_any_torch_file(path)
    if isinstance(content, dict) and "format" in content:
        raise UserError(f"{path} is a file of this course already; the next steps take it as it is")
    if isinstance(content, dict) and "model_state_dict" in content:
        content = content["model_state_dict"]
    source = Source(path, content)
    config, weights = older_course(source, Settings(path.with_name("args.json")))
    return source, config, weights, older_tokenizer(tokenizer_path or Path(TOKENIZER_FILE))


def read_llama2c(path: Path, tokenizer_path: Path) -> tuple:
    """The same of a model of llama2.c."""
    fields, tensors = llama2c.read_model(path)
    source = Source(path, tensors)
    config, weights = llama(source, Settings(path, fields))
    content = llama2c.read_tokenizer(tokenizer_path, len(weights["tokens.weight"]))
    backend = tokenizers.Tokenizer.from_str(byte_level_only(json.dumps(content)))
    log.info('prompts: llama2.c puts a space before each; begin one with a space for the same tokens: " Once upon"')
    return source, config, weights, backend


def import_model(path: Path, tokenizer_path: Path | None = None) -> tuple[Transformer, Tokenizer]:
    """(model, tokenizer) of a folder or file.  Raises UserError, naming what cannot be taken over."""
    source, config, weights, backend = read_source(path, tokenizer_path)
    source.refuse_rest()
    known = max(backend.get_vocab().values()) + 1
    backend.add_special_tokens(SPECIAL_TOKENS)
    tokenizer = Tokenizer(backend)
    if known > len(weights["tokens.weight"]):
        raise UserError(
            f"{source.path} has rows for {len(weights['tokens.weight']):,} tokens, and the tokenizer has {known:,}; "
            "pass --tokenizer_path the one that it was trained with"
        )
    for name in ("tokens.weight", "head.weight"):
        if name in weights:
            weights[name] = with_special_rows(weights[name], known, tokenizer)
    try:
        config = ModelConfig(**config, vocab_size=tokenizer.vocab_size)
        check_weights(config, weights)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{source.path}: {one_line(reason_of(error))}; take another file") from None
    model = Transformer(config)
    model.load_state_dict(weights)
    added = [name for name in SPECIAL_TOKENS if tokenizer.special[name] >= known]
    log.info(f"model: {source.path}, {model.num_parameters()[1]:,} parameters, {config.describe()}")
    log.info(f"tokens: {known:,}" + (f", and after them {' '.join(added)}, which are untrained" if added else ""))
    return model.eval(), tokenizer


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/import_model.py SOURCE OUT_DIR [flags]"
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder in transformers' format, a .bin of llama2.c, or an older course's .pth",
    )
    parser.add_argument("out_dir", metavar="OUT_DIR", help=f"gets a {MODEL_FILE} and a {TOKENIZER_FILE}")
    parser.add_argument(
        "--tokenizer_path",
        help=f"the tokenizer, if it is not in the folder; of llama2.c: its .bin (default: {LLAMA2C_TOKENIZER} beside "
        f"the model); of an older course: its .pkl (default: {TOKENIZER_FILE})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the two files if they are there")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    paths = [Path(args.out_dir, name) for name in (MODEL_FILE, TOKENIZER_FILE)]
    for path in paths:
        if path.exists() and not args.overwrite:
            raise UserError(f"{path} is already there; pass --overwrite to replace it, or another OUT_DIR")
    model, tokenizer = import_model(Path(args.source), args.tokenizer_path and Path(args.tokenizer_path))
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    save_model(paths[0], model, tokenizer.fingerprint)
    tokenizer.save(paths[1])
    for path in paths:
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    print(f"python generate_tinystories_text.py --model_path {paths[0]} --tokenizer_path {paths[1]}")


if __name__ == "__main__":
    run_program(main)
