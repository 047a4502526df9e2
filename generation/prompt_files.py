"""A file of prompts in, a file of samples out: one JSON object per sample, with everything needed to score it.

In reading order: `read_prompts`; `Samples`, which samples to write, and `Samples.rows`, which writes them;
`write_samples`, which resumes an interrupted run; the flags.
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
from corpus.dialogue_rows import (
    CONTEXT,
    HISTORY,
    INPUT,
    LISTS,
    SYSTEM,
    are_all_turns,
    holds_dialogue,
    looks_like_turns,
    turns_or_text,
)
from corpus.dialogues import Turn
from corpus.notes import Notes, ReadingFlags, Wanted, is_empty, name_in, named
from corpus.readers import KINDS, kind_of, read_rows
from corpus.speakers import Speakers
from corpus.turns import from_text, spoken_turns
from generation.prompts import chat_prompt, story_prompt
from generation.writer import Writer

BATCH_SIZE = 64  # samples at once
OF_A_SAMPLE = ("sample", "text", "tokens", "ended")  # keys of a sample's row, in addition to its prompt's


# Prompts --------------------------------------------------------------------------------------------------------------


@dataclass
class Prompt:
    """One prompt of a file.

    id: from the file, or the prompt's number, from 0.  prompt: a text or a list of turns.  extra: its other keys.
    turns: those of the list as (role, text).  is_saved: it is a saved dialogue, which may end with a reply.
    """

    id: int | str
    prompt: str | list
    extra: dict
    place: str
    turns: list[Turn] | None = None
    is_saved: bool = False


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read the prompts of a file of one of `readers.KINDS`; a `.txt` file has one per line, a table a column `prompt`.

    A .txt file may also contain JSON or a table.  A prompt is a text, a list of turns, or an object with one of these
    as `prompt`, perhaps an `id`, and other keys.  If an object has a dialogue as `messages`, as the chat's /save writes
    it, its last reply is dropped and written again.  Raises UserError, naming the place.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}; --prompts_file needs the path of a {', '.join(KINDS)} file")
    notes = Notes()
    prompts = []
    for row, place in read_rows(path, Wanted(is_prompt, story_ends="line"), notes):
        if isinstance(row, UserError):
            raise row
        row = json.loads(without_surrogates(json.dumps(row, ensure_ascii=False, default=str)))
        if kind_of(path) == "text" and isinstance(row, dict) and row.keys() == {"text"}:  # plain text
            row = row["text"]
        prompts.append(prompt_of(row, len(prompts), place, notes))
    if not prompts:
        raise UserError(f"{path} contains no prompts")
    read_dialogues_of(prompts, path, notes)
    places = {}  # of the ids
    for prompt in prompts:
        check_prompt(prompt)
        if prompt.id in places:
            same = f"the id {one_line(prompt.id)} is also at {places[prompt.id]}"
            advice = "give each prompt its own id (a prompt without one gets its number, from 0)"
            raise UserError(f"{prompt.place}: {same}; {advice}")
        places[prompt.id] = prompt.place
    for line in notes.lines():
        log.info(f"{path}: {line}")
    return prompts


def is_prompt(value: object) -> bool:
    """Return whether the whole content of a JSON file, one value, is one prompt."""
    if isinstance(value, dict):
        prompt = turns_or_text(named(value, "prompt"))  # any other list may be a column of prompts
        of_dialogue = any(looks_like_turns(from_text(named(value, column))) for column in LISTS)
        return isinstance(prompt, str) or are_all_turns(prompt) or of_dialogue
    return isinstance(value, str) or (holds_dialogue(value) and not isinstance(value[0], str))


def prompt_of(row: object, number: int, place: str, notes: Notes) -> Prompt:
    """Return the prompt in a row, in whatever form; number: its id if it has none."""
    extra = dict(row) if isinstance(row, dict) else {"prompt": row}
    name = extra.pop(name_in(extra, "id"), None)
    text = turns_or_text(extra.pop(name_in(extra, "prompt"), None))
    dialogue = next((name_in(extra, column) for column in LISTS if name_in(extra, column)), None)
    is_saved = text is None and dialogue is not None
    if is_saved:
        text = from_text(extra.pop(dialogue))
    for column in (*SYSTEM, HISTORY, CONTEXT, INPUT):
        if name_in(extra, column):
            notes.guess(f'"{column}" next to a prompt is copied to the output, but not given to the model')
    if is_empty(name) or name == "":
        name = number
    elif isinstance(name, float) and name.is_integer():  # pandas' column of whole numbers, if one is missing
        name = int(name)
    return Prompt(name, text, extra, place, is_saved=is_saved)


def read_dialogues_of(prompts: list[Prompt], path: Path, notes: Notes) -> None:
    """Find the turns of the prompts that are dialogues; drop the last reply of a saved dialogue.

    Raises UserError for a list that is not a dialogue, and if it is not clear who speaks.
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
            notes.leave_out("last replies, which are written again")


