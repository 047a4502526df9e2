"""Files of weights (model files and checkpoints): written completely, and validated before use.

Such a file may come from a full or broken disk, or from a stranger.  So a new file is written next to the old one,
flushed and read back before it replaces the old one.  Before a file is used, its checksums, names and shapes are
checked: it cannot run code, or use more memory than its own size.

In reading order: `save_model` and `load_model`; the file format below them, `write_torch_file` and `read_torch_file`.
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
LARGEST_TABLES = 1 << 28  # bytes of tables that a network computes from its config, whatever the file's size
PLAIN = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}  # allowed imports, as well as storages


class Damaged(UserError):
    """A file that is not complete; .what says which file and how it is damaged, without advice."""

    def __init__(self, what: str):
        super().__init__(f"{what}; use another file, copy it again, or make it again")
        self.what = what


# The model file -------------------------------------------------------------------------------------------------------


def save_model(
    path: str | Path, model: Transformer, tokenizer_fingerprint: str, step: int = 0, val_loss: float | None = None,
    run_id: str | None = None, weights: dict | None = None,
) -> None:  # fmt: skip
    """Write the weights in float32, and everything that is needed to load them.

    weights: written instead of the model's own, for example those from `lora.merged_weights`.
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
    """Return (model in evaluation mode, the file's other contents).  Raises UserError if the file is not a model file.

    tokenizer: refuse a model that was trained with another one.  changes: config fields to override, such as dropout.
    """
    refuse_transformers_format(path)
    content = read_torch_file(path, MODEL_FORMAT)
    try:
        if not all(isinstance(value, (str, int, float, type(None))) for value in content["config"].values()):
            raise TypeError("the config contains more than words and numbers")
        config = ModelConfig(**content["config"])
        weights = content.pop("model")
        check_weights(config, weights)
        trained = f"step {content['step']:,}"
        if content.get("val_loss") is not None:
            trained += f", validation loss {content['val_loss']:.4f}"
    except NotImplementedError:  # in an assignment, a part of the network may be missing: tools/make_assignment.py
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        reason = one_line(reason_of(error))
        raise UserError(f"{path}: its weights do not match its config ({reason}); use another file") from None
    with WithoutFirstWeights():
        model = Transformer(settings_from(Namespace(**config.as_dict() | changes), ModelConfig))
    model.load_state_dict(weights)
    if tokenizer is not None:
        check_tokenizer(path, content, config, tokenizer)
    log.info(f"model: {path}, {trained}, {model.num_parameters()[1]:,} parameters, {config.describe()}")
    return model.to(device).eval(), content


def refuse_transformers_format(path: str | Path) -> None:
    """Raise UserError for a folder or file in transformers' format, with the command that imports it."""
    path = Path(path)
    is_folder = (path / "config.json").is_file()
    if is_folder or (path.is_file() and path.suffix in (".safetensors", ".bin")):
        folder = path if is_folder else path.parent
        if path.suffix == ".bin" and not (folder / "config.json").is_file():
            raise UserError(
                f"{path} is not a model file of this course; if llama2.c wrote it, import it with: "
                f"python tools/import_model.py {path} OUT_DIR (docs/import.md)"
            )
        raise UserError(
            f"{path} is in transformers' format; import it with: python tools/import_model.py {folder} OUT_DIR "
            f"({folder} must contain config.json, the weights and tokenizer.json: docs/import.md)"
        )


def check_tokenizer(path: str | Path, content: dict, config: ModelConfig, tokenizer) -> None:
    """Raise UserError unless the model was trained with this tokenizer."""
    trained_with = content.get("tokenizer_fingerprint"), config.vocab_size
    if (tokenizer.fingerprint, tokenizer.vocab_size) != trained_with:
        raise UserError(
            f"{path} was not trained with this tokenizer ({config.vocab_size:,} tokens in the model, "
            f"{tokenizer.vocab_size:,} in the tokenizer file); pass --tokenizer_path with its own tokenizer"
        )


