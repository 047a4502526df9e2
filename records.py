"""What a run leaves behind: the model file, and the run's folder with its log and its numbers."""

import contextlib
import json
import shlex
import sys
import time
import uuid
import warnings
from argparse import Namespace
from pathlib import Path

import torch
from tqdm import tqdm

from model import ModelConfig, Transformer
from shell import UserError, say, settings_from, write_json, written_atomically

MODEL_FORMAT, VERSION = "tinystories-model", 1


def save_model(path, model, tokenizer_fingerprint, step=0, val_loss=None, run_id=None):
    """Write the weights in float32 and all that is needed to load them; the file is there whole or not at all."""
    state = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    content = {"format": MODEL_FORMAT, "version": VERSION, "config": model.config.as_dict(), "model": state}
    content |= {"tokenizer_fingerprint": tokenizer_fingerprint, "step": step, "val_loss": val_loss, "run_id": run_id}
    with written_atomically(path) as file:
        torch.save(content, file)


def read_torch_file(path, kind):
    """Read a file of torch.save that holds plain types and tensors only; runs no code in it.  Raises UserError."""
    if not Path(path).is_file():
        raise UserError(f"no file {path}; train a model first, or pass the path of one")
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception:  # damaged bytes raise nearly every kind
        raise UserError(f"{path} is damaged, or no file of this course; train it again, or take another one") from None
    if not isinstance(content, dict) or content.get("format") != kind:
        found = content.get("format") if isinstance(content, dict) else None
        raise UserError(f"{path} is a {found or 'file of another program'}, where a {kind} was expected")
    if content.get("version") != VERSION:
        raise UserError(f"{path} has version {content.get('version')} of the format, this program reads {VERSION}")
    return content


def load_model(path, tokenizer=None, device="cpu", say=say, **changes):
    """(model in evaluation mode, the file's other contents).  Raises UserError for a file that is not a model file.

    tokenizer: refuse a model that was trained with another one.  changes: fields of the config to set anew, as dropout.
    """
    content = read_torch_file(path, MODEL_FORMAT)
    try:
        config = ModelConfig(**content["config"])
        changed = settings_from(Namespace(**config.as_dict() | changes), ModelConfig)
        model = Transformer(changed)
        model.load_state_dict(content.pop("model"))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: its weights and its config do not fit each other ({reason})") from None
    if tokenizer is not None and tokenizer.fingerprint != content.get("tokenizer_fingerprint"):
        raise UserError(
            f"{path} was not trained with this tokenizer ({config.vocab_size:,} tokens in the model, "
            f"{tokenizer.vocab_size:,} in the tokenizer file); pass --tokenizer_path the one that it was trained with"
        )
    loss = content.get("val_loss")
    trained = f"step {content['step']:,}" + (f", validation loss {loss:.4f}" if loss is not None else "")
    say(f"model: {path}, {trained}, {model.num_parameters()[1]:,} parameters, {config.describe()}")
    return model.to(device).eval(), content


