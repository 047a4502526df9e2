"""A file of prompts in, a file of samples out: one JSON object a sample, with all that is needed to score it.

In reading order: `read_prompts`; `Samples`, what is asked of whom, and `Samples.rows`, the answers; `write_samples`,
which resumes where a run was cut off; the flags.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.console import log
from common.errors import UserError, one_line
from common.files import locked, naming
from common.text import without_surrogates
from corpus.dialogue_rows import CONTEXT, HISTORY, LISTS, SYSTEM, holds_dialogue, turns_or_text
from corpus.dialogues import Turn
from corpus.notes import Notes, ReadingFlags, Wanted, name_in, plain_name
from corpus.readers import KINDS, kind_of, read_rows
from corpus.speakers import Speakers
from corpus.turns import from_text, spoken_turns
from generation.prompts import chat_prompt, story_prompt
from generation.writer import Writer

BATCH_SIZE = 64  # samples at once
OF_A_SAMPLE = ("sample", "text", "tokens", "ended")  # keys of a sample's row beside its prompt's


# Prompts --------------------------------------------------------------------------------------------------------------


@dataclass
class Prompt:
    """id: from the file, or the prompt's number from 0 on.  prompt: a text, or a list of turns.  extra: other keys.

    turns: those of the list as (role, text).  is_saved: it is a dialogue that may end with a reply.
    """

    id: int | str
    prompt: str | list
    extra: dict
    place: str
    turns: list[Turn] | None = None
    is_saved: bool = False


def read_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a file of one of `readers.KINDS`; a `.txt` file has one a line, a table a column `prompt`.

    A prompt is a text, a list of turns, or an object with either as `prompt`, maybe an `id`, and keys of its own.  Of a
    dialogue as `messages`, which the chat's /save writes, the last reply is left out: it is written anew.
    Raises UserError, naming the place.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}; pass --prompts_file a {', '.join(KINDS)} file")
    notes = Notes()
    prompts = []
    for row, place in read_rows(path, Wanted(is_prompt, story_ends="line"), notes):
        if isinstance(row, UserError):
            raise row
        row = json.loads(without_surrogates(json.dumps(row, ensure_ascii=False, default=str)))
        if kind_of(path) == "text":
            row = row["text"]
        prompts.append(prompt_of(row, len(prompts), place, notes))
    if not prompts:
        raise UserError(f"{path} holds no prompt")
    read_dialogues_of(prompts, path, notes)
    places = {}  # of the ids
    for prompt in prompts:
        check_prompt(prompt)
        if prompt.id in places:
            same = f"the id {one_line(prompt.id)} stands at {places[prompt.id]} too"
            advice = "give each prompt an own one (a prompt without has its number, from 0 on)"
            raise UserError(f"{prompt.place}: {same}; {advice}")
        places[prompt.id] = prompt.place
    for line in notes.lines():
        log.info(f"{path}: {line}")
    return prompts


def is_prompt(value: object) -> bool:
    """Whether a value that is all of a JSON file is one prompt."""
    if isinstance(value, dict):
        return not {plain_name(name) for name in value}.isdisjoint(("prompt", *LISTS))
    return isinstance(value, str) or (holds_dialogue(value) and not isinstance(value[0], str))


def prompt_of(row: object, number: int, place: str, notes: Notes) -> Prompt:
    """The prompt that a row holds, whatever it is; number: its id where it has none."""
    extra = dict(row) if isinstance(row, dict) else {"prompt": row}
    name = extra.pop(name_in(extra, "id"), None)
    text = turns_or_text(extra.pop(name_in(extra, "prompt"), None))
    dialogue = next((name_in(extra, column) for column in LISTS if name_in(extra, column)), None)
    is_saved = text is None and dialogue is not None
    if is_saved:
        text = from_text(extra.pop(dialogue))
    for column in (*SYSTEM, HISTORY, CONTEXT):
        if name_in(extra, column):
            notes.guess(f'"{column}" beside a prompt is carried to the output, and not given to the model')
    return Prompt(number if name in (None, "") else name, text, extra, place, is_saved=is_saved)


def read_dialogues_of(prompts: list[Prompt], path: Path, notes: Notes) -> None:
    """Find the turns of those prompts that are dialogues; the last reply of one that was saved is left out.

    Raises UserError for a list that is none, and where nothing says who speaks although something may.
    """
    speakers = Speakers(ReadingFlags(), notes)
    dialogues = [prompt for prompt in prompts if isinstance(prompt.prompt, list) and prompt.prompt]
    try:
        for prompt in dialogues:
            place = prompt.place
            spoken_turns(prompt.prompt, None, Notes())
        place = path
        speakers.find([spoken_turns(prompt.prompt, None, Notes()) for prompt in dialogues], str(path))
        for prompt in dialogues:
            place = prompt.place
            prompt.turns = speakers.turns(prompt.prompt, notes)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    except UserError as error:
        reason, *_ = str(error).split("; pass --")  # flags of the trainer
        raise UserError(f'{reason}; name the speaker as "role"') from None
    for prompt in dialogues:
        if not prompt.is_saved:
            continue
        last = len(prompt.turns)
        while last and prompt.turns[last - 1][0] == "assistant":
            last -= 1
        if last and last < len(prompt.turns):
            if len(prompt.turns) == len(prompt.prompt):
                prompt.prompt = prompt.prompt[:last]
            else:  # a pair is two turns
                prompt.prompt = [{"role": role, "content": text} for role, text in prompt.turns[:last]]
            prompt.turns = prompt.turns[:last]
            notes.leave_out("last replies, which are written anew")


def check_prompt(prompt: Prompt) -> None:
    """Raise UserError for a prompt that cannot be asked."""
    place = prompt.place
    text = prompt.prompt
    if not isinstance(text, (str, list)) or not text:
        found = f" (found: {one_line(', '.join(prompt.extra))})" if prompt.extra else ""
        raise UserError(f'{place}: a text, a list of turns, or an object with one as "prompt" was expected{found}')
    if isinstance(text, list) and (not prompt.turns or prompt.turns[-1][0] != "user"):
        raise UserError(f"{place}: the last turn is not the user's, so there is nothing to answer")
    if isinstance(prompt.id, bool) or not isinstance(prompt.id, (int, str)):
        raise UserError(f"{place}: the id {one_line(prompt.id)} is neither a number nor a text")


# Samples --------------------------------------------------------------------------------------------------------------


class Samples:
    """The samples that a model is asked for: for each prompt num_samples, in order.

    chat: prompts are what the user says, or dialogues so far; otherwise beginnings of stories.
    Raises UserError for a prompt that cannot be asked.
    """

    def __init__(self, writer: Writer, prompts: list[Prompt], num_samples: int = 1, chat: bool = False):
        self.writer = writer
        self.prompts = prompts
        self.num_samples = num_samples
        self.shortened = 0  # prompts that do not fit into the context
        self.ids = [self.ids_of(prompt, chat) for prompt in prompts]
        fingerprint = file_fingerprint(writer.model_path)
        self.how = dataclasses.asdict(writer.sampling)  # what every row says of how it was written
        self.how |= {"model": str(writer.model_path), "model_fingerprint": fingerprint}
        reserved = {*OF_A_SAMPLE, *self.how}
        for prompt in prompts:
            for name in prompt.extra.keys() & reserved:
                raise UserError(f'{prompt.place}: the key "{name}" is one that the samples have; rename it')

    def ids_of(self, prompt: Prompt, chat: bool) -> list[int]:
        """What the model is given for a prompt."""
        text = prompt.prompt
        if chat:
            turns = prompt.turns or [("user", text)]
            rendered = chat_prompt(self.writer, turns)
            self.shortened += rendered.dropped > 0 or rendered.question_cut
            return rendered.ids
        if not isinstance(text, str):
            raise UserError(f"{prompt.place}: turns of a dialogue; chat_with_tinystories_model.py answers those")
        return story_prompt(self.writer, text, prompt.place)

    def __len__(self) -> int:
        return len(self.prompts) * self.num_samples

    def asked(self, index: int) -> dict:
        """What a sample's row says before the text: its prompt and how it was written."""
        number, sample = divmod(index, self.num_samples)
        prompt = self.prompts[number]
        return {"id": prompt.id, "prompt": prompt.prompt} | prompt.extra | {"sample": sample} | self.how

    def rows(self, first: int = 0, batch_size: int = BATCH_SIZE) -> Iterator[list[dict]]:
        """Yield batches, lists of rows, from sample `first` on.

        Each sample draws from a generator of its own, made of the seed, the prompt's number and the sample's: its text
        does not depend on the batch, up to rounding.
        """
        indices = iter(range(first, len(self)))
        while batch := list(itertools.islice(indices, batch_size)):
            places = [divmod(index, self.num_samples) for index in batch]
            row_seeds = [sample << 32 | number for number, sample in places]
            texts = self.writer.write([self.ids[number] for number, _ in places], row_seeds)
            yield [self.asked(index) | vars(text) for index, text in zip(batch, texts, strict=True)]