def check_weights(config: ModelConfig, weights: dict) -> None:
    """Raise ValueError unless the weights match the config's network; a false config cannot use up the memory."""
    if config.num_layers > len(weights):
        raise ValueError(f"{config.num_layers} layers, but only {len(weights)} tensors")
    if config.positions == "rotary" and 8 * config.max_seq_len * config.head_size > LARGEST_TABLES:
        raise ValueError(f"a context of {config.max_seq_len} tokens is too long")
    with torch.device("meta"), WithoutFirstWeights():
        network = Transformer(config)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for name in shapes.keys() | weights.keys():
        if name not in weights:
            raise ValueError(f"{name} is missing")
        if name not in shapes:
            raise ValueError(f"{name} is not part of the network")
        if weights[name].shape != shapes[name]:
            raise ValueError(f"{name} is {list(weights[name].shape)}, not {list(shapes[name])}")
        if weights[name].dtype != torch.float32 or not weights[name].isfinite().all():
            raise ValueError(f"{name} contains numbers that are not finite or not float32")


class WithoutFirstWeights(TorchFunctionMode):
    """Skip the random initialization of networks that are made in the block.

    Their weights would be overwritten, and on the meta device this makes torch import its compiler, which takes two
    seconds.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


# Any file of weights --------------------------------------------------------------------------------------------------


def write_torch_file(path: str | Path, content: dict) -> None:
    """Write plain types and tensors with torch.save; the new file is complete and checked, or it is not there."""
    with written_atomically(path, check_torch_file) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's writer hides the original error
            if isinstance(error.__context__, (OSError, KeyboardInterrupt)):
                raise error.__context__ from None
            raise


def read_torch_file(path: str | Path, kind: str) -> dict:
    """Read a file from `write_torch_file` without running code in it; kind: MODEL_FORMAT or CHECKPOINT_FORMAT.

    Raises UserError for another kind of file, and its subclass Damaged for a file that is not complete.
    """
    content = read_any_torch_file(path)
    if not isinstance(content, dict):
        content = {}
    found = content.get("format")
    if found is None and kind == MODEL_FORMAT and any(True for _ in tensors_in(content)):
        raise UserError(
            f"{path} contains only weights; tools/import_model.py imports those of an older course, with args.json "
            "in the same folder, and folders in transformers' format: docs/import.md"
        )
    if not isinstance(found, str) or found != kind:
        found = found if isinstance(found, str) and found else "file of another program"
        example = {MODEL_FORMAT: "best_model.pth", CHECKPOINT_FORMAT: "checkpoint-<step>.pth"}[kind]
        raise UserError(f"{path} is a {one_line(found)}, but a {kind} was expected; pass a file like {example}")
    version = content.get("version")
    if not isinstance(version, int) or version != VERSION:
        raise UserError(
            f"{path} has version {one_line(version)} of the format, but this program reads version {VERSION}; "
            "use the version of the course that wrote it"
        )
    return content


def read_any_torch_file(path: str | Path) -> object:
    """Read a file from torch.save if it contains only plain types and tensors; runs no code in it.  Raises as above."""
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder; pass a file in it")
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
        raise Damaged(f"{path} is damaged, or not a file of this course") from None
    if not whole:
        raise UserError(f"{path} contains a tensor that claims to be larger than it is; use another file")
    return content


def check_torch_file(path: str | Path) -> None:
    """Raise UserError or Damaged unless a file comes from torch.save, is complete and contains no code."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        start = file.read(4)
    if not size:
        raise Damaged(f"{path} is empty")
    if start != b"PK\3\4":
        raise Damaged(f"{path} is damaged, or not a weights file of this course")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > size:
                raise zipfile.BadZipFile
            if archive.testzip():  # compares the checksums, which torch.load does not
                raise zipfile.BadZipFile
            (pickled,) = [part for part in parts if part.filename.endswith("/data.pkl")]
            operations = pickletools.genops(archive.read(pickled))
            named = {argument for operation, argument, _ in operations if operation.name == "GLOBAL"}
    except Exception:  # damaged bytes raise nearly every kind of error
        raise Damaged(f"{path} is damaged: it is truncated, or bytes in it have changed") from None
    foreign = {name for name in named - PLAIN if not (name.startswith("torch ") and name.endswith("Storage"))}
    if foreign:
        raise UserError(
            f"{path} contains more than weights ({one_line(min(foreign))}) and was not opened; use another file"
        )


def tensors_in(content: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested dicts and lists, visiting each container once."""
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
    """Whether a tensor has a number in memory for each of its elements."""
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and tensor.is_contiguous()
