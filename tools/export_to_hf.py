"""Export a model as a folder that Hugging Face's `transformers` can open, as can other programs for its format.

    python tools/export_to_hf.py tinystories_model/best_model.pth exported
    python tools/export_to_hf.py tinystories_chat_model/best_model.pth exported_chat --push_to_hub YOUR_NAME/tiny-chat

--arch gpt2 becomes a GPT2LMHeadModel, --arch llama a LlamaForCausalLM; a network that is neither is refused.  The
folder has the weights, the tokenizer with a chat template, the sampling settings, and a model card with the run's
numbers.  No other package is needed.  docs/export.md shows how to use the folder.

In reading order: `hf_class`, which checks what can be exported; `gpt2_config` and `llama_config`, `gpt2_weights` and
`llama_weights`, the same network with other names; `tokenizer_files`; `model_card`; `write_folder`; the hub.
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tokenizers
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pages.model_card import model_card, run_records

from common.console import log
from common.errors import UserError, one_line, reason_of
from common.files import naming, on_disk, patiently
from common.flags import FlagParser
from common.program import run_program
from common.weights_files import load_model
from corpus.hub import HUB_SECONDS, within
from data import Tokenizer, load_tokenizer
from generation.sampling import Sampling
from model import ARCHITECTURES, ModelConfig, Transformer

CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}  # the class for each --arch
SHAPE = ("positions", "norm", "mlp")  # these decide between the two; both can have biases and untied embeddings
GELUS = {"gelu": "gelu_new", "gelu_exact": "gelu"}  # {our name: transformers' name}
CHAT_TEMPLATE = Path(__file__).resolve().parent / "pages/chat_template.jinja"
# {module of a `Block`: its names in transformers}; a matrix with several names is split into that many parts.
GPT2_NAMES = {
    "norm1": ["ln_1"], "attention.qkv": ["attn.c_attn"], "attention.output": ["attn.c_proj"],
    "norm2": ["ln_2"], "feed_forward.up": ["mlp.c_fc"], "feed_forward.down": ["mlp.c_proj"],
}  # fmt: skip
LLAMA_NAMES = {
    "norm1": ["input_layernorm"], "norm2": ["post_attention_layernorm"],
    "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attention.output": ["self_attn.o_proj"],
    "feed_forward.up": ["mlp.gate_proj", "mlp.up_proj"], "feed_forward.down": ["mlp.down_proj"],
}  # fmt: skip
# The files of an export; --overwrite replaces only these.
NAMES = {
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "README.md",
}  # fmt: skip
SLOWEST_UPLOAD = 50_000  # bytes per second; a slower upload is stopped


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/export_to_hf.py MODEL OUT_DIR [flags]"
    parser.add_argument("model", metavar="MODEL", help="a model file, for example best_model.pth")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="the folder to write")
    parser.add_argument("--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an export in OUT_DIR")
    parser.add_argument(
        "--push_to_hub", metavar="NAME", help="upload the folder to the hub as NAME or YOU/NAME; log in first"
    )
    return parser.parse_args(argv)


# The network ----------------------------------------------------------------------------------------------------------


def hf_class(config: ModelConfig, path: str) -> str:
    """Return "gpt2" or "llama", whichever computes the same.  Raises UserError that names the flag if neither does."""
    switches = {name: getattr(config, name) for name in SHAPE}
    if config.mlp in GELUS:
        switches["mlp"] = "gelu"  # GPT2LMHeadModel has both
    wrong = {arch: [name for name in SHAPE if switches[name] != ARCHITECTURES[arch][name]] for arch in CLASSES}
    arch = min(CLASSES, key=lambda arch: (len(wrong[arch]), arch != config.arch))  # the one with the fewest differences
    if wrong[arch]:
        has = ", ".join(f"--{name} {getattr(config, name)}" for name in wrong[arch])
        needs = ", ".join(f"--{name} {ARCHITECTURES[arch][name]}" for name in wrong[arch])
        raise UserError(
            f"{path} cannot be exported: it was trained with {has}, but transformers' {CLASSES[arch]} needs {needs}"
        )
    if config.window_size is not None and config.window_size < config.max_seq_len:
        raise UserError(
            f"{path} cannot be exported: it was trained with --window_size {config.window_size}, but transformers' "
            f"{CLASSES[arch]} sees the whole context of {config.max_seq_len}; train without --window_size"
        )
    return arch


def gpt2_config(config: ModelConfig) -> dict:
    return {
        "n_positions": config.max_seq_len, "n_embd": config.hidden_size, "n_layer": config.num_layers,
        "n_head": config.num_heads, "n_inner": config.intermediate_size, "activation_function": GELUS[config.mlp],
        "layer_norm_epsilon": config.norm_epsilon, "resid_pdrop": config.dropout, "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
    }  # fmt: skip


def llama_config(config: ModelConfig) -> dict:
    return {
        "max_position_embeddings": config.max_seq_len, "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads, "head_dim": config.head_size,
        "intermediate_size": config.intermediate_size, "hidden_act": "silu", "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rotary_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "attention_bias": config.bias, "mlp_bias": config.bias, "attention_dropout": 0.0,
    }  # fmt: skip


def gpt2_weights(model: Transformer) -> dict[str, torch.Tensor]:
    """Return the weights with GPT2LMHeadModel's names: matrices as (in, out), missing biases as zeros."""
    modules = {}
    for number, block in enumerate(model.blocks):
        for ours, (theirs,) in GPT2_NAMES.items():
            modules[f"transformer.h.{number}.{theirs}"] = block.get_submodule(ours)
    modules["transformer.ln_f"] = model.norm
    weights = {"transformer.wte.weight": model.tokens.weight, "transformer.wpe.weight": model.positions.weight}
    for name, module in modules.items():
        is_matrix = module.weight.dim() == 2
        weights[f"{name}.weight"] = module.weight.T if is_matrix else module.weight
        weights[f"{name}.bias"] = torch.zeros(len(module.weight)) if module.bias is None else module.bias
    return weights


