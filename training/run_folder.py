"""A run's folder: log, metrics, models, and checkpoints to resume from.  docs/records.md lists the files.

In reading order: `find_checkpoint` and `how_to_begin`, whether a run starts, replaces another one, or resumes; `Run`,
which writes the records; the files in the folder; the command to resume.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, TextIO

from common.console import RESULT, log
from common.errors import UserError, reason_of
from common.files import check_can_be_written, locked, naming, on_disk, write_json
from common.weights_files import Damaged
from training.curves import draw, read_metrics
from training.resume import checkpoints_in, read_checkpoint

KEPT_MODELS = "model-[0-9]*.pth"  # see `step_in_name`
RECORDS = ("args.json", "train.log", "metrics.jsonl", "summary.json", "best_model.pth", "final_model.pth")
OF_A_RUN = (*RECORDS, "loss_curve.png", "checkpoint-*.pth", KEPT_MODELS, "events.out.tfevents.*", ".*.partial")
COMPARED = ("Loss/val", "Perplexity/val", "BitsPerByte/val", "Throughput/tokens_per_second")  # in TensorBoard's table


# How a run begins -----------------------------------------------------------------------------------------------------


def find_checkpoint(args: argparse.Namespace, folder: Path) -> tuple[Path | None, dict | None]:
    """Return (path, content) of the checkpoint to resume from; (None, None) if the run does not resume.

    Raises UserError if the checkpoint is missing, damaged, or older than another one in its folder.
    """
    which = args.resume_from_checkpoint
    if which and args.overwrite:
        raise UserError("--overwrite starts a new run, --resume_from_checkpoint resumes one; pass only one of them")
    real_after_pilot = holds_pilot(folder) and not args.pilot_run
    if not which or (which == "auto" and real_after_pilot):
        return None, None
    there = checkpoints_in(folder)
    if which in ("latest", "auto"):
        for _, path in reversed(there):
            try:
                return path, read_checkpoint(path)
            except Damaged as error:
                log.info(f"{error.what}; skipped, an older checkpoint is used if there is one")
        if which == "latest":
            kind = "undamaged checkpoint" if there else "checkpoint"
            raise UserError(f"no {kind} in {folder}; start the run without --resume_from_checkpoint")
        return None, None
    path = Path(which)
    if not path.exists():
        raise UserError(f"no checkpoint file {which}; pass latest for the newest one in --output_dir")
    content = read_checkpoint(path)
    newest = there[-1][1] if there else path
    if newest.parent.resolve() == path.parent.resolve() and not newest.samefile(path):
        raise UserError(f"{newest} is newer than {which} and would be lost; move it away first")
    return path, content


def how_to_begin(args: argparse.Namespace, folder: Path, checkpoint: Path | None) -> str:
    """Return what to do: "resume" the folder's run, "replace" it, or "start" if there is none.  Raises UserError."""
    if checkpoint and checkpoint.parent.resolve() == folder.resolve():
        return "resume"
    if not held_files(folder):
        return "start"
    unfinished = not (folder / "summary.json").exists()
    if args.overwrite or holds_pilot(folder) or (args.resume_from_checkpoint == "auto" and unfinished):
        return "replace"
    raise UserError(
        f"{folder} already contains a run; pass --overwrite to replace it, "
        f"--resume_from_checkpoint latest to resume it, or another --output_dir"
    )


# The records ----------------------------------------------------------------------------------------------------------


