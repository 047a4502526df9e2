"""Take over a model from elsewhere: into a model file and a tokenizer file that steps 3 to 5 accept.

    python tools/import_model.py TinyStories-33M imported
    python tools/import_model.py old/best_model.pth imported --tokenizer_path old/bpe_tokenizer_tinystories.pkl

SOURCE is a folder in transformers' format with a GPT-2, GPT-Neo or Llama model (config.json, model.safetensors or
pytorch_model.bin, and a tokenizer.json, or vocab.json and merges.txt), or an older course's model file with the
args.json of its run beside it.  No code in any of these runs.  The logits of the tokens that the model knows stay what
they were; the course's special tokens that its tokenizer lacks come after its last id.

In reading order: `Source`, tensors by name; `older_course`, `gpt2`, `gpt_neo` and `llama`, which turn them into a
config and weights; the tokenizers; `import_model`, which joins the two.
"""

import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.console import log
from common.errors import UserError, one_line
from common.files import LARGEST_JSON, read_json, read_plain_pickle
from common.flags import FlagParser
from common.program import run_program
from common.weights_files import check_weights, read_any_torch_file, save_model
from corpus.other_tokenizers import NotTaken, WordBPE, byte_level_only, from_folder
from data import SPECIAL_TOKENS, Tokenizer
from model import ModelConfig, Transformer

MODEL_FILE, TOKENIZER_FILE = "best_model.pth", "bpe_tokenizer_tinystories.pkl"
BUFFERS = re.compile(r"(position_ids|\.attn\.bias|\.attention\.bias|masked_bias|inv_freq)$")  # computed, not learned
GELUS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact"}  # transformers' names: ours


# What is in a stranger's files ----------------------------------------------------------------------------------------


class Settings:
    """The fields of a config.json or args.json; a field that is not there, or null, has the default."""

    def __init__(self, path):
        self.path, self.fields = path, read_json(path)

    def get(self, name, default=None):
        value = self.fields.get(name)
        return default if value is None else value

    def number(self, name, default=None, kind=int):
        value = self.get(name, default)
        if type(value) not in (int, kind) or not 0 < value < 1 << 40:
            raise UserError(f"{self.path}: {name} is {one_line(value)}, and must be a number above 0")
        return value

    def demand(self, name, *allowed):
        """Raise UserError unless a field, or else the first of allowed, has one of the allowed values."""
        if (value := self.get(name, allowed[0])) not in allowed:
            wanted = " or ".join(str(value) for value in allowed)
            raise UserError(f"{self.path}: {name} is {one_line(value)}; only {wanted} can be taken over")
        return value


@dataclass
class Source:
    """A model's tensors by their names; what is taken is no longer there, so that what is left was not understood."""

    path: Path
    tensors: dict

    def __post_init__(self):
        if not all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in self.tensors.items()):
            raise UserError(f"{self.path} holds no model's weights; pass a file of weights alone")
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if not BUFFERS.search(name)}

    def take(self, name, *shape):
        """A tensor in float32.  Raises UserError if it is missing or has another shape; -1: any size."""
        found = self.shape(name)
        if len(found) != len(shape) or any(size not in (-1, n) for size, n in zip(shape, found, strict=True)):
            raise UserError(f"{self.path}: {name} has the shape {list(found)}, where {list(shape)} was expected")
        if not self.tensors[name].is_floating_point():
            raise UserError(f"{self.path}: {name} holds whole numbers; a quantized model cannot be taken over")
        return self.tensors.pop(name).float()

    def shape(self, name):
        if name not in self.tensors:
            raise UserError(f"{self.path} lacks the weights {name}")
        return self.tensors[name].shape

    def linear(self, name, outputs, inputs, transposed=False, bias=True):
        """(weight (outputs, inputs), bias (outputs,), zeros where it has none); transposed: as GPT-2 keeps it."""
        weight = self.take(f"{name}.weight", *((inputs, outputs) if transposed else (outputs, inputs)))
        bias = self.take(f"{name}.bias", outputs) if bias else torch.zeros(outputs)
        return weight.T.contiguous() if transposed else weight, bias

    def take_head(self, weights, tied):
        """Set the head's weights, or look that they are the table of tokens, where both are one."""
        table = weights["tokens.weight"]
        if not tied:
            weights["head.weight"] = self.take("lm_head.weight", *table.shape)
        elif "lm_head.weight" in self.tensors and not torch.equal(self.take("lm_head.weight", *table.shape), table):
            raise UserError(f"{self.path}: its head is not the table of tokens, as tie_word_embeddings says")

    def refuse_rest(self):
        if self.tensors:
            more = f" and {len(self.tensors) - 1} more" if len(self.tensors) > 1 else ""
            unknown = one_line(min(self.tensors))
            raise UserError(f"{self.path}: it is not known what {unknown}{more} does in the network")


