"""From prompts to text: the flags that say how a model writes, a text as it grows, and many at once.

In reading order: `Sampling`, the flags; `Writer`, a model with its tokenizer, which writes; `chat_prompt`.
"""

import dataclasses
import re
from dataclasses import dataclass

from common.devices import choose_device, ready_to_write
from common.flags import add_fields, settings_from
from common.weights_files import load_model
from data import load_tokenizer
from generation.beam_search import beam_search
from generation.generate import generate
from generation.sampling import Sampling

WORD_END = re.compile(r"\s(?=\S*$)")  # the last white space: what comes after it may still grow


def add_generation_flags(parser, model_path):
    """The flags that writing and chatting have in common."""
    parser.add_argument("--model_path", default=model_path, help="the model (default: %(default)s)")
    parser.add_argument(
        "--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="step 1's file (default: %(default)s)"
    )
    group = parser.add_argument_group("how it writes")
    add_fields(group, Sampling, {}, parser)
    group.add_argument("--device", default="auto", help="auto takes cuda, then mps, then cpu (default: %(default)s)")


def load_writer(args):
    """The Writer that the flags of `add_generation_flags` stand for."""
    sampling, tokenizer = settings_from(args, Sampling), load_tokenizer(args.tokenizer_path)
    model, _ = load_model(args.model_path, tokenizer, choose_device(args.device))
    return Writer(ready_to_write(model), tokenizer, sampling, args.model_path)


@dataclass
class Written:
    """A text that is over.  ended: `eos`, `stop` (at a --stop text) or `length`; tokens: how many were written."""

    text: str
    tokens: int
    ended: str


class Writer:
    """Continues prompts, lists of ids, with text.  Of the special tokens only <eos> is ever written, as an end."""

    def __init__(self, model, tokenizer, sampling, model_path=None):
        self.model, self.tokenizer, self.sampling, self.model_path = model, tokenizer, sampling, model_path
        self.context, self.end = model.config.max_seq_len, tokenizer.special["<eos>"]

    def set(self, **changes):
        """Change fields of the sampling.  Raises UserError for a value that makes no sense, and changes nothing."""
        self.sampling = dataclasses.replace(self.sampling, **changes)

    def options(self):
        """The keyword arguments that `generate` and `beam_search` have in common."""
        banned = [token for token in self.tokenizer.never_written if token != self.end]
        options = {"end": self.end, "banned": banned, "stopped": self.stopped if self.sampling.stop else None}
        return options | {name: getattr(self.sampling, name) for name in ("min_new_tokens", "repetition_penalty")}

    def drawn(self, prompts, keys):
        """What `generate` yields for prompts; keys: as there."""
        names = ("temperature", "top_k", "top_p", "min_p", "seed")
        drawing = {name: getattr(self.sampling, name) for name in names}
        return generate(self.model, prompts, self.sampling.max_new_tokens, keys=keys, **self.options() | drawing)

    def write(self, prompts, keys):
        """Continue prompts side by side -> a list of Written."""
        if self.sampling.num_beams > 1:
            sampling = self.sampling
            texts = beam_search(self.model, prompts, sampling.max_new_tokens, sampling.num_beams, **self.options())
        else:
            steps = zip(*self.drawn(prompts, keys), strict=True)
            texts = [[token for token in row if token is not None] for row in steps]
        return [self.written(ids) for ids in texts]

    def written(self, ids):
        text = self.tokenizer.decode(ids)
        end = self.stop_place(text)
        ended = "eos" if ids[-1] == self.end else "length" if end is None else "stop"
        return Written(text[:end], len(ids), ended)

    def stream(self, prompt, key=0):
        """Yield the text that continues a prompt, word by word."""
        if self.sampling.num_beams > 1:
            yield self.write([prompt], [key])[0].text
            return
        text, shown = "", 0
        longest_stop = max(map(len, self.sampling.stop or [""]))
        for piece in self.tokenizer.stream(tokens[0] for tokens in self.drawn([prompt], [key])):
            text += piece
            word_end = WORD_END.search(text)
            whole = min(word_end.start() if word_end else 0, len(text) - longest_stop)  # no part of a --stop text
            if self.stop_place(text) is None and whole > shown:
                yield text[shown:whole]
                shown = whole
        yield text[shown : self.stop_place(text)]

    def stopped(self, ids):
        """Whether new ids reach a --stop text: it has at least a byte a token, so it lies in the last few."""
        longest = max(len(stop.encode()) for stop in self.sampling.stop)
        return self.stop_place(self.tokenizer.decode(ids[-longest:])) is not None

    def stop_place(self, text):
        """Where the first --stop text begins, None if there is none."""
        places = [text.find(stop) for stop in self.sampling.stop or [] if stop in text]
        return min(places, default=None)