def llama_weights(model: Transformer) -> dict[str, torch.Tensor]:
    """Return the weights with LlamaForCausalLM's names; our stacked matrices are split."""
    weights = {"model.embed_tokens.weight": model.tokens.weight, "model.norm.weight": model.norm.weight}
    for number, block in enumerate(model.blocks):
        for ours, theirs in LLAMA_NAMES.items():
            for kind, tensor in block.get_submodule(ours).named_parameters():  # weight, maybe bias
                for name, part in zip(theirs, tensor.chunk(len(theirs)), strict=True):
                    weights[f"model.layers.{number}.{name}.{kind}"] = part
    return weights


EXPORTS = {"gpt2": (gpt2_config, gpt2_weights), "llama": (llama_config, llama_weights)}


def safetensors(weights: dict[str, torch.Tensor]) -> Iterator[bytes]:
    """Yield a safetensors file in pieces: the length of the header (8 bytes), the header in JSON, the numbers."""
    header = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in weights.items():
        begin = end
        end = begin + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers must begin at a multiple of 8
    yield len(text).to_bytes(8, "little") + text
    for tensor in weights.values():
        yield np.ascontiguousarray(tensor.detach().numpy(), dtype="<f4").tobytes()


# The tokenizer --------------------------------------------------------------------------------------------------------


def tokenizer_files(tokenizer: Tokenizer, context: int) -> dict[str, str]:
    """Return {name: content} for tokenizer.json and tokenizer_config.json.

    This tokenizer puts <bos> before a text, as in every story, unless add_special_tokens=False is given.
    """
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", tokenizer.special["<bos>"])]
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>", "additional_special_tokens": ["<user>", "<assistant>", "<system>"],
        "add_bos_token": True, "clean_up_tokenization_spaces": False, "model_max_length": context,
        "padding_side": "left", "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": CHAT_TEMPLATE.read_text(encoding="utf-8").strip(),
    }  # fmt: skip
    return {"tokenizer.json": backend.to_str(pretty=True), "tokenizer_config.json": as_json(settings)}


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the special ids that config.json and generation_config.json both contain."""
    return {f"{name}_token_id": tokenizer.special[f"<{name}>"] for name in ("bos", "eos", "pad")}


def generation_config(tokenizer: Tokenizer, context: int) -> dict:
    """Return the default sampling settings of steps 3 and 5; all special tokens except <eos> are suppressed."""
    sampling = Sampling()
    special = [number for number, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special]
    return special_ids(tokenizer) | {
        "do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
        "max_length": context, "suppress_tokens": sorted({*special} - {tokenizer.special["<eos>"]}),
    }  # fmt: skip


def as_json(content: dict) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


# The folder -----------------------------------------------------------------------------------------------------------


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise UserError unless the folder is missing, empty, or an export that may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; pass the name of a folder as OUT_DIR")
    if folder == Path.cwd().resolve():
        raise UserError(f"{folder} is the current folder, which cannot be replaced; pass another OUT_DIR")
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if held and not overwrite:
        raise UserError(f"{folder} is not empty; pass --overwrite to replace an export in it, or another OUT_DIR")
    if held - NAMES:
        foreign = one_line(min(held - NAMES))
        raise UserError(f"{folder} contains {foreign}, which is not part of an export; pass another OUT_DIR")


def write_folder(folder: Path, files: dict[str, Iterable[bytes]]) -> None:
    """Write {name: pieces of bytes} as a folder, completely or not at all; it replaces an older one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        with naming(folder):
            partial.mkdir()
            for name, pieces in files.items():
                with open(partial / name, "wb") as file:
                    file.writelines(pieces)
                    on_disk(file)
            if folder.exists():
                patiently(folder.rename, old)
            patiently(partial.rename, folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)  # the new folder could not be put in its place
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


