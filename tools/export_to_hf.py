"""Write a model as a folder that Hugging Face's `transformers` opens, and the programs that read its format.

    python tools/export_to_hf.py tinystories_model/best_model.pth exported
    python tools/export_to_hf.py tinystories_chat_model/best_model.pth exported_chat --push_to_hub YOUR_NAME/tiny-chat

--arch gpt2 becomes a GPT2LMHeadModel, --arch llama a LlamaForCausalLM; what neither can compute is refused.  The folder
has the weights, the tokenizer with a chat template, how to draw tokens, and a model card with the run's numbers.  Needs
nothing but the course; docs/export.md says how the folder is used.

In reading order: `hf_class`, what can be exported; `gpt2_config` and `gpt2_weights`, `llama_config` and
`llama_weights`, the same network under other names; `tokenizer_files`; `model_card`; `write_folder`; `push`.
"""

import importlib.util
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import tokenizers
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.console import log
from common.errors import UserError, one_line
from common.files import naming, on_disk
from common.flags import FlagParser
from common.program import run_program
from common.weights_files import load_model
from corpus.sources import HUB_SECONDS, within
from data import load_tokenizer
from generation.sampling import Sampling
from model import ARCHITECTURES
from training.log_lines import clock

PAGES = Path(__file__).resolve().parent / "pages"
CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}
SHAPE = ("positions", "norm", "mlp")  # what makes a network one of the two; biases and a head of its own both can have
GELUS = {"gelu": "gelu_new", "gelu_exact": "gelu"}  # by transformers' names
NAMES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
NAMES += ("README.md",)  # all that an export writes, and so all that --overwrite may replace
SLOWEST_UPLOAD = 50_000  # bytes a second; slower than this, the upload is given up
LARGEST_RECORD = 1 << 20  # bytes of summary.json, args.json, or a row of metrics.jsonl
LONGEST_CELL = 200  # characters of the card's table
FLAGS = ("dataset", "epochs", "batch_size", "gradient_accumulation_steps", "optimizer", "lr", "seed")  # for the card


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.usage = "python tools/export_to_hf.py MODEL OUT_DIR [flags]"
    parser.add_argument("model", metavar="MODEL", help="a model file, as best_model.pth")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="the folder to write")
    parser.add_argument("--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace the export that OUT_DIR holds")
    parser.add_argument(
        "--push_to_hub", metavar="NAME", help="upload the folder to the hub as NAME or YOU/NAME; log in before"
    )
    return parser.parse_args(argv)


# The network ----------------------------------------------------------------------------------------------------------


def hf_class(config, path):
    """`gpt2` or `llama`, which computes what a config does.  Raises UserError, with the flag, if neither does."""
    shape = {name: getattr(config, name) for name in SHAPE}
    shape |= {"mlp": "gelu"} if config.mlp in GELUS else {}
    differs = lambda arch: [name for name in SHAPE if shape[name] != ARCHITECTURES[arch][name]]
    arch = min(CLASSES, key=lambda arch: (len(differs(arch)), arch != config.arch))
    if wrong := differs(arch):
        has = ", ".join(f"--{name} {getattr(config, name)}" for name in wrong)
        needs = ", ".join(f"--{name} {ARCHITECTURES[arch][name]}" for name in wrong)
        raise UserError(
            f"{path} cannot be exported: it was trained with {has}, and transformers' {CLASSES[arch]} needs {needs}"
        )
    if config.window_size is not None and config.window_size < config.max_seq_len:
        raise UserError(
            f"{path} cannot be exported: it was trained with --window_size {config.window_size}, and transformers' "
            f"{CLASSES[arch]} sees the whole context of {config.max_seq_len}; train without --window_size"
        )
    return arch


def gpt2_config(model):
    config = model.config
    return {
        "n_positions": config.max_seq_len, "n_embd": config.hidden_size, "n_layer": config.num_layers,
        "n_head": config.num_heads, "n_inner": config.intermediate_size, "activation_function": GELUS[config.mlp],
        "layer_norm_epsilon": model.norm.eps, "resid_pdrop": config.dropout, "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
    }  # fmt: skip