def read_tensors(folder):
    """The Source of a folder in transformers' format: one file, or those that an index names."""
    for name, read in (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_any_torch_file)):
        path, index = folder / name, folder / f"{name}.index.json"
        if path.is_file():
            return Source(path, read(path))
        if index.is_file():
            names = read_json(index).get("weight_map")
            names = list(names.values()) if isinstance(names, dict) else [None]
            if not all(isinstance(n, str) and re.fullmatch(r"[\w-]+(\.[\w-]+)*", n) for n in names):
                raise UserError(f"{index} names no files of this folder; copy it again")
            tensors = {}
            for shard in sorted(set(names)):
                tensors |= read(folder / shard)
            return Source(index, tensors)
    raise UserError(f"{folder} has neither a model.safetensors nor a pytorch_model.bin")


def read_safetensors(path):
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError('reading .safetensors needs safetensors: pip install -e ".[hf]"') from None
    if not path.is_file():
        raise UserError(f"no file {path}; copy it again")
    try:
        return load_file(path)
    except Exception as error:  # of its own kind
        raise UserError(f"{path} is damaged ({one_line(str(error))}); copy it again") from None


# The kinds of models --------------------------------------------------------------------------------------------------


def put(weights, name, parts, bias=True):
    """Set a layer's weight, and its bias if the network has them."""
    weights[f"{name}.weight"] = parts[0]
    if bias:
        weights[f"{name}.bias"] = parts[1]


def norm(source, name, size):
    return source.take(f"{name}.weight", size), source.take(f"{name}.bias", size)


def stacked(*linears):
    """One layer (weight, bias) that computes what several do, side by side."""
    return tuple(torch.cat(parts) for parts in zip(*linears, strict=True))


def older_course(source, settings):
    """An older course's model -> (config, weights), by the names of `model.Transformer`, as from the next three.

    It is as GPT-2, but for the exact GELU and the epsilon.  The run's args.json says what no shape shows.
    """
    for prefix in ("module.", "_orig_mod."):  # of several processes, of the compiler
        source.tensors = {name.removeprefix(prefix): tensor for name, tensor in source.tensors.items()}
    rest = {name: tensor for name, tensor in source.tensors.items() if ".layers." not in name}
    tables = [name for name in rest if rest[name].dim() == 2 and "head" not in name]
    positions = [name for name in tables if "position" in name]
    words, last = set(tables) - set(positions), [name for name in rest if name.endswith("norm.weight")]
    if not len(positions) == len(words) == len(last) == 1:
        raise UserError(
            f"{source.path}: a table of tokens, one of positions and a last norm were expected beside the layers, "
            f"and found: {one_line(', '.join(sorted(rest)) or 'nothing')}"
        )
    table, positions = source.take(*words, -1, -1), source.take(*positions, -1, -1)
    (context, size), inner = positions.shape, source.shape("transformer.layers.0.feed_forward.dense1.weight")[0]
    weights = {"tokens.weight": table, "positions.weight": positions}
    put(weights, "norm", norm(source, last[0].removesuffix(".weight"), size))
    for name in [name for name in rest if "head" in name and rest[name].shape == table.shape]:
        if not torch.equal(head := source.take(name, *table.shape), table):
            weights["head.weight"] = head
    layer = 0
    while any(name.startswith(f"transformer.layers.{layer}.") for name in source.tensors):
        old, new = f"transformer.layers.{layer}", f"blocks.{layer}"
        qkv = [source.linear(f"{old}.attention.{name}", size, size) for name in ("query", "key", "value")]
        put(weights, f"{new}.attention.qkv", stacked(*qkv))
        put(weights, f"{new}.attention.output", source.linear(f"{old}.attention.output", size, size))
        put(weights, f"{new}.feed_forward.up", source.linear(f"{old}.feed_forward.dense1", inner, size))
        put(weights, f"{new}.feed_forward.down", source.linear(f"{old}.feed_forward.dense2", size, inner))
        for number in (1, 2):
            put(weights, f"{new}.norm{number}", norm(source, f"{old}.layer_norm{number}", size))
        layer += 1
    window = settings.number("window_size", 256)
    config = {"arch": "gpt2", "mlp": "gelu_exact", "norm_epsilon": 1e-12, "num_layers": layer, "hidden_size": size}
    config |= {"num_heads": settings.number("num_heads", 8), "intermediate_size": inner, "max_seq_len": context}
    config |= {"window_size": window if window < context else None, "tie_embeddings": "head.weight" not in weights}
    return config, weights