# The hub --------------------------------------------------------------------------------------------------------------


def open_hub(name: str) -> tuple:
    """Check the login; return (the hub's interface, the model's full name).  Raises UserError."""
    if not importlib.util.find_spec("huggingface_hub"):
        raise UserError("--push_to_hub needs the package huggingface_hub: pip install huggingface_hub")
    from huggingface_hub import HfApi, constants, errors, utils

    if constants.HF_HUB_OFFLINE:
        raise UserError("--push_to_hub cannot reach the hub while HF_HUB_OFFLINE is set; unset it, or drop the flag")
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    hub = HfApi()
    log_in = "log in with `hf auth login`, with a token that may write"
    try:
        utils.validate_repo_id(name)
        user = within(HUB_SECONDS, hub.whoami)["name"]
    except errors.HFValidationError as error:
        raise UserError(f"--push_to_hub {name}: {reason_of(error)}") from None
    except errors.LocalTokenNotFoundError:
        raise UserError(f"--push_to_hub: nobody is logged in; {log_in}") from None
    except Exception as error:  # network or hub: each library raises its own errors
        response = getattr(error, "response", None)
        if getattr(response, "status_code", None) == 401:
            raise UserError(f"--push_to_hub: the hub does not accept the token; {log_in}") from None
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise UserError(f"--push_to_hub: the hub does not answer ({reason}); try later or export without it") from None
    return hub, name if "/" in name else f"{user}/{name}"


def push(hub, name: str, folder: Path) -> str:
    """Upload a folder to the hub; return its address.  Raises UserError; the folder on disk stays complete."""
    seconds = HUB_SECONDS + sum(path.stat().st_size for path in folder.iterdir()) / SLOWEST_UPLOAD
    try:
        within(HUB_SECONDS, hub.create_repo, name, exist_ok=True)
        within(seconds, hub.upload_folder, repo_id=name, folder_path=folder, commit_message="Upload the model")
    except Exception as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise UserError(
            f"--push_to_hub {name}: the upload failed ({reason}), but {folder} is complete: "
            f"try again with --overwrite, or upload it with `hf upload {name} {folder}`",
            status=1,
        ) from None
    return f"https://huggingface.co/{name}"


def main() -> None:
    args = parse_args()
    folder = Path(args.out_dir).resolve()
    check_folder(folder, args.overwrite)
    tokenizer = load_tokenizer(args.tokenizer_path)
    if not isinstance(tokenizer.backend, tokenizers.Tokenizer):
        raise UserError(f"{args.tokenizer_path} cannot be exported: it is not a byte-level BPE like those of step 1")
    model, content = load_model(args.model, tokenizer)
    config = model.config
    arch = hf_class(config, args.model)
    hub, name = open_hub(args.push_to_hub) if args.push_to_hub else (None, folder.name)
    settings = special_ids(tokenizer) | {
        "architectures": [CLASSES[arch]], "model_type": arch, "vocab_size": config.vocab_size, "dtype": "float32",
        "tie_word_embeddings": config.tie_embeddings,
    }  # fmt: skip
    make_config, make_weights = EXPORTS[arch]
    settings |= make_config(config)
    weights = make_weights(model)
    if not config.tie_embeddings:
        weights["lm_head.weight"] = model.head.weight
    texts = tokenizer_files(tokenizer, config.max_seq_len) | {
        "config.json": as_json(settings),
        "generation_config.json": as_json(generation_config(tokenizer, config.max_seq_len)),
        "README.md": model_card(name, model, CLASSES[arch], content, *run_records(args.model, content.get("run_id"))),
    }
    files = {name: [text.encode("utf-8", errors="replace")] for name, text in texts.items()}
    write_folder(folder, files | {"model.safetensors": safetensors(weights)})
    log.info(f"wrote {args.out_dir} as {CLASSES[arch]}")
    if hub:
        print(push(hub, name, folder))


if __name__ == "__main__":
    run_program(main)