def llama_config(model):
    config = model.config
    return {
        "max_position_embeddings": config.max_seq_len, "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads, "head_dim": config.hidden_size // config.num_heads,
        "intermediate_size": config.intermediate_size, "hidden_act": "silu", "rms_norm_eps": model.norm.eps,
        "rope_theta": config.rotary_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "attention_bias": config.bias, "mlp_bias": config.bias, "attention_dropout": 0.0,
    }  # fmt: skip


def gpt2_weights(model):
    """{name: tensor} as GPT2LMHeadModel names them: matrices (in, out), and biases of zeros where none is."""
    weights = {"transformer.wte.weight": model.tokens.weight, "transformer.wpe.weight": model.positions.weight}

    def add(name, module):
        linear = isinstance(module, torch.nn.Linear)
        weights[f"{name}.weight"] = module.weight.T if linear else module.weight
        weights[f"{name}.bias"] = torch.zeros(len(module.weight)) if module.bias is None else module.bias

    for number, block in enumerate(model.blocks):
        layer = f"transformer.h.{number}"
        add(f"{layer}.ln_1", block.norm1)
        add(f"{layer}.attn.c_attn", block.attention.qkv)
        add(f"{layer}.attn.c_proj", block.attention.output)
        add(f"{layer}.ln_2", block.norm2)
        add(f"{layer}.mlp.c_fc", block.feed_forward.up)
        add(f"{layer}.mlp.c_proj", block.feed_forward.down)
    add("transformer.ln_f", model.norm)
    return weights


def llama_weights(model):
    """{name: tensor} as LlamaForCausalLM names them: what is one product here, a product each there."""
    weights = {"model.embed_tokens.weight": model.tokens.weight, "model.norm.weight": model.norm.weight}

    def add(layer, names, linear):
        for kind, tensor in linear.named_parameters():
            parts = tensor.chunk(len(names))
            weights.update({f"{layer}.{name}.{kind}": part for name, part in zip(names, parts, strict=True)})

    for number, block in enumerate(model.blocks):
        layer = f"model.layers.{number}"
        weights[f"{layer}.input_layernorm.weight"] = block.norm1.weight
        weights[f"{layer}.post_attention_layernorm.weight"] = block.norm2.weight
        add(f"{layer}.self_attn", ("q_proj", "k_proj", "v_proj"), block.attention.qkv)
        add(f"{layer}.self_attn", ("o_proj",), block.attention.output)
        add(f"{layer}.mlp", ("gate_proj", "up_proj"), block.feed_forward.up)
        add(f"{layer}.mlp", ("down_proj",), block.feed_forward.down)
    return weights


def safetensors(weights):
    """Yield a safetensors file, piece by piece: 8 bytes of the header's length, the header in JSON, the numbers."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in weights.items():
        begin, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers begin at a multiple of 8
    yield len(text).to_bytes(8, "little") + text
    for tensor in weights.values():
        yield np.ascontiguousarray(tensor.detach().numpy(), dtype="<f4").tobytes()


# The tokenizer --------------------------------------------------------------------------------------------------------


def tokenizer_files(tokenizer, context):
    """{name: content} of tokenizer.json and tokenizer_config.json.

    A text is given the <bos> with which every story begins, unless it is encoded with add_special_tokens=False.
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
        "chat_template": (PAGES / "chat_template.jinja").read_text(encoding="utf-8").strip(),
    }  # fmt: skip
    return {"tokenizer.json": backend.to_str(pretty=True), "tokenizer_config.json": as_json(settings)}


def generation_config(config, tokenizer):
    """How steps 3 and 5 draw tokens unless told otherwise; of the special ones only <eos> is written."""
    special, sampling = tokenizer.special, Sampling()
    added = tokenizer.backend.get_added_tokens_decoder()
    return {
        "bos_token_id": special["<bos>"], "eos_token_id": special["<eos>"], "pad_token_id": special["<pad>"],
        "do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
        "max_length": config.max_seq_len,
        "suppress_tokens": sorted({number for number in added if added[number].special} - {special["<eos>"]}),
    }  # fmt: skip


def as_json(content):
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


# The model card -------------------------------------------------------------------------------------------------------