def check_prompt(prompt: Prompt) -> None:
    """Raise UserError for a prompt that cannot be used."""
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
    """The samples that a model should write: num_samples for each prompt, in order.

    chat: prompts are messages of a user, or dialogues so far; otherwise they are beginnings of stories.
    Raises UserError for a prompt that cannot be used.
    """

    def __init__(self, writer: Writer, prompts: list[Prompt], num_samples: int = 1, chat: bool = False):
        self.writer = writer
        self.prompts = prompts
        self.num_samples = num_samples
        self.shortened = 0  # prompts that do not fit into the context
        self.ids = [self.ids_of(prompt, chat) for prompt in prompts]
        fingerprint = file_fingerprint(writer.model_path)
        self.how = dataclasses.asdict(writer.sampling)  # in every row: how it was written
        self.how |= {"model": str(writer.model_path), "model_fingerprint": fingerprint}
        reserved = {*OF_A_SAMPLE, *self.how}
        for prompt in prompts:
            for name in prompt.extra.keys() & reserved:
                raise UserError(f'{prompt.place}: the key "{name}" is reserved for the samples; rename it')

    def ids_of(self, prompt: Prompt, chat: bool) -> list[int]:
        """Return the model's input for a prompt."""
        text = prompt.prompt
        if chat:
            turns = prompt.turns or [("user", text)]
            rendered = chat_prompt(self.writer, turns)
            self.shortened += rendered.dropped > 0 or rendered.question_cut
            return rendered.ids
        if not isinstance(text, str):
            raise UserError(f"{prompt.place}: a dialogue, not a story; pass it to chat_with_tinystories_model.py")
        return story_prompt(self.writer, text, prompt.place)

    def __len__(self) -> int:
        return len(self.prompts) * self.num_samples

    def asked(self, index: int) -> dict:
        """Return the fields before the text in a sample's row: its prompt and how it was written."""
        number, sample = divmod(index, self.num_samples)
        prompt = self.prompts[number]
        return {"id": prompt.id, "prompt": prompt.prompt} | prompt.extra | {"sample": sample} | self.how

    def rows(self, first: int = 0, batch_size: int = BATCH_SIZE) -> Iterator[list[dict]]:
        """Yield batches, lists of rows, starting with sample `first`.

        Each sample has its own random generator, made from the seed, the prompt's number and the sample's number.  So
        its text does not depend on the batch, except for rounding.
        """
        indices = iter(range(first, len(self)))
        while batch := list(itertools.islice(indices, batch_size)):
            places = [divmod(index, self.num_samples) for index in batch]
            row_seeds = [sample << 32 | number for number, sample in places]
            texts = self.writer.write([self.ids[number] for number, _ in places], row_seeds)
            yield [self.asked(index) | vars(text) for index, text in zip(batch, texts, strict=True)]