class Run:
    """The folder that a run leaves behind, and what the console says meanwhile.

    args.json, train.log, metrics.jsonl, TensorBoard's event file, checkpoint-<step>.pth, best_model.pth,
    final_model.pth, summary.json.  Nothing is written before `start`; what was said until then goes into train.log too.
    """

    def __init__(self, args, writes=True):
        """writes: False for a rank that says and writes nothing, because another one does.  Raises UserError."""
        self.writes = writes
        self.args, self.folder = vars(args) | {"program": Path(sys.argv[0]).name}, Path(args.output_dir)
        self.checkpoint, self.run_id = None, uuid.uuid4().hex
        self.lines, self.log_file, self.metrics, self.board = [], None, None, None
        resume = args.resume_from_checkpoint
        if resume in ("latest", "auto"):
            self.checkpoint = self.checkpoints()[-1][1] if self.checkpoints() else None
            if resume == "latest" and not self.checkpoint:
                raise UserError(f"no checkpoint in {self.folder}; start the run without --resume_from_checkpoint")
        elif resume:
            self.checkpoint = Path(resume)
            if not self.checkpoint.is_file():
                raise UserError(f"no checkpoint file {resume}; latest takes the newest in --output_dir")
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"--output_dir {self.folder} is a file; name a folder")
        replaced = args.overwrite or resume == "auto" or self.held_pilot()
        self.goes_on = self.checkpoint is not None and self.checkpoint.parent.resolve() == self.folder.resolve()
        if self.writes and self.held_run() and not self.goes_on and not replaced:
            raise UserError(
                f"{self.folder} already holds a run; pass --overwrite to replace it, "
                f"--resume_from_checkpoint latest to go on with it, or another --output_dir"
            )

    def held_run(self):
        """The files of a run that stands in the folder."""
        names = ("args.json", "train.log", "metrics.jsonl", "summary.json", "*.pth", "events.out.tfevents.*")
        return [path for name in names for path in self.folder.glob(name)]

    def held_pilot(self):
        try:
            return json.loads((self.folder / "args.json").read_text(encoding="utf-8")).get("pilot_run", False)
        except (OSError, ValueError, AttributeError):
            return False

    def checkpoints(self):
        """(step, path) of the folder's checkpoints, the newest last."""
        found = self.folder.glob("checkpoint-*.pth")
        return sorted((int(path.stem[11:]), path) for path in found if path.stem[11:].isdecimal())

    def start(self, resumed_step=None):
        """Open the records: of a new run, replacing an old one's, or of a run that goes on after resumed_step."""
        if not self.writes:
            return
        after = [path for step, path in self.checkpoints() if self.goes_on and step > resumed_step]
        for path in after if self.goes_on else self.held_run():  # what comes after resumed_step comes anew
            path.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "args.json", self.args)
        mode = "a" if self.goes_on else "w"
        metrics = self.folder / "metrics.jsonl"
        if self.goes_on and metrics.exists():
            rows = [line for line in metrics.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in rows if json.loads(line).get("step", 0) <= resumed_step]
            with written_atomically(metrics) as file:
                file.write("".join(line + "\n" for line in kept).encode())
        self.log_file = open(self.folder / "train.log", mode, encoding="utf-8")  # noqa: SIM115, open until `close`
        self.metrics = open(metrics, mode, encoding="utf-8")  # noqa: SIM115
        for line in self.lines:
            print(line, file=self.log_file, flush=True)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(self.folder, purge_step=None if resumed_step is None else resumed_step + 1)
        except ImportError:
            self.say("tensorboard is not installed: no event file; metrics.jsonl has the same numbers")

    def say(self, message, file=None):
        """To stderr (or file) and train.log; before `start`, kept until then."""
        if not self.writes:
            return
        if self.log_file:
            print(message, file=self.log_file, flush=True)
        else:
            self.lines.append(message)
        with contextlib.suppress(OSError):  # a terminal that is gone must not end the run before its checkpoint
            tqdm.write(message, file=file or sys.stderr)

    def log(self, message):
        """A line of the run's log proper, with the time, to stdout and train.log."""
        self.say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", file=sys.stdout)

    def record(self, event, tags=None, **values):
        """A row of metrics.jsonl; tags: {TensorBoard's tag: value} of the same moment."""
        if not self.writes:
            return
        print(json.dumps({"event": event} | values), file=self.metrics, flush=True)
        for tag, value in (tags or {}).items():
            if self.board:
                self.board.add_scalar(tag, value, values["step"])
        if tags and self.board:
            self.board.flush()

    def path(self, name):
        return self.folder / name

    def command_to_go_on(self):
        """What the user types to go on with this run."""
        words, skip = [], False
        for word in sys.argv:
            if not skip and not word.startswith("--resume_from_checkpoint=") and word != "--overwrite":
                skip = word == "--resume_from_checkpoint"
                words += [] if skip else [word]
            else:
                skip = False
        return shlex.join(["python", *words, "--resume_from_checkpoint", "latest"])

    def close(self):
        for file in (self.log_file, self.metrics, self.board):
            if file:
                file.close()
