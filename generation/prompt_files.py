"""A file of prompts in, a file of samples out: one JSON object a sample, with all that is needed to score it.

In reading order: `read_prompts`; `Samples`, what is asked of whom, and `Samples.rows`, the answers; `write_samples`,
which goes on where a run was cut off.
"""

import contextlib
import csv
import dataclasses
import hashlib
import itertools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.console import say
from common.errors import UserError
from common.files import locked, naming
from common.text import clean, printed, shortened
from corpus.dialogues import read_turns
from corpus.sources import json_lines, json_list, text_stories
from generation.prompts import chat_prompt, story_prompt

SUFFIXES = (".txt", ".json", ".jsonl", ".csv")


@dataclass
class Prompt:
    """id: from the file, or the prompt's number from 0 on.  prompt: a text, or a list of turns.  extra: other keys."""

    id: int | str
    prompt: str | list
    extra: dict
    place: str


def read_prompts(path):
    """The prompts of a `.txt` (one a line), `.json` (a list), `.jsonl` or `.csv` file (with a column `prompt`).

    A prompt is a text, a list of turns, or an object with either as `prompt`, maybe an `id`, and keys of its own.
    Raises UserError, naming the place.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}; pass --prompts_file a {', '.join(SUFFIXES)} file")
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: cannot read {path.suffix or 'a file without a suffix'}; known are {', '.join(SUFFIXES)}"
        )
    readers = {".txt": text_stories, ".json": json_list, ".jsonl": json_lines, ".csv": csv_rows}
    prompts, ids = [], {}
    for row, place in readers[path.suffix](path):
        if isinstance(row, UserError):
            raise UserError(str(row).replace(", or pass --skip_bad_rows", ""))  # a flag of the trainers
        row = json.loads(clean(json.dumps(row, ensure_ascii=False)))  # also what an escape in it stands for
        if path.suffix == ".txt":
            row = row["text"]
            if not row:
                continue
        fields = dict(row) if isinstance(row, dict) else {"prompt": row}
        number = fields.pop("id", None)
        number = len(prompts) if number in (None, "") else number
        prompt = Prompt(number, fields.pop("prompt", None), fields, place)
        check_prompt(prompt, ids)
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"{path} holds no prompt")
    return prompts


def check_prompt(prompt, ids):
    """Raise UserError for a prompt that cannot be asked; ids: {id: place} of those before it, to which it is added."""
    place, text = prompt.place, prompt.prompt
    if not isinstance(text, (str, list)) or not text:
        found = f" (found: {shortened(', '.join(prompt.extra))})" if prompt.extra else ""
        raise UserError(f'{place}: a text, a list of turns, or an object with one as "prompt" was expected{found}')
    if isinstance(text, list):
        try:
            turns = read_turns(text)
        except ValueError as error:
            raise UserError(f"{place}: {error}") from None
        if turns[-1][0] != "user":
            raise UserError(f"{place}: the last turn is not the user's, so there is nothing to answer")
    if isinstance(prompt.id, bool) or not isinstance(prompt.id, (int, str)):
        raise UserError(f"{place}: the id {printed(prompt.id)} is neither a number nor a text")
    if prompt.id in ids:
        same = f"the id {printed(prompt.id)} stands at {ids[prompt.id]} too"
        raise UserError(f"{place}: {same}; give each prompt an own one (a prompt without has its number, from 0 on)")
    ids[prompt.id] = place


def csv_rows(path):
    """Yield (row, place) of a csv file with a line of column names, all values as text."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                if None in row:
                    raise UserError(
                        f"{path}, line {reader.line_num}: more values than columns; quote those with commas"
                    )
                yield {name: value or "" for name, value in row.items()}, f"{path}, line {reader.line_num}"
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8; save the file as UTF-8") from None
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: not csv ({error})") from None


def add_prompt_flags(parser):
    """The flags of both programs for many prompts."""
    group = parser.add_argument_group("many at once")
    group.add_argument("--prompts_file", help="a .txt (one a line), .json, .jsonl or .csv file of prompts")
    group.add_argument("--output_file", help="where the samples go, .jsonl; a run that was cut off goes on there")
    group.add_argument("--num_samples", type=int, default=1, help="samples a prompt (default: %(default)s)")
    group.add_argument("--batch_size", type=int, default=64, help="samples at once (default: %(default)s)")
    group.add_argument("--overwrite", action="store_true", help="replace the output file")


def check_prompt_flags(args):
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