class Run:
    """Writes a run's records.  Nothing is written before `start`."""

    def __init__(self, args: argparse.Namespace, writes: bool = True):
        """writes: False on ranks above 0, since only rank 0 writes.  Raises UserError."""
        self.writes = writes
        self.args = vars(args) | {"program": Path(sys.argv[0]).name}
        self.folder = Path(args.output_dir)
        self.run_id = uuid.uuid4().hex
        self.log_file = None
        self.metrics = None
        self.board = None
        self.mirror = None
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"--output_dir {self.folder} is a file; name a folder")
        if writes:
            check_can_be_written("--output_dir", self.folder)
        if writes and self.path("train.log").is_file():
            with contextlib.suppress(PermissionError), open(self.path("train.log"), "r+b") as file:
                self.claim(file)
        self.train_log = MemoryHandler(1 << 20, flushLevel=logging.CRITICAL)  # keeps messages until train.log is open
        if writes:
            log.addHandler(self.train_log)
        self.checkpoint, self.restored = find_checkpoint(args, self.folder)  # the file may be in another folder
        self.goes_on = False
        if writes or self.checkpoint:  # rank 0 raises the error for all
            self.goes_on = how_to_begin(args, self.folder, self.checkpoint) == "resume"
        self.found = held_files(self.folder)

    def path(self, name: str) -> Path:
        return self.folder / name

    def claim(self, log_file) -> None:
        """Keep other runs out of the folder by locking its log until this process ends."""
        if locked(log_file) is False:
            raise UserError(
                f"another run is writing into {self.folder}; wait until it ends, or pass another --output_dir"
            )

    def check_space(self, needed: int) -> None:
        """Raise UserError if the disk has fewer free bytes than needed, counting the folder's old files as free."""
        there = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(there).free + sum(path.stat().st_size for path in held_files(self.folder))
        if self.writes and free < needed:
            raise UserError(
                f"the run needs about {needed / 1e6:,.0f} MB in {self.folder} for its checkpoints and models, but only "
                f"{free / 1e6:,.0f} MB are free; make room, or pass --keep_checkpoints 1, a smaller --keep_models, "
                "or another --output_dir"
            )

    def start(self, resumed_step: int | None = None, sizes: dict[str, int] | None = None) -> None:
        """Open the records of a new run, which replace old ones, or of a run that resumes after resumed_step.

        sizes: those of the records when the checkpoint was saved (see `flushed_sizes`).  Everything after that is cut
        off, since the resumed run writes it again.
        """
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file = open(self.path("train.log"), "a", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.claim(self.log_file)
        if {*held_files(self.folder), self.path("train.log")} != {*self.found, self.path("train.log")}:
            raise UserError(f"another run has written into {self.folder} since this one began; start this one again")
        sizes = sizes or {}
        if self.goes_on:
            stale = [path for step, path in checkpoints_in(self.folder) if step > resumed_step]
            stale += [path for path in self.folder.glob(KEPT_MODELS) if (step_in_name(path) or 0) > resumed_step]
            stale += [self.path("summary.json"), *self.folder.glob(".*.partial")]
        else:
            stale = [path for path in held_files(self.folder) if path.name != "train.log"]
            sizes = {"train.log": 0}
        for path in stale:
            path.unlink(missing_ok=True)
        self.metrics = open(self.path("metrics.jsonl"), "a", encoding="utf-8", errors="replace")  # noqa: SIM115
        for file in (self.log_file, self.metrics):
            size = sizes.get(Path(file.name).name)
            if size is not None and size < os.path.getsize(file.name):
                file.truncate(size)
        write_json(self.path("args.json"), self.args)
        self.open_log()
        if self.args.get("wandb"):
            self.mirror = open_wandb(self)
        self.open_board(resumed_step)

    def open_log(self) -> None:
        """Write all messages into train.log too, starting with those logged so far."""
        handler = LogWriter(self.log_file)
        self.train_log.setTarget(handler)
        self.train_log.flush()
        log.removeHandler(self.train_log)
        log.addHandler(handler)
        self.train_log = handler

    def open_board(self, resumed_step: int | None) -> None:
        """Open TensorBoard's event file, with the flags as hparams."""
        try:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams
        except ImportError:
            log.info("tensorboard is not installed: no event file; metrics.jsonl has the same numbers")
            return
        self.board = SummaryWriter(self.folder, purge_step=None if resumed_step is None else resumed_step + 1)
        flags = {name: value if isinstance(value, (int, float)) else str(value) for name, value in self.args.items()}
        *start, self.hparams_end = hparams(flags, dict.fromkeys(COMPARED, 0.0))  # `add_hparams` opens a second file
        for part in start:
            self.board.file_writer.add_summary(part)

    def flushed_sizes(self) -> dict[str, int]:
        """Flush the log and the metrics to disk; return their sizes."""
        for file in (self.log_file, self.metrics):
            with naming(file.name):
                on_disk(file)
        return {Path(file.name).name: os.path.getsize(file.name) for file in (self.log_file, self.metrics)}

    def log(self, message: str) -> None:
        """Log a line with the date and time, on stdout."""
        log.info(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", extra=RESULT)

    def write_log(self, line: str) -> None:
        if self.log_file:
            write_line(line, self.log_file)

    def record(self, event: str, tags: dict[str, float] | None = None, **values) -> None:
        """Write a row of metrics.jsonl.  tags: {TensorBoard tag: value} for the same step."""
        if not self.metrics:  # a rank above 0, or before `start`
            return
        infinite = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
        row = {"event": event} | values | dict.fromkeys(infinite)  # null, since JSON has no infinity
        write_line(json.dumps(row), self.metrics)
        if tags and self.board:
            for tag, value in tags.items():
                self.board.add_scalar(tag, value, values["step"])
            self.board.flush()

    def show_text(self, tag: str, text: str, step: int) -> None:
        """Show a text in TensorBoard, which reads Markdown: indented as code, it is shown unchanged."""
        if self.board:
            self.board.add_text(tag, "\n".join(f"    {line}" for line in text.splitlines()), step)
            self.board.flush()

    def end_board(self) -> None:
        """Record for TensorBoard that the run has ended."""
        if self.board:
            self.board.file_writer.add_summary(self.hparams_end)
            self.board.flush()
            self.board.close()
            self.board = None

    def draw_curves(self) -> None:
        """Draw loss_curve.png if matplotlib is installed; an error in drawing does not make the run fail."""
        if not self.writes or not importlib.util.find_spec("matplotlib"):
            return
        try:
            draw({self.folder.name: read_metrics(self.folder)}, self.path("loss_curve.png"))
        except Exception as error:  # matplotlib, fonts, files: anything
            log.info(f"loss_curve.png could not be drawn: {reason_of(error)}")

    def close(self) -> None:
        """Close the records; ignore errors, since an earlier write may have failed."""
        log.removeHandler(self.train_log)
        for file in (self.board, self.log_file, self.metrics):
            if file:
                with contextlib.suppress(OSError):
                    file.close()
        if self.mirror:
            self.mirror.finish()
        self.board = self.log_file = self.metrics = self.mirror = None


class LogWriter(logging.StreamHandler):
    """Writes messages into a log.  An error in writing ends the run."""

    def emit(self, record: logging.LogRecord) -> None:
        write_line(self.format(record), self.stream)


def write_line(line: str, file: TextIO) -> None:
    """Write a line; an error names the file."""
    with naming(file.name):
        print(line, file=file, flush=True)


def open_wandb(run: Run) -> Any:
    """Return a Weights & Biases run that mirrors TensorBoard, or None.  Without an account it is stored for later."""
    import wandb

    mode = None if os.environ.get("WANDB_MODE") or wandb.login(prompt=False) else "offline"
    try:
        mirror = wandb.init(
            project="tinystories", name=run.folder.name, id=run.run_id, resume="allow", mode=mode, dir=run.folder,
            config=run.args, sync_tensorboard=True, settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
    except wandb.Error as error:
        log.info(f"--wandb: {reason_of(error)}; the run continues without it")
        return None
    if mode == "offline":
        folder = Path(mirror.dir).parent
        log.info(f"--wandb: no account; after `wandb login`, send the curves with: wandb sync {folder}")
    return mirror


# The files in a folder ------------------------------------------------------------------------------------------------


def held_files(folder: Path) -> list[Path]:
    """Return the files in a folder that belong to a run."""
    paths = [path for pattern in OF_A_RUN for path in folder.glob(pattern)]
    return [path for path in paths if not path.match(KEPT_MODELS) or step_in_name(path) is not None]


def step_in_name(path: Path) -> int | None:
    """Return the step of a model that --keep_models kept, model-<step>.pth; None for any other file."""
    step = path.stem.removeprefix("model-")
    return int(step) if step.isdecimal() else None


def holds_pilot(folder: Path) -> bool:
    """Return whether the run in a folder is a pilot run."""
    try:
        return json.loads((folder / "args.json").read_text(encoding="utf-8")).get("pilot_run", False)
    except (OSError, ValueError, AttributeError):
        return False


def last_checkpoint(folder: Path, with_command: bool = True) -> str:
    """Return, as text, which checkpoint a failed run can resume from."""
    there = checkpoints_in(folder)
    if not there:
        return "no checkpoint had been saved yet"
    how = f"; to resume: {command_to_resume()}" if with_command else ""
    return f"the newest checkpoint is {there[-1][1]}{how}"


# Commands -------------------------------------------------------------------------------------------------------------


def command(words: list[str]) -> str:
    """Return the shell command for a program and its flags."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE")  # from torchrun
    start = ["torchrun", f"--nproc_per_node={ranks}"] if ranks else ["python"]
    return subprocess.list2cmdline([*start, *words]) if os.name == "nt" else shlex.join([*start, *words])


def command_to_resume() -> str:
    """Return the command with which the user can resume this program's run."""
    if int(os.environ.get("GROUP_WORLD_SIZE", 1)) > 1:  # from torchrun
        return "the torchrun command of each machine, with --resume_from_checkpoint latest"
    words = []
    is_value = False  # of --resume_from_checkpoint
    for word in sys.argv:
        if not is_value and word != "--overwrite" and not word.startswith("--resume_from_checkpoint"):
            words.append(word)
        is_value = word == "--resume_from_checkpoint"
    return command([*words, "--resume_from_checkpoint", "latest"])
