"""From prompts to text: a model with its tokenizer writes one text piece by piece, or many texts at once."""

import argparse
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.devices import choose_device, ready_to_write
from common.flags import add_fields, settings_from
from common.weights_files import load_model
from data import Tokenizer, load_tokenizer
from generation.beam_search import beam_search
from generation.generate import Rules, generate
from generation.sampling import Sampling
from model import Transformer

WORD_END = re.compile(r"\s(?=\S*$)")  # the last white space: what comes after it may still grow


def add_generation_flags(parser: argparse.ArgumentParser, model_path: str) -> None:
    """Add the flags that steps 3 and 5 share."""
    parser.add_argument("--model_path", default=model_path, help="model file (default: %(default)s)")
    parser.add_argument(
        "--tokenizer_path",
        default="bpe_tokenizer_tinystories.pkl",
        help="tokenizer file from step 1 (default: %(default)s)",
    )
    group = parser.add_argument_group("how it writes")
    add_fields(group, Sampling, {}, parser)
    group.add_argument(
        "--device", default="auto", help="auto: cuda if available, else mps, else cpu (default: %(default)s)"
    )


def load_writer(args: argparse.Namespace, rows: int = 1) -> "Writer":
    """Return the Writer for the flags of `add_generation_flags`; rows: how many texts it writes side by side."""
    sampling = settings_from(args, Sampling)
    tokenizer = load_tokenizer(args.tokenizer_path)
    model, _ = load_model(args.model_path, tokenizer, choose_device(args.device))
    return Writer(ready_to_write(model, rows * sampling.num_beams), tokenizer, sampling, args.model_path)


@dataclass
class Written:
    """A finished text.  ended: `eos`, `stop` (at a --stop text) or `length`; tokens: how many were written."""

    text: str
    tokens: int
    ended: str


class Writer:
    """Continues prompts, lists of ids, with text.  It writes no special token except <eos>, which ends a text."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, sampling: Sampling, model_path: str | Path | None = None
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.sampling = sampling
        self.model_path = model_path
        self.context = model.config.max_seq_len
        self.end = tokenizer.special["<eos>"]
        self.ended = ""  # how the last text of `stream` ended, as in `Written`; "" if it was interrupted

    def set(self, **changes) -> None:
        """Change sampling settings.  For a value that makes no sense, raises UserError and changes nothing."""
        self.sampling = dataclasses.replace(self.sampling, **changes)

    def rules(self) -> Rules:
        """Return which tokens may be written, and where a text ends."""
        banned = tuple(token for token in self.tokenizer.never_written if token != self.end)
        return Rules(self.end, banned, self.reaches_stop if self.sampling.stop else None)

    def write(self, prompts: list[list[int]], row_seeds: list[int]) -> list[Written]:
        """Continue prompts side by side; row_seeds: see `generate`."""
        return [self.finished(ids) for ids in self.write_ids(prompts, row_seeds)]

    def write_ids(self, prompts: list[list[int]], row_seeds: list[int]) -> list[list[int]]:
        """Return the new ids of the texts that `write` returns."""
        if self.sampling.num_beams > 1:
            return beam_search(self.model, prompts, self.sampling, self.rules())
        texts = [[] for _ in prompts]
        for tokens in generate(self.model, prompts, self.sampling, self.rules(), row_seeds):
            for text, token in zip(texts, tokens, strict=True):
                if token is not None:
                    text.append(token)
        return texts

    def finished(self, ids: list[int]) -> Written:
        """Return the text of new ids, cut off before a --stop text."""
        text = self.tokenizer.decode(ids)
        stop = self.stop_place(text)
        if ids[-1:] == [self.end]:
            ended = "eos"
        else:
            ended = "length" if stop is None else "stop"
        return Written(text[:stop], len(ids), ended)

    def stream(self, prompt: list[int], row_seed: int = 0) -> Iterator[str]:
        """Yield the text that continues a prompt, word by word; afterwards `self.ended` is set."""
        self.ended = ""
        if self.sampling.num_beams > 1:
            written = self.write([prompt], [row_seed])[0]
            yield written.text
            self.ended = written.ended
            return
        ids = []
        text = ""
        shown = 0  # characters already yielded
        longest_stop = max(map(len, self.sampling.stop or [""]))
        for piece in self.pieces(prompt, row_seed, ids):
            text += piece
            word_end = WORD_END.search(text)
            whole = min(word_end.start() if word_end else 0, len(text) - longest_stop)  # no part of a --stop text
            if self.stop_place(text) is None and whole > shown:
                yield text[shown:whole]
                shown = whole
        yield text[shown : self.stop_place(text)]
        self.ended = self.finished(ids).ended

    def pieces(self, prompt: list[int], row_seed: int = 0, ids: list[int] | None = None) -> Iterator[str]:
        """Yield the text that continues a prompt as soon as its characters are complete, including a --stop text.

        ids: a list to which the tokens are added.
        """
        ids = [] if ids is None else ids

        def new_ids():
            for (token,) in generate(self.model, [prompt], self.sampling, self.rules(), [row_seed]):
                ids.append(token)
                yield token

        return self.tokenizer.stream(new_ids())

    def reaches_stop(self, ids: list[int]) -> bool:
        """Return whether new ids reach a --stop text.  A token has at least one byte, so the last few are enough."""
        longest = max(len(stop.encode()) for stop in self.sampling.stop)
        return self.stop_place(self.tokenizer.decode(ids[-longest:])) is not None

    def stop_place(self, text: str) -> int | None:
        """Return where the first --stop text begins; None if there is none."""
        places = [text.find(stop) for stop in self.sampling.stop or [] if stop in text]
        return min(places, default=None)