def file_fingerprint(path: str | Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_samples(
    samples: Samples, output_file: str | None = None, batch_size: int = BATCH_SIZE, overwrite: bool = False
) -> None:  # fmt: skip
    """Write the rows of Samples, a JSON object a line, to a file or to stdout.

    A file that holds the first of these very samples is continued; a last line that is not whole is written again.
    Raises UserError for a file that holds anything else, unless overwrite.
    """
    began = time.monotonic()
    total = len(samples)
    tokens = 0
    if samples.shortened:
        log.info(
            f"{samples.shortened:,} prompts do not fit the model's context: their oldest turns or words are left out"
        )
    with open_output(output_file, overwrite) as file:
        done = count_samples(samples, file, output_file) if file else 0
        if done:
            log.info(f"{output_file}: {done:,} of {total:,} samples are there already")
        with tqdm(total=total, initial=done, unit=" samples", disable=None, leave=False) as bar:
            for rows in samples.rows(done, batch_size):
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                if file:
                    with naming(output_file):
                        file.write(lines.encode())
                        file.flush()
                else:
                    sys.stdout.write(lines)
                tokens += sum(row["tokens"] for row in rows)
                bar.update(len(rows))
    seconds = time.monotonic() - began
    where = f" -> {output_file}" if output_file else ""
    log.info(f"{total - done:,} samples, {tokens:,} tokens in {seconds:.1f} s{where}")


@contextlib.contextmanager
def open_output(path: str | None, overwrite: bool) -> Iterator:
    """The file of that name, claimed for this process; None where there is no name."""
    if not path:
        yield None
        return
    with naming(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab+")  # noqa: SIM115
    with file:
        if locked(file) is False:
            raise UserError(f"{path}: another run is writing into it")
        if overwrite:
            file.truncate(0)
        yield file


def count_samples(samples: Samples, file, path: str) -> int:
    """How many samples the file holds, its end then where the next one goes.  Raises UserError for other lines."""
    file.seek(0)
    done = 0
    whole = 0  # bytes of those samples
    for line in file:
        asked = samples.asked(done) if done < len(samples) else None
        if asked and is_beginning(line, asked):
            break  # the run was killed while it wrote this
        check_sample(line, asked, f"{path}, line {done + 1}")
        done += 1
        whole += len(line)
    file.truncate(whole)
    return done


def is_beginning(line: bytes, asked: dict) -> bool:
    """Whether a line was cut off; asked: what it says before the text."""
    begun = json.dumps(asked, ensure_ascii=False)[:-1].encode()
    return not line.endswith(b"\n") and line[: len(begun)] == begun[: len(line)]


def check_sample(line: bytes, asked: dict | None, place: str) -> None:
    """Raise UserError unless a line of a file of samples is the one that would be written; None: none would."""
    advice = "pass another --output_file, or --overwrite"
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not {"id", "text", "ended"} <= row.keys():
        raise UserError(f"{place}: no sample; {advice}")
    if asked is None:
        raise UserError(f"{place}: more samples than are asked for; {advice}")
    for name, value in asked.items():
        was = json.dumps(row.get(name))
        now = json.dumps(value)
        if was != now:
            change = f"written with {name} {one_line(was)}, and now it is {one_line(now)}"
            raise UserError(f"{place}: {change}; {advice}")


# Flags ----------------------------------------------------------------------------------------------------------------


def add_prompt_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of both programs for many prompts."""
    group = parser.add_argument_group("many at once")
    group.add_argument("--prompts_file", help="a .txt (one a line), .json, .jsonl or .csv file of prompts")
    group.add_argument("--output_file", help="where the samples go, .jsonl; a run that was cut off goes on there")
    group.add_argument("--num_samples", type=int, default=1, help="samples a prompt (default: %(default)s)")
    group.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="samples at once (default: %(default)s)")
    group.add_argument("--overwrite", action="store_true", help="replace the output file")


def rows_at_once(args: argparse.Namespace) -> int:
    """How many texts the flags let a model write side by side."""
    return args.batch_size if args.prompts_file or args.num_samples > 1 else 1


def check_prompt_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that make no sense, alone or together."""
    for name in ("num_samples", "batch_size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if args.num_samples > 1 and args.num_beams > 1:
        raise UserError("--num_beams finds one text a prompt; leave out --num_samples")
    if args.output_file and Path(args.output_file).suffix != ".jsonl":
        raise UserError(f"--output_file {args.output_file} must end in .jsonl: it gets a JSON object a line")
    if args.output_file and not args.prompts_file:
        raise UserError("--output_file goes with --prompts_file")
    if args.output_file and Path(args.output_file).resolve() == Path(args.prompts_file).resolve():
        raise UserError("--output_file is the --prompts_file; choose another name, or the prompts would be lost")
