"""Files of weights, the model file and the checkpoint: written whole, and validated before anything in them is used.

Such a file comes from a disk that may be full or broken, or from a stranger.  So it is written beside the old one,
flushed, read back, and only then moved into its place; and its check sums, names and shapes are looked at before it is
used: it cannot run code, nor take more memory than its own size.

In reading order: `save_model` and `load_model`; the file below them, `write_torch_file` and `read_torch_file`.
"""

import collections
import pickletools
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

from common.console import log
from common.errors import UserError, one_line, reason_of
from common.files import written_atomically
from common.flags import settings_from
from model import ModelConfig, Transformer

MODEL_FORMAT = "tinystories-model"
CHECKPOINT_FORMAT = "tinystories-checkpoint"
VERSION = 1
LARGEST_TABLES = 1 << 28  # bytes of what a network computes from its config alone, which no weight vouches for
PLAIN = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}  # what may be named, beside kinds of storage


class Damaged(UserError):
    """A file that is not whole; .what says which and how, without what to do."""

    def __init__(self, what: str):
        super().__init__(f"{what}; take another one, copy it again, or make it again")
        self.what = what


# The model file -------------------------------------------------------------------------------------------------------


def save_model(
    path: str | Path, model: Transformer, tokenizer_fingerprint: str, step: int = 0, val_loss: float | None = None,
    run_id: str | None = None, weights: dict | None = None,
) -> None:  # fmt: skip
    """Write the weights in float32 and all that is needed to load them.

    weights: those to write instead of the model's own, as `lora.merged_weights` gives them.
    """
    weights = model.state_dict() if weights is None else weights
    content = {
        "format": MODEL_FORMAT,
        "version": VERSION,
        "config": model.config.as_dict(),
        "model": {name: tensor.detach().float().cpu() for name, tensor in weights.items()},
        "tokenizer_fingerprint": tokenizer_fingerprint,
        "step": step,
        "val_loss": val_loss,
        "run_id": run_id,
    }
    write_torch_file(path, content)


def load_model(path: str | Path, tokenizer=None, device="cpu", **changes) -> tuple[Transformer, dict]:
    """(model in evaluation mode, the file's other contents).  Raises UserError for a file that is not a model file.

    tokenizer: refuse a model that was trained with another one.  changes: fields of the config to set anew, as dropout.
    """
    refuse_transformers_format(path)
    content = read_torch_file(path, MODEL_FORMAT)
    try:
        if not all(isinstance(value, (str, int, float, type(None))) for value in content["config"].values()):
            raise TypeError("a config of other than words and numbers")
        config = ModelConfig(**content["config"])
        weights = content.pop("model")
        check_weights(config, weights)
        trained = f"step {content['step']:,}"
        if content.get("val_loss") is not None:
            trained += f", validation loss {content['val_loss']:.4f}"
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        reason = one_line(reason_of(error))
        raise UserError(
            f"{path}: its weights and its config do not fit each other ({reason}); take another one"
        ) from None
    with WithoutFirstWeights():
        model = Transformer(settings_from(Namespace(**config.as_dict() | changes), ModelConfig))
    model.load_state_dict(weights)
    if tokenizer is not None:
        check_tokenizer(path, content, config, tokenizer)
    log.info(f"model: {path}, {trained}, {model.num_parameters()[1]:,} parameters, {config.describe()}")
    return model.to(device).eval(), content


def refuse_transformers_format(path: str | Path) -> None:
    """Raise UserError for a folder or file that transformers reads, with what makes a model file of it."""
    path = Path(path)
    is_folder = (path / "config.json").is_file()
    if is_folder or (path.is_file() and path.suffix in (".safetensors", ".bin")):
        folder = path if is_folder else path.parent
        if path.suffix == ".bin" and not (folder / "config.json").is_file():
            raise UserError(
                f"{path} is no model file of this course; if llama2.c wrote it, take it over with: "
                f"python tools/import_model.py {path} OUT_DIR (docs/import.md)"
            )
        raise UserError(
            f"{path} is in transformers' format; take it over with: python tools/import_model.py {folder} OUT_DIR "
            f"(in {folder} must be config.json, the weights and tokenizer.json: docs/import.md)"
        )


def check_tokenizer(path: str | Path, content: dict, config: ModelConfig, tokenizer) -> None:
    """Raise UserError unless a model was trained with this tokenizer."""
    trained_with = content.get("tokenizer_fingerprint"), config.vocab_size
    if (tokenizer.fingerprint, tokenizer.vocab_size) != trained_with:
        raise UserError(
            f"{path} was not trained with this tokenizer ({config.vocab_size:,} tokens in the model, "
            f"{tokenizer.vocab_size:,} in the tokenizer file); pass --tokenizer_path the one that it was trained with"
        )