def gpt2(source, settings):
    size, heads = settings.number("n_embd", 768), settings.number("n_head", 12)
    settings.demand("add_cross_attention", False)
    scaled = settings.demand("scale_attn_weights", True, False)
    by_layer = settings.demand("scale_attn_by_inverse_layer_idx", False, True)

    def attention(old, layer):
        qkv = source.linear(f"{old}.c_attn", 3 * size, size, transposed=True)
        factor = (1 if scaled else math.sqrt(size / heads)) / (layer + 1 if by_layer else 1)
        return scaled_queries(qkv, size, factor), source.linear(f"{old}.c_proj", size, size, transposed=True)

    config = {"hidden_size": size, "num_heads": heads, "num_layers": settings.number("n_layer", 12)}
    config |= {"max_seq_len": settings.number("n_positions", 1024)}
    config |= {"intermediate_size": settings.number("n_inner", 4 * size)}
    return gpt(source, settings, config, attention, transposed=True)


def gpt_neo(source, settings):
    """Its local layers see a window, ours all tokens: the same where the context is no longer than the window."""
    size, heads = settings.number("hidden_size", 2048), settings.number("num_heads", 16)

    def attention(old, layer):
        old = f"{old}.attention"
        qkv = stacked(*(source.linear(f"{old}.{name}_proj", size, size, bias=False) for name in "qkv"))
        return scaled_queries(qkv, size, math.sqrt(size / heads)), source.linear(f"{old}.out_proj", size, size)

    config = {"hidden_size": size, "num_heads": heads, "num_layers": settings.number("num_layers", 24)}
    config |= {"max_seq_len": settings.number("max_position_embeddings", 2048)}
    config |= {"intermediate_size": settings.number("intermediate_size", 4 * size)}
    config, weights = gpt(source, settings, config, attention)
    kinds = settings.fields.get("attention_types", [[["global", "local"], 12]])
    if not re.fullmatch(r"[][, 0-9]*(\"(global|local)\"[][, 0-9]*)+", json.dumps(kinds)):
        raise UserError(
            f"{settings.path}: attention_types is {one_line(json.dumps(kinds))}; only global and local are known"
        )
    window = settings.number("window_size", 256)
    if "local" in json.dumps(kinds) and window < config["max_seq_len"]:
        log.info(
            f"context: {window} tokens, not {config['max_seq_len']:,}: as far as its local layers see (window_size)"
        )
        config["max_seq_len"] = window
        weights["positions.weight"] = weights["positions.weight"][:window].clone()
    return config, weights


def scaled_queries(qkv, size, factor):
    """Attention here divides by the root of a head's size; a model that does otherwise has other queries."""
    return tuple(torch.cat((part[:size] * factor, part[size:])) for part in qkv)


def gpt(source, settings, config, attention, transposed=False):
    """What GPT-2 and GPT-Neo have in common; attention(name, layer): a layer's qkv and output."""
    size, inner = config["hidden_size"], config["intermediate_size"]
    tied = settings.demand("tie_word_embeddings", True, False)
    config |= {"arch": "gpt2", "tie_embeddings": tied}
    config |= {"mlp": GELUS[settings.demand("activation_function", *GELUS)]}
    config |= {"norm_epsilon": settings.number("layer_norm_epsilon", 1e-5, float)}
    prefix = "transformer." if "transformer.wte.weight" in source.tensors else ""
    weights = {"tokens.weight": source.take(f"{prefix}wte.weight", -1, size)}
    weights["positions.weight"] = source.take(f"{prefix}wpe.weight", config["max_seq_len"], size)
    put(weights, "norm", norm(source, f"{prefix}ln_f", size))
    for layer in range(config["num_layers"]):
        old, new = f"{prefix}h.{layer}", f"blocks.{layer}"
        qkv, output = attention(f"{old}.attn", layer)
        put(weights, f"{new}.attention.qkv", qkv)
        put(weights, f"{new}.attention.output", output)
        put(weights, f"{new}.feed_forward.up", source.linear(f"{old}.mlp.c_fc", inner, size, transposed))
        put(weights, f"{new}.feed_forward.down", source.linear(f"{old}.mlp.c_proj", size, inner, transposed))
        for number in (1, 2):
            put(weights, f"{new}.norm{number}", norm(source, f"{old}.ln_{number}", size))
    source.take_head(weights, tied)
    return config, weights


