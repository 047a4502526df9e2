"""Import a model from elsewhere: write a model file and a tokenizer file that steps 3 to 5 accept.

    python tools/import_model.py TinyStories-33M imported
    python tools/import_model.py stories260K.bin imported --tokenizer_path tok512.bin
    python tools/import_model.py old/best_model.pth imported --tokenizer_path old/bpe_tokenizer_tinystories.pkl

SOURCE is a folder in transformers' format with a GPT-2, GPT-Neo or Llama model (config.json, model.safetensors or
pytorch_model.bin, and a tokenizer.json, or vocab.json and merges.txt), a .bin of llama2.c, or an older course's model
file with its run's args.json next to it.  No code in these files is run.  The logits of the model's own tokens do not
change.  If its tokenizer does not have some of the course's special tokens, they get ids after its last one.

In reading order: the tokenizers; `import_model`, which puts model and tokenizer together.  formats/source.py reads the
files, formats/networks.py converts what is in them to a config and weights, formats/llama2c.py reads llama2.c's two
formats.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import tokenizers
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from formats import llama2c
from formats.networks import KINDS, llama, older_course
from formats.source import Settings, Source, read_tensors

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
    log.info(f"tokens: {known:,}" + (f", plus {' '.join(added)}, added here" if added else ""))
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


def check_source(path: Path) -> None:
    """Raise UserError for a path that is not the one to pass."""
    if not path.exists():
        raise UserError(f"no file or folder {path}; pass what SOURCE in --help says")
    if path.is_file() and path.suffix in (".safetensors", ".json"):
        raise UserError(f"{path} is a part of a model in transformers' format; pass its folder, {path.parent}")


def main() -> None:
    args = parse_args()
    paths = [Path(args.out_dir, name) for name in (MODEL_FILE, TOKENIZER_FILE)]
    for path in paths:
        if path.exists() and not args.overwrite:
            raise UserError(f"{path} already exists; pass --overwrite to replace it, or use another OUT_DIR")
    check_source(Path(args.source))
    model, tokenizer = import_model(Path(args.source), args.tokenizer_path and Path(args.tokenizer_path))
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    save_model(paths[0], model, tokenizer.fingerprint)
    tokenizer.save(paths[1])
    for path in paths:
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    print(f"python generate_tinystories_text.py --model_path {paths[0]} --tokenizer_path {paths[1]}")


if __name__ == "__main__":
    run_program(main)