def check_weights(config: ModelConfig, weights: dict) -> None:
    """Raise ValueError unless weights are those of the config's network; takes no memory for a network that lies."""
    if config.num_layers > len(weights):
        raise ValueError(f"{config.num_layers} layers in {len(weights)} tensors")
    if config.positions == "rotary" and 8 * config.max_seq_len * config.head_size > LARGEST_TABLES:
        raise ValueError(f"a context of {config.max_seq_len}")
    with torch.device("meta"), WithoutFirstWeights():
        network = Transformer(config)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for name in shapes.keys() | weights.keys():
        if name not in weights:
            raise ValueError(f"{name} is missing")
        if name not in shapes:
            raise ValueError(f"{name} is no part of the network")
        if weights[name].shape != shapes[name]:
            raise ValueError(f"{name} is {list(weights[name].shape)}, not {list(shapes[name])}")
        if weights[name].dtype != torch.float32 or not weights[name].isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite or not float32")


class WithoutFirstWeights(TorchFunctionMode):
    """Leave out the random first weights of networks that are made in the block.

    They would be overwritten, and on the meta device they make torch import its compiler, which takes two seconds.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


# Any file of weights --------------------------------------------------------------------------------------------------


def write_torch_file(path: str | Path, content: dict) -> None:
    """Write plain types and tensors with torch.save; the file is there whole, and was read back, or it is not there."""
    with written_atomically(path, check_torch_file) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's writer hides what ended it
            if isinstance(error.__context__, (OSError, KeyboardInterrupt)):
                raise error.__context__ from None
            raise


def read_torch_file(path: str | Path, kind: str) -> dict:
    """Read a file that `write_torch_file` wrote; kind: MODEL_FORMAT or CHECKPOINT_FORMAT.  Runs no code in it.

    Raises UserError for another file, and Damaged, a kind of it, for one that is not whole.
    """
    content = read_any_torch_file(path)
    if not isinstance(content, dict):
        content = {}
    found = content.get("format")
    if found is None and kind == MODEL_FORMAT and any(True for _ in tensors_in(content)):
        raise UserError(
            f"{path} holds weights alone; tools/import_model.py makes a model file of an older course's, with its "
            "args.json beside it, or of a folder in transformers' format: docs/import.md"
        )
    if not isinstance(found, str) or found != kind:
        found = found if isinstance(found, str) and found else "file of another program"
        example = {MODEL_FORMAT: "best_model.pth", CHECKPOINT_FORMAT: "checkpoint-<step>.pth"}[kind]
        raise UserError(f"{path} is a {one_line(found)}, where a {kind} was expected; pass a file like {example}")
    version = content.get("version")
    if not isinstance(version, int) or version != VERSION:
        raise UserError(
            f"{path} has version {one_line(version)} of the format, and this program reads {VERSION}; "
            "take the version of the course that wrote it"
        )
    return content


def read_any_torch_file(path: str | Path) -> object:
    """What a file of torch.save's holds, if that is plain types and tensors; runs no code in it.  Raises as above."""
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder; pass a file that is in it")
    if not Path(path).is_file():
        raise UserError(f"no file {path}; train a model first, or pass the path of one")
    check_torch_file(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
        whole = all(is_plain(tensor) for tensor in tensors_in(content))
    except PermissionError:
        raise
    except Exception:
        raise Damaged(f"{path} is damaged, or no file of this course") from None
    if not whole:
        raise UserError(f"{path} holds a tensor that claims to be larger than it is; take another one")
    return content


def check_torch_file(path: str | Path) -> None:
    """Raise Damaged, or UserError, unless a file is one of torch.save's, whole and free of code."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        start = file.read(4)
    if not size:
        raise Damaged(f"{path} is empty")
    if start != b"PK\3\4":
        raise Damaged(f"{path} is no file of weights of this course, or damaged")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > size:
                raise zipfile.BadZipFile
            if archive.testzip():  # compares the check sums, which torch.load does not
                raise zipfile.BadZipFile
            (pickled,) = [part for part in parts if part.filename.endswith("/data.pkl")]
            operations = pickletools.genops(archive.read(pickled))
            named = {argument for operation, argument, _ in operations if operation.name == "GLOBAL"}
    except Exception:  # damaged bytes raise nearly every kind
        raise Damaged(f"{path} is damaged: it is cut off, or bytes in it have changed") from None
    foreign = {name for name in named - PLAIN if not (name.startswith("torch ") and name.endswith("Storage"))}
    if foreign:
        raise UserError(
            f"{path} holds more than weights ({one_line(min(foreign))}), and is not opened; take another one"
        )


def tensors_in(content: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in dicts and lists within each other, each container once."""
    waiting = collections.deque([content])
    seen = set()
    while waiting:
        value = waiting.popleft()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor has a number in memory for each of its places."""
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and tensor.is_contiguous()