def llama(source, settings):
    size, heads = settings.number("hidden_size", 4096), settings.number("num_attention_heads", 32)
    groups, inner = settings.number("num_key_value_heads", heads), settings.number("intermediate_size", 11008)
    if size % heads or heads % groups:
        raise UserError(f"{settings.path}: num_attention_heads {heads} does not divide into its other sizes")
    settings.demand("head_dim", size // heads)
    settings.demand("hidden_act", "silu")
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UserError(f"{settings.path}: rope_scaling, other than none, cannot be taken over")
    settings.demand("partial_rotary_factor", 1)
    of_attention, of_mlp = (settings.demand(f"{name}_bias", False, True) for name in ("attention", "mlp"))
    bias = of_attention or of_mlp
    tied = settings.demand("tie_word_embeddings", False, True)
    config = {"arch": "llama", "hidden_size": size, "num_heads": heads, "intermediate_size": inner}
    config |= {"num_layers": settings.number("num_hidden_layers", 32), "bias": bias, "tie_embeddings": tied}
    config |= {"max_seq_len": settings.number("max_position_embeddings", 2048)}
    config |= {"norm_epsilon": settings.number("rms_norm_eps", 1e-6, float)}
    settings.fields |= {"rope_theta": rope.get("rope_theta", settings.get("rope_theta"))}
    config |= {"rotary_base": float(settings.number("rope_theta", 10_000, float))}
    weights = {"tokens.weight": source.take("model.embed_tokens.weight", -1, size)}
    weights["norm.weight"] = source.take("model.norm.weight", size)

    def repeated(part):
        """Keys or values that several heads share, once for each of them."""
        return part.unflatten(0, (groups, -1)).repeat_interleave(heads // groups, dim=0).flatten(0, 1)

    for layer in range(config["num_layers"]):
        old, new = f"model.layers.{layer}", f"blocks.{layer}"
        linear = lambda name, *sizes, old=old: source.linear(f"{old}.self_attn.{name}_proj", *sizes, bias=of_attention)
        keys, values = (tuple(map(repeated, linear(name, size // heads * groups, size))) for name in "kv")
        put(weights, f"{new}.attention.qkv", stacked(linear("q", size, size), keys, values), bias)
        put(weights, f"{new}.attention.output", linear("o", size, size), bias)
        gate, up = (source.linear(f"{old}.mlp.{name}_proj", inner, size, bias=of_mlp) for name in ("gate", "up"))
        put(weights, f"{new}.feed_forward.up", stacked(gate, up), bias)
        put(weights, f"{new}.feed_forward.down", source.linear(f"{old}.mlp.down_proj", size, inner, bias=of_mlp), bias)
        weights[f"{new}.norm1.weight"] = source.take(f"{old}.input_layernorm.weight", size)
        weights[f"{new}.norm2.weight"] = source.take(f"{old}.post_attention_layernorm.weight", size)
    source.take_head(weights, tied)
    return config, weights


KINDS = {"gpt2": gpt2, "gpt_neo": gpt_neo, "llama": llama}


# The tokenizers -------------------------------------------------------------------------------------------------------


def older_tokenizer(path):
    """The WordBPE of an older course's .pkl file, whose ids it keeps."""
    if not path.is_file():
        raise UserError(f"no tokenizer file {path}; pass --tokenizer_path the one that the model was trained with")
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("it is too large")
        content = read_plain_pickle(path.read_bytes())
        codes, vocab = content["bpe_codes"], content["token2id"]
        if not isinstance(codes, dict):
            codes = {tuple(pair): rank for rank, pair in enumerate(codes)}
        if not all(isinstance(rank, int) for rank in codes.values()) or not all(isinstance(t, str) for t in vocab):
            raise ValueError("a merge has no rank, or a token is no text")
        return WordBPE(vocab, sorted(codes, key=codes.get))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # pickle raises nearly every kind on damaged bytes
        reason = one_line(f"{type(error).__name__}: {error}")
        raise UserError(f"{path} is no tokenizer file of an older course ({reason}); pass another") from None


def wrapped_tokenizer(place, settings):
    """The tokenizer in a folder, or a tokenizer.json; the ends of its texts become the course's <bos> and <eos>.

    Where the model's config names one token for both, it becomes <eos>: a text that the model writes shall end there.
    """
    try:
        content = from_folder(place) if place.is_dir() else read_json(place)
        if any(content["model"].get(name) for name in ("end_of_word_suffix", "continuing_subword_prefix")):
            raise ValueError("it is no byte-level BPE")
        content = json.loads(byte_level_only(json.dumps(content)))
        for name, new in (("eos_token_id", "<eos>"), ("bos_token_id", "<bos>")):
            rename(content, settings.get(name), new)
        return tokenizers.Tokenizer.from_str(json.dumps(content))
    except UserError as error:
        advice = "" if isinstance(error, NotTaken) else "; pass --tokenizer_path"
        raise UserError(str(error) if str(place) in str(error) else f"{place}: {error}{advice}") from None
    except Exception as error:  # tokenizers raises nearly every kind on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{place}: this tokenizer cannot be taken over ({one_line(reason)})") from None


def rename(content, number, name):
    """Give the token with an id another name in a tokenizer's JSON, unless a text can have it or the name is taken.

    A text's end is <|endoftext|> where the id is no token's: who trained a tokenizer of their own may not have said it.
    """
    vocab, added = content["model"]["vocab"], content.setdefault("added_tokens", [])
    names = {i: token for token, i in vocab.items()} | {token["id"]: token["content"] for token in added}
    old = names.get(number[0] if isinstance(number, list) and number else number)
    if old is None and name == "<eos>":
        old = next((token for token in names.values() if token == "<|endoftext|>"), None)
    marks = [token for token in added if token["content"] == old]
    if old is None or name in names.values() or old in SPECIAL_TOKENS or not (marks or re.fullmatch("<.+>", old)):
        return
    for token in marks:
        token["content"] = name
    if old in vocab:
        vocab[name] = vocab.pop(old)


# Both together --------------------------------------------------------------------------------------------------------


def with_special_rows(weight, known, tokenizer):
    """The rows (known tokens, C) of a table, and one for each special token that was added after them.

    These begin as the mean of the others, so that none stands out, and <bos>, which begins a text, as <eos>, after
    which the model was trained to begin one.
    """
    rows = weight[:known]
    new = rows.mean(0, keepdim=True).repeat(tokenizer.vocab_size - known, 1)
    if tokenizer.special["<bos>"] >= known > tokenizer.special["<eos>"]:
        new[tokenizer.special["<bos>"] - known] = rows[tokenizer.special["<eos>"]]
    return torch.cat((rows, new))


def read_source(path, tokenizer_path):
    """(source, config, weights, tokenizer's backend) of what the user named."""
    if path.is_dir():
        settings = Settings(path / "config.json")
        kind = settings.get("model_type")
        if not isinstance(kind, str) or kind not in KINDS:
            raise UserError(f"{settings.path}: model_type is {one_line(kind)}; known are {', '.join(KINDS)}")
        source = read_tensors(path)
        return source, *KINDS[kind](source, settings), wrapped_tokenizer(tokenizer_path or path, settings)
    content = read_any_torch_file(path)
    if isinstance(content, dict) and "format" in content:
        raise UserError(f"{path} is a file of this course already; the next steps take it as it is")
    content = content.get("model_state_dict", content) if isinstance(content, dict) else {"": content}
    source, settings = Source(path, content), Settings(path.with_name("args.json"))
    return source, *older_course(source, settings), older_tokenizer(tokenizer_path or Path(TOKENIZER_FILE))


def import_model(path, tokenizer_path=None):
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
        raise UserError(f"{source.path}: {one_line(str(error))}; take another file") from None
    model = Transformer(config)
    model.load_state_dict(weights)
    added = [name for name in SPECIAL_TOKENS if tokenizer.special[name] >= known]
    log.info(f"model: {source.path}, {model.num_parameters()[1]:,} parameters, {config.describe()}")
    log.info(f"tokens: {known:,}" + (f", and after them {' '.join(added)}, which are untrained" if added else ""))
    return model.eval(), tokenizer


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.usage = "python tools/import_model.py SOURCE OUT_DIR [flags]"
    parser.add_argument("source", metavar="SOURCE", help="a folder in transformers' format, or an older course's .pth")
    parser.add_argument("out_dir", metavar="OUT_DIR", help=f"gets a {MODEL_FILE} and a {TOKENIZER_FILE}")
    parser.add_argument(
        "--tokenizer_path",
        help=f"the tokenizer, if it is not in the folder; of an older course: its .pkl (default: {TOKENIZER_FILE})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the two files if they are there")
    return parser.parse_args(argv)


def main():
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
