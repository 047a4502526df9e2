"""The files of a foreign model: the fields of its config, and its tensors by name.  No code in them is run."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from common.errors import UserError, one_line, reason_of
from common.files import read_json
from common.weights_files import read_any_torch_file

ANY = -1  # a size that is unknown before the weights are read
BUFFERS = re.compile(r"(position_ids|\.attn\.bias|\.attention\.bias|masked_bias|inv_freq)$")  # computed, not learned


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