def run_records(path, run_id):
    """(summary.json, args.json) beside a model file, empty where they are missing or of another run."""
    folder = Path(path).parent
    summary, args = (read_object(folder / name) for name in ("summary.json", "args.json"))
    known = summary.get("run_id") or read_object(folder / "metrics.jsonl", first_line=True).get("run_id")
    return (summary, args) if run_id and known == run_id else ({}, {})


def read_object(path, first_line=False):
    """The object in a JSON file, {} if there is none: a model card is no reason to fail."""
    try:
        with open(path, "rb") as file:
            content = json.loads(file.readline(LARGEST_RECORD) if first_line else file.read(LARGEST_RECORD))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18  # and no nan


def cell(value):
    """What may come from a stranger's file, as one line that a table in Markdown shows as it is."""
    text = "".join(c if c.isprintable() else "?" for c in str(value)[:LONGEST_CELL])
    return re.sub(r"([\\`*_|<>\[\]&#!~])", r"\\\1", text)


def flag_text(value):
    """A flag's value for the card; of a path on this computer only its name."""
    values = value if isinstance(value, list) else [value]
    return ", ".join(Path(v).name if isinstance(v, str) and Path(v).is_absolute() else one_line(v) for v in values)


def measured(content, summary):
    """[(what, number in words)] that the model file and its run say of the model."""
    rows, loss = [("step", f"{content['step']:,}")], content.get("val_loss")
    if number(loss):
        rows += [("validation loss (nats a token)", f"{loss:.4f}"), ("perplexity", f"{math.exp(min(loss, 700)):.2f}")]
    kind = next((kind for kind in ("best", "final") if summary.get(f"{kind}_step") == content["step"]), None)
    for name in ("bits_per_byte", "accuracy"):
        if number(summary.get(f"{kind}_{name}")):
            rows.append((name.replace("_", " "), f"{summary[f'{kind}_{name}']:.4f}"))
    if number(summary.get("tokens")):
        rows.append(("tokens predicted in the whole run", f"{summary['tokens']:,.0f}"))
    if number(summary.get("seconds")):
        rows.append(("time of the whole run (h:mm:ss)", clock(summary["seconds"])))
    return rows


def model_card(name, model, arch, content, summary, args):
    """README.md of the folder: what the model is, what was measured, how it is used.  name: as one would load it."""
    in_layers, in_all = model.num_parameters()
    rows = [("class", CLASSES[arch]), ("network", model.config.describe())]
    rows += [("parameters", f"{in_layers:,} in the layers, {in_all:,} in all"), *measured(content, summary)]
    rows += [("trained with", args["program"])] if isinstance(args.get("program"), str) else []
    rows += [(f"--{flag}", flag_text(args[flag])) for flag in FLAGS if args.get(flag) is not None]
    table = "\n".join(f"| {cell(what)} | {cell(value)} |" for what, value in rows)
    story = "It was trained on stories and has not learned to answer: the template is for tuning it."
    missing = "The run's summary.json was not beside the model file: some numbers are missing."
    chat = "chat" in str(args.get("program", "chat"))
    template = (PAGES / "model_card.md").read_text(encoding="utf-8")
    parts = {"name": json.dumps(name), "table": table, "story": "" if chat else f"\n{story}\n"}
    return template.format(**parts, missing="" if summary else f"\n{missing}\n")


# The folder -----------------------------------------------------------------------------------------------------------