def file_fingerprint(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_samples(
    samples: Samples, output_file: str | None = None, batch_size: int = BATCH_SIZE, overwrite: bool = False
) -> None:  # fmt: skip
    """Write the rows of Samples, one JSON object per line, to a file or to stdout.

    If the file already contains the first of these samples, the others are added; an incomplete last line is written
    again.  Raises UserError if the file contains anything else, unless overwrite is True.
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
            log.info(f"{output_file} already contains {done:,} of {total:,} samples")
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
    """Open a file and lock it for this process; yield None if there is no path."""
    if not path:
        yield None
        return
    with naming(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab+")  # noqa: SIM115
    with file:
        if locked(file) is False:
            raise UserError(f"{path}: another run is writing into it; wait, or pass another --output_file")
        if overwrite:
            file.truncate(0)
        yield file


def count_samples(samples: Samples, file, path: str) -> int:
    """Return how many samples the file contains; cut off an incomplete last one.  Raises UserError for other lines."""
    file.seek(0)
    done = 0
    whole = 0  # bytes of those samples
    for line in file:
        asked = samples.asked(done) if done < len(samples) else None
        if asked and is_beginning(line, asked):
            break  # the run was killed while it was writing this line
        check_sample(line, asked, f"{path}, line {done + 1}")
        done += 1
        whole += len(line)
    file.truncate(whole)
    return done


def is_beginning(line: bytes, asked: dict) -> bool:
    """Return whether a line is incomplete; asked: its fields before the text."""
    begun = json.dumps(asked, ensure_ascii=False)[:-1].encode()
    return not line.endswith(b"\n") and line[: len(begun)] == begun[: len(line)]


def check_sample(line: bytes, asked: dict | None, place: str) -> None:
    """Raise UserError unless a line is the sample that belongs there.

    asked: the fields before its text; None: no sample belongs there.
    """
    advice = "pass another --output_file, or --overwrite"
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not {"id", "text", "ended"} <= row.keys():
        raise UserError(f"{place}: not a sample; {advice}")
    if asked is None:
        raise UserError(f"{place}: more samples than requested; {advice}")
    for name, value in asked.items():
        was = json.dumps(row.get(name))
        now = json.dumps(value)
        if was != now:
            change = f"written with {name} {one_line(was)}, but now it is {one_line(now)}"
            raise UserError(f"{place}: {change}; {advice}")


# Flags ----------------------------------------------------------------------------------------------------------------


def add_prompt_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for many prompts, which both programs have."""
    group = parser.add_argument_group("many at once")
    group.add_argument("--prompts_file", help="a .txt (one per line), .json, .jsonl or .csv file of prompts")
    group.add_argument("--output_file", help="a .jsonl file for the samples; an interrupted run resumes there")
    group.add_argument("--num_samples", type=int, default=1, help="samples per prompt (default: %(default)s)")
    group.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="samples at once (default: %(default)s)")
    group.add_argument("--overwrite", action="store_true", help="replace the output file")


def rows_at_once(args: argparse.Namespace) -> int:
    """Return how many texts a model writes side by side with these flags."""
    return args.batch_size if args.prompts_file or args.num_samples > 1 else 1


def check_prompt_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that make no sense, alone or together."""
    for name in ("num_samples", "batch_size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if args.num_samples > 1 and args.num_beams > 1:
        raise UserError("--num_beams finds one text per prompt; omit --num_samples")
    if args.output_file and Path(args.output_file).suffix != ".jsonl":
        raise UserError(f"--output_file {args.output_file} must end in .jsonl: it gets one JSON object per line")
    if args.num_samples > 1 and args.temperature == 0:
        raise UserError("with --temperature 0 all samples would be the same; omit --num_samples")
    if args.overwrite and not args.output_file:
        raise UserError("--overwrite needs --output_file")
    if args.output_file and not args.prompts_file:
        raise UserError("--output_file needs --prompts_file")
    if args.output_file and Path(args.output_file).resolve() == Path(args.prompts_file).resolve():
        raise UserError(
            "--output_file and --prompts_file are the same file, and the prompts would be lost; choose another name"
        )