class Samples:
    """The samples that a model shall write: for each prompt num_samples, in order.

    chat: prompts are what the user says, or dialogues so far; otherwise beginnings of stories.
    Raises UserError for a prompt that cannot be asked.
    """

    def __init__(self, writer, prompts, num_samples=1, chat=False):
        self.writer, self.prompts, self.num_samples = writer, prompts, num_samples
        self.ids, self.shortened = [], 0
        for prompt in prompts:
            if chat:
                turns = [("user", prompt.prompt)] if isinstance(prompt.prompt, str) else read_turns(prompt.prompt)
                ids, dropped, cut = chat_prompt(writer, turns)
                self.shortened += dropped > 0 or cut
            elif not isinstance(prompt.prompt, str):
                raise UserError(f"{prompt.place}: turns of a dialogue; chat_with_tinystories_model.py answers those")
            else:
                ids = story_prompt(writer, prompt.prompt, prompt.place)
            self.ids.append(ids)
        described = dataclasses.asdict(writer.sampling)
        described |= {"model": str(writer.model_path), "model_fingerprint": file_fingerprint(writer.model_path)}
        self.described = described
        reserved = ("sample", "text", "tokens", "ended", *described)
        for prompt in prompts:
            for name in prompt.extra.keys() & set(reserved):
                raise UserError(f'{prompt.place}: the key "{name}" is one that the samples have; rename it')

    def __len__(self):
        return len(self.prompts) * self.num_samples

    def asked(self, index):
        """What a sample's row says before the text: its prompt and how it was written."""
        number, sample = divmod(index, self.num_samples)
        prompt = self.prompts[number]
        return {"id": prompt.id, "prompt": prompt.prompt} | prompt.extra | {"sample": sample} | self.described

    def rows(self, first=0, batch_size=64):
        """Yield batches, lists of rows (dicts), from sample `first` on.

        Each sample draws from a generator of its own, made of the seed, the prompt's number and the sample's: its text
        does not depend on the batch, up to rounding.
        """
        indices = iter(range(first, len(self)))
        while batch := list(itertools.islice(indices, batch_size)):
            places = [divmod(index, self.num_samples) for index in batch]
            keys = [sample << 32 | number for number, sample in places]
            texts = self.writer.write([self.ids[number] for number, _ in places], keys)
            yield [self.asked(index) | vars(text) for index, text in zip(batch, texts, strict=True)]


def file_fingerprint(path):
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_samples(samples, output_file=None, batch_size=64, overwrite=False):
    """Write the rows of Samples, a JSON object a line, to a file or to stdout.

    A file that holds the first of these very samples is gone on with; a last line that is not whole is written again.
    Raises UserError for a file that holds anything else, unless overwrite.
    """
    began, tokens, total = time.monotonic(), 0, len(samples)
    if samples.shortened:
        say(f"{samples.shortened:,} prompts do not fit the model's context: their oldest turns or words are left out")
    with contextlib.ExitStack() as stack:
        done, file = 0, None
        if output_file:
            with naming(output_file):
                Path(output_file).parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(output_file, "ab+"))
            if locked(file) is False:
                raise UserError(f"{output_file}: another run is writing into it")
            if overwrite:
                file.truncate(0)
            done = samples_there(samples, file, output_file)
            if done:
                say(f"{output_file}: {done:,} of {total:,} samples are there already")
        bar = tqdm(total=total, initial=done, unit=" samples", disable=not sys.stderr.isatty(), leave=False)
        with bar:
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
    say(f"{total - done:,} samples, {tokens:,} tokens in {seconds:.1f} s{f' -> {output_file}' if output_file else ''}")


def samples_there(samples, file, path):
    """How many samples the file holds, its end then where the next one goes.  Raises UserError for other lines."""
    file.seek(0)
    done, whole = 0, 0
    for line in file:
        place, asked = f"{path}, line {done + 1}", samples.asked(done) if done < len(samples) else {}
        begun = json.dumps(asked, ensure_ascii=False)[:-1].encode()  # what a line begins with, before the text
        if asked and not line.endswith(b"\n") and line[: len(begun)] == begun[: len(line)]:
            break  # the run was killed while it wrote this
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not {"id", "text", "ended"} <= row.keys():
            raise UserError(f"{place}: no sample; pass another --output_file, or --overwrite")
        if not asked:
            raise UserError(f"{place}: more samples than are asked for; pass another --output_file, or --overwrite")
        was, now = ({name: json.dumps(values.get(name)) for name in asked} for values in (row, asked))
        if other := next((name for name in asked if was[name] != now[name]), None):
            change = f"written with {other} {printed(was[other])}, and now it is {printed(now[other])}"
            raise UserError(f"{place}: {change}; pass another --output_file, or --overwrite")
        done, whole = done + 1, whole + len(line)
    file.truncate(whole)
    return done