def check_folder(folder, overwrite):
    """Raise UserError unless the folder may be written: it is missing or empty, or an export that is to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; pass the name of a folder as OUT_DIR")
    if folder == Path.cwd().resolve():
        raise UserError(f"{folder} is the current folder, which cannot be replaced; pass another OUT_DIR")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held and not overwrite:
        raise UserError(f"{folder} is not empty; pass --overwrite to replace an export that it holds, or another name")
    if foreign := [name for name in held if name not in NAMES]:
        raise UserError(f"{folder} holds {one_line(foreign[0])}, which is no part of an export; pass another OUT_DIR")


def write_folder(folder, files):
    """Write {name: pieces of bytes} as a folder that is there whole or not at all, in the place of an older one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("partial", "old"))
    try:
        with naming(folder):
            partial.mkdir()
        for name, pieces in files.items():
            with naming(folder / name), open(partial / name, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                on_disk(file)
        try:
            with naming(folder):
                if folder.exists():
                    folder.rename(old)
                partial.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# The hub --------------------------------------------------------------------------------------------------------------


def open_hub(name):
    """(the hub's interface, the model's whole name) once the hub has said who is logged in.  Raises UserError."""
    if not importlib.util.find_spec("huggingface_hub"):
        raise UserError("--push_to_hub needs the package huggingface_hub: pip install huggingface_hub")
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import disable_progress_bars, validate_repo_id

    log_in = "log in with `hf auth login`, with a token that may write"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--push_to_hub {name}: {first_line(error)}") from None
    if constants.HF_HUB_OFFLINE:
        raise UserError("--push_to_hub cannot reach the hub while HF_HUB_OFFLINE is set; unset it, or export without")
    if not sys.stderr.isatty():
        disable_progress_bars()
    hub = HfApi()
    try:
        user = within(HUB_SECONDS, hub.whoami)["name"]
    except LocalTokenNotFoundError:
        raise UserError(f"--push_to_hub: nobody is logged in; {log_in}") from None
    except Exception as error:  # the network, the hub: each library below raises its own kinds
        if getattr(getattr(error, "response", None), "status_code", None) == 401:
            raise UserError(f"--push_to_hub: the hub does not accept the token; {log_in}") from None
        raise UserError(f"--push_to_hub: the hub does not answer ({first_line(error)}); export without it") from None
    return hub, name if "/" in name else f"{user}/{name}"


def push(hub, name, folder):
    """Upload a folder to the hub; returns its address.  Raises UserError, the folder on the disk being whole."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    try:
        within(HUB_SECONDS, hub.create_repo, name, exist_ok=True)
        seconds = HUB_SECONDS + size / SLOWEST_UPLOAD
        within(seconds, hub.upload_folder, repo_id=name, folder_path=folder, commit_message="Upload the model")
    except Exception as error:
        raise UserError(
            f"--push_to_hub {name}: the upload failed ({first_line(error)}); {folder} is whole: "
            f"try again with --overwrite, or upload it with `hf upload {name} {folder}`",
            status=1,
        ) from None
    return f"https://huggingface.co/{name}"


def first_line(error):
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def main():
    args = parse_args()
    folder = Path(args.out_dir).resolve()
    check_folder(folder, args.overwrite)
    tokenizer = load_tokenizer(args.tokenizer_path)
    if not isinstance(tokenizer.backend, tokenizers.Tokenizer):
        raise UserError(f"{args.tokenizer_path} is no byte-level BPE, as step 1 makes them, and cannot be exported")
    model, content = load_model(args.model, tokenizer)
    config, special = model.config, tokenizer.special
    arch = hf_class(config, args.model)
    hub, name = open_hub(args.push_to_hub) if args.push_to_hub else (None, folder.name)
    settings = {"architectures": [CLASSES[arch]], "model_type": arch, "vocab_size": config.vocab_size}
    settings |= {"dtype": "float32", "tie_word_embeddings": config.tie_embeddings}
    settings |= {name: special[f"<{name[:3]}>"] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    settings |= gpt2_config(model) if arch == "gpt2" else llama_config(model)
    weights = gpt2_weights(model) if arch == "gpt2" else llama_weights(model)
    if not config.tie_embeddings:
        weights["lm_head.weight"] = model.head.weight
    texts = {"config.json": as_json(settings), "generation_config.json": as_json(generation_config(config, tokenizer))}
    texts |= tokenizer_files(tokenizer, config.max_seq_len)
    records = run_records(args.model, content.get("run_id"))
    texts["README.md"] = model_card(name, model, arch, content, *records)
    files = {name: [text.encode("utf-8", errors="replace")] for name, text in texts.items()}
    write_folder(folder, files | {"model.safetensors": safetensors(weights)})
    log.info(f"wrote {args.out_dir} as {CLASSES[arch]}")
    if hub:
        print(push(hub, name, folder))


if __name__ == "__main__":
    run_program(main)
