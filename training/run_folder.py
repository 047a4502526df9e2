"""What a run leaves behind: its folder with the log, the numbers, the models and the checkpoints to go on from."""

import contextlib
import importlib.util
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

from tqdm import tqdm

from common.errors import UserError
from common.files import locked, naming, on_disk, write_json
from common.weights_files import Damaged
from training.curves import draw, read_metrics
from training.resume import read_checkpoint

COMPARED = ("Loss/val", "Perplexity/val", "BitsPerByte/val", "Throughput/tokens_per_second")  # in TensorBoard's table


def command(words):
    """What is typed at the shell for a program and its flags."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE")  # from torchrun
    words = [*(["torchrun", f"--nproc_per_node={ranks}"] if ranks else ["python"]), *words]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


class Run:
    """The folder that a run leaves behind, and what the console says meanwhile.

    docs/records.md says what is in it.  Nothing is written before `start`; what was said until then goes into train.log
    too.
    """

    def __init__(self, args, writes=True):
        """writes: False for a rank that says and writes nothing, because another one does.  Raises UserError."""
        self.writes = writes
        self.args, self.folder = vars(args) | {"program": Path(sys.argv[0]).name}, Path(args.output_dir)
        self.run_id, self.lines, self.log_file, self.metrics = uuid.uuid4().hex, [], None, None
        self.board, self.mirror, self.hparams_end = None, None, None
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"--output_dir {self.folder} is a file; name a folder")
        if self.writes and (self.folder / "train.log").is_file():
            with contextlib.suppress(PermissionError), open(self.folder / "train.log", "r+b") as file:
                self.claim(file)
        if args.overwrite and args.resume_from_checkpoint:
            raise UserError("--overwrite begins anew and --resume_from_checkpoint goes on; pass one of them")
        resume, replaces_pilot = args.resume_from_checkpoint, self.held_pilot() and not args.pilot_run
        self.checkpoint, self.restored = None, None  # the file to go on from, and what is in it
        if resume and not (resume == "auto" and replaces_pilot):
            self.checkpoint, self.restored = self.find_checkpoint(resume)
        self.found = self.held_run()
        replaced = args.overwrite or self.held_pilot() or (resume == "auto" and not self.path("summary.json").exists())
        self.goes_on = self.checkpoint is not None and self.checkpoint.parent.resolve() == self.folder.resolve()
        if self.writes and self.held_run() and not self.goes_on and not replaced:
            raise UserError(
                f"{self.folder} already holds a run; pass --overwrite to replace it, "
                f"--resume_from_checkpoint latest to go on with it, or another --output_dir"
            )

    def claim(self, log_file):
        """Keep other runs out of the folder, by a lock on its log that ends with this process."""
        if locked(log_file) is False:
            raise UserError(
                f"another run is writing into {self.folder}; wait for its end, or pass another --output_dir"
            )

    def find_checkpoint(self, resume):
        """(path, content) of the checkpoint that --resume_from_checkpoint names; (None, None) where auto finds none."""
        if resume not in ("latest", "auto"):
            if not Path(resume).exists():
                raise UserError(f"no checkpoint file {resume}; latest takes the newest in --output_dir")
            content = read_checkpoint(resume)
            newest = self.checkpoints()[-1][1] if self.checkpoints() else None
            if newest and newest.parent.resolve() == Path(resume).parent.resolve() and not newest.samefile(resume):
                raise UserError(f"{newest} is newer than {resume}, and would be lost; move it away first")
            return Path(resume), content
        for _, path in reversed(self.checkpoints()):
            try:
                return path, read_checkpoint(path)
            except Damaged as error:
                self.say(f"{error.what}; passed over, the checkpoint before it is taken if there is one")
        if resume == "latest":
            some = "whole checkpoint" if self.checkpoints() else "checkpoint"
            raise UserError(f"no {some} in {self.folder}; start the run without --resume_from_checkpoint")
        return None, None

    def held_run(self):
        """The files of a run that stands in the folder."""
        names = ("args.json", "train.log", "metrics.jsonl", "summary.json", "best_model.pth", "final_model.pth")
        names += ("loss_curve.png",)
        patterns = (*names, "checkpoint-*.pth", "events.out.tfevents.*", ".*.partial")
        return [path for pattern in patterns for path in self.folder.glob(pattern)]

    def held_pilot(self):
        try:
            return json.loads((self.folder / "args.json").read_text(encoding="utf-8")).get("pilot_run", False)
        except (OSError, ValueError, AttributeError):
            return False

    def checkpoints(self):
        """(step, path) of the folder's checkpoints, the newest last."""
        found = self.folder.glob("checkpoint-*.pth")
        return sorted((int(path.stem[11:]), path) for path in found if path.stem[11:].isdecimal())

    def check_space(self, needed):
        """Raise UserError unless the disk has room for so many bytes; what the folder's run takes now is room."""
        there = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(there).free + sum(path.stat().st_size for path in self.held_run())
        if self.writes and free < needed:
            raise UserError(
                f"the run needs about {needed / 1e6:,.0f} MB in {self.folder} for its checkpoints and models, and "
                f"{free / 1e6:,.0f} MB are free; make room, or pass --keep_checkpoints 1 or another --output_dir"
            )

    def start(self, resumed_step=None, sizes=None):
        """Open the records: of a new run, replacing an old one's, or of a run that goes on after resumed_step.

        sizes: those of the records when the checkpoint was saved (see `flushed_sizes`); what stands after them, comes
        anew.
        """
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file = open(self.path("train.log"), "a", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.claim(self.log_file)
        if {*self.held_run(), self.path("train.log")} != {*self.found, self.path("train.log")}:
            raise UserError(f"another run has written into {self.folder} since this one began; start this one again")
        if self.goes_on:
            stale = [path for step, path in self.checkpoints() if step > resumed_step]
            stale += [self.path("summary.json"), *self.folder.glob(".*.partial")]
        else:
            stale, sizes = [path for path in self.held_run() if path.name != "train.log"], {"train.log": 0}
        for path in stale:
            path.unlink(missing_ok=True)
        self.metrics = open(self.path("metrics.jsonl"), "a", encoding="utf-8", errors="replace")  # noqa: SIM115
        for file in (self.log_file, self.metrics):
            held = os.path.getsize(file.name)
            file.truncate(min(held, (sizes or {}).get(Path(file.name).name, held)))
        write_json(self.path("args.json"), self.args)
        for line in self.lines:
            self.write(line, self.log_file)
        self.open_board(resumed_step)

    def open_board(self, resumed_step):
        """TensorBoard's event file, with the flags as hparams, and its mirror at Weights & Biases."""
        if self.args.get("wandb"):
            self.mirror = open_wandb(self)
        try:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams
        except ImportError:
            self.say("tensorboard is not installed: no event file; metrics.jsonl has the same numbers")
            return
        self.board = SummaryWriter(self.folder, purge_step=None if resumed_step is None else resumed_step + 1)
        flags = {name: value if isinstance(value, (int, float)) else str(value) for name, value in self.args.items()}
        *start, self.hparams_end = hparams(flags, dict.fromkeys(COMPARED, 0.0))  # `add_hparams` opens a second file
        for part in start:
            self.board.file_writer.add_summary(part)

    def flushed_sizes(self):
        """The sizes of the log and of the metrics, once they are on the disk."""
        for file in (self.log_file, self.metrics):
            with naming(file.name):
                on_disk(file)
        return {Path(file.name).name: os.path.getsize(file.name) for file in (self.log_file, self.metrics)}

    def write(self, line, file):
        with naming(file.name):
            print(line, file=file, flush=True)

    def say(self, message, file=None):
        """To stderr (or file) and train.log; before `start`, kept until then."""
        if not self.writes:
            return
        if self.log_file:
            self.write(message, self.log_file)
        else:
            self.lines.append(message)
        with contextlib.suppress(OSError):  # a terminal that is gone must not end the run before its checkpoint
            tqdm.write(message, file=file or sys.stderr)

    def log(self, message):
        """A line of the run's log proper, with the time, to stdout and train.log."""
        self.say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", file=sys.stdout)

    def record(self, event, tags=None, **values):
        """A row of metrics.jsonl; tags: {TensorBoard's tag: value} of the same moment."""
        if not self.metrics:  # another rank's business, or not yet begun
            return
        infinite = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
        self.write(
            json.dumps({"event": event} | values | dict.fromkeys(infinite)), self.metrics
        )  # null, as JSON has it
        for tag, value in (tags or {}).items():
            if self.board:
                self.board.add_scalar(tag, value, values["step"])
        if tags and self.board:
            self.board.flush()

    def show_text(self, tag, text, step):
        """A text for TensorBoard, which takes it for Markdown: as code, so that nothing in it is a mark."""
        if self.board:
            self.board.add_text(tag, "\n".join(f"    {line}" for line in text.splitlines()), step)

    def draw_curves(self):
        """loss_curve.png, where matplotlib is installed; a run that is over does not fail for want of a picture."""
        if not self.writes or not importlib.util.find_spec("matplotlib"):
            return
        try:
            draw({self.folder.name: read_metrics(self.folder)}, self.path("loss_curve.png"))
        except Exception as error:  # matplotlib, fonts, files: anything
            self.say(f"loss_curve.png could not be drawn: {(str(error) or type(error).__name__).splitlines()[0]}")

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
        if int(os.environ.get("GROUP_WORLD_SIZE", 1)) > 1:  # from torchrun
            return "the torchrun command of each machine, with --resume_from_checkpoint latest"
        return command([*words, "--resume_from_checkpoint", "latest"])

    def last_checkpoint(self, go_on=True):
        """Where a run that failed can be gone on with, in words."""
        if not self.checkpoints():
            return "no checkpoint had been saved yet"
        command = f", go on with: {self.command_to_go_on()}" if go_on else ""
        return f"the newest checkpoint is {self.checkpoints()[-1][1]}{command}"

    def close(self):
        """Close the records; where a write had failed, what is left of them is given up."""
        if self.board:
            with contextlib.suppress(OSError):
                self.board.file_writer.add_summary(self.hparams_end)
        for file in (self.board, self.log_file, self.metrics):
            if file:
                with contextlib.suppress(OSError):
                    file.close()
        if self.mirror:
            self.mirror.finish()
        self.board = self.log_file = self.metrics = self.mirror = None


def open_wandb(run):
    """A run at Weights & Biases that gets what TensorBoard gets; without an account, kept to be sent later."""
    import wandb

    mode = None if os.environ.get("WANDB_MODE") or wandb.login(prompt=False) else "offline"
    try:
        mirror = wandb.init(
            project="tinystories", name=run.folder.name, id=run.run_id, resume="allow", mode=mode, dir=run.folder,
            config=run.args, sync_tensorboard=True, settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
    except wandb.Error as error:
        run.say(f"--wandb: {str(error).splitlines()[0]}; the run goes on without")
        return None
    if mode == "offline":
        run.say(f"--wandb: no account; after `wandb login`, send the curves with: wandb sync {Path(mirror.dir).parent}")
    return mirror
