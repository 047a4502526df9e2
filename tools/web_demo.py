"""Try the model in a browser: write stories, see the probabilities of the next token, chat, and look inside.

    pip install -e ".[demo]"
    python tools/web_demo.py
    python tools/web_demo.py --model_path pilot/tinystories_model/best_model.pth --port 8000

The page offers every best_model.pth and final_model.pth in the folders here, or the files of --model_path; all are
loaded at the start.  Only this computer can open the page (127.0.0.1); with --host 0.0.0.0 everyone who can reach the
computer can, without a password.  The page sends nothing to other computers.  Ctrl-C ends the demo.

In reading order: `next_tokens`; `Demo`, the functions behind the page; `bar_chart`; `page`, the layout, followed by all
the code that uses Gradio.
"""

import argparse
import copy
import html
import importlib.util
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inside import page_content
from inside.stories import stories_to_measure
from pages.inside import inside_page, signs
from pages.templates import TEMPLATES

from common.console import log
from common.devices import choose_device, ready_to_write
from common.errors import UserError, reason_of
from common.flags import FlagParser
from common.program import run_program
from common.text import without_controls, without_surrogates
from common.weights_files import load_model
from corpus.dialogues import Turn
from data import Tokenizer, load_tokenizer
from generation.prompts import chat_prompt, story_prompt
from generation.sampling import MAX_NEW_TOKENS, Sampling, ban, probabilities
from generation.writer import Writer
from model import Transformer

BEGINNING = "Once upon a time, there was a"
INSIDE = "Once upon a time, there was a girl named Lily. Lily had a red ball. Her friend Tom saw the ball. Lily smiled."
BARS = 10
CAPTION = 40  # characters of the text that are shown above the chart
WAITING = 32  # requests; more users are told that the demo is busy
CSS = """
.chances { display: grid; grid-template-columns: max-content 1fr max-content; gap: 0.35em 0.6em; align-items: center; }
.chances p { grid-column: 1 / -1; margin: 0; overflow-wrap: anywhere; }
.chances code { text-align: right; white-space: pre; }
.chances i { display: block; height: 0.5em; background: var(--neutral-400); }
.chances i + i, .chances b { background: var(--color-accent); }
.chances b, .chances u { display: inline-block; width: 0.8em; height: 0.8em; }
.chances u { background: var(--neutral-400); }
.chances span { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
#inside iframe { width: 100%; height: 85vh; border: 0; }
@media (max-width: 640px) { .chances { font-size: 0.8em; } }
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/web_demo.py [flags]"
    parser.add_argument(
        "--model_path", action="append", metavar="FILE",
        help="a model to offer; repeat for more (default: best_model.pth, final_model.pth in ./*/)",
    )  # fmt: skip
    parser.add_argument("--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto uses cuda, else mps, else cpu (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7870, help="default: %(default)s")
    group = parser.add_argument_group("limits")
    group.add_argument("--max_characters", type=int, default=2000, help="in a typed text (default: %(default)s)")
    group.add_argument("--max_new_tokens", type=int, default=1000, help="in a generated text (default: %(default)s)")
    group.add_argument(
        "--max_at_once", type=int, default=2,
        help="texts generated at once; other users wait (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    for name in ("port", "max_characters", "max_new_tokens", "max_at_once"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    return args


def load_models(paths: list[str] | None, tokenizer: Tokenizer, device) -> dict[str, Transformer]:
    """Load the models in paths or, without paths, the usable ones in the folders here; return {path: model}.

    Raises UserError if a file in paths cannot be used, or if no model is found.
    """
    found = [*Path().glob("*/best_model.pth"), *Path().glob("*/final_model.pth")]
    models = {}
    for path in paths or sorted(path.as_posix() for path in found):
        try:
            model, _ = load_model(path, tokenizer, device)
            models[path] = ready_to_write(model)
        except UserError as error:
            if paths:
                raise
            log.info(f"skipped: {error}")
    if not models:
        raise UserError(
            "no usable best_model.pth or final_model.pth in the folders here; train a model first (step 2 or 4), "
            "or pass --model_path"
        )
    return models


@torch.inference_mode()
def next_tokens(writer: Writer, ids: list[int], count: int) -> list[tuple[int | None, float, float]]:
    """Return the likeliest tokens after ids: up to count times (id, the model's probability, sampling probability).

    The sampling probability is the one after temperature, top-k and top-p.  The last row, with id None, is the sum over
    all other tokens.
    """
    model = writer.model
    sampling = writer.sampling
    context = torch.tensor([ids[-writer.context :]], device=model.tokens.weight.device)
    logits = model.logits(model.hidden(context)[:, -1])  # (1, V)
    ban(logits, list(writer.rules().banned))
    own = probabilities(logits)[0][0]  # (V,)
    chances, tokens = probabilities(logits, sampling.temperature, sampling.top_k, sampling.top_p)
    drawn = torch.zeros_like(own)
    drawn[tokens[0]] = chances[0]
    likeliest = own.topk(min(count, len(own))).indices
    rows = [(token, own[token].item(), drawn[token].item()) for token in likeliest.tolist()]
    own[likeliest] = 0
    drawn[likeliest] = 0
    return [*rows, (None, own.sum().item(), drawn.sum().item())]


@dataclass
class Demo:
    """The functions behind the page.  settings: model's name, length in tokens, temperature, top-k, top-p, seed."""

    models: dict[str, Transformer]
    tokenizer: Tokenizer
    max_characters: int
    measured: dict[str, dict] = field(default_factory=dict)  # what `inside` measured on many stories, for each model

    def writer(self, name: str, *settings: float) -> Writer:
        if name not in self.models:
            raise UserError("choose one of the models")
        if None in settings:
            raise UserError("fill in length, temperature, top-k, top-p and seed")
        names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
        return Writer(self.models[name], self.tokenizer, Sampling(**dict(zip(names, settings, strict=True))), name)

    def typed(self, text: str | None, what: str) -> str:
        """Return a typed text without surrogates.  Raises UserError if it is too long."""
        text = without_surrogates(text or "")
        if len(text) > self.max_characters:
            raise UserError(f"{what} has {len(text):,} characters; the maximum is {self.max_characters:,}: shorten it")
        return text

    def story(self, beginning: str | None, *settings) -> Iterator[str]:
        """Yield the growing story, first its beginning alone.  With the same settings, step 3 writes the same story."""
        writer = self.writer(*settings)
        text = self.typed(beginning, "the beginning")
        prompt = story_prompt(writer, text, "the beginning")
        yield text
        for piece in writer.pieces(prompt):
            text += without_controls(piece)
            yield text

    def reply(self, message: str, turns: list[Turn], *settings) -> Iterator[tuple[list[Turn], str]]:
        """Yield (turns, note): the conversation with the reply so far, and a note if a part of it does not fit."""
        writer = self.writer(*settings)
        message = self.typed(message, "the message").strip()
        if not message:
            raise UserError("type a message first")
        turns = [*turns, ("user", message)]
        prompt = chat_prompt(writer, turns)
        note = ""
        if prompt.dropped:
            note += "The conversation no longer fits the model's context: it forgets the oldest turns. "
        if prompt.question_cut:
            note += "The message does not fit the model's context: its beginning is left out."
        yield turns, note
        answer = ""
        number = sum(role == "user" for role, _ in turns)
        for piece in writer.pieces(prompt.ids, row_seed=number):
            answer = (answer + without_controls(piece)).lstrip()
            yield [*turns, ("assistant", answer)], note

    def bars(self, beginning: str, story: str, *settings) -> str:
        """Return the chart of the next tokens after the story or, if there is none yet, after the beginning."""
        try:
            writer = self.writer(*settings)
            text = without_surrogates(story or "") or self.typed(beginning, "the beginning")
        except UserError as error:
            return html.escape(str(error))
        end = text[-20 * writer.context :]  # more than the network can see
        ids = [self.tokenizer.special["<bos>"], *self.tokenizer.encode(end)]
        return bar_chart(text, [(self.readable(token), *chances) for token, *chances in next_tokens(writer, ids, BARS)])

    def inside(self, text: str | None, name: str) -> Iterator[str]:
        """Yield the page of look_inside.py about a text, in a frame."""
        if name not in self.models:
            raise UserError("choose one of the models")
        text = self.typed(text, "the text")
        if not text.strip():
            raise UserError("type a text first")
        # A copy, because hooks would also see what other users write.  Weights in bfloat16 stay rounded.
        model = copy.deepcopy(self.models[name]).float()
        ids = story_prompt(Writer(model, self.tokenizer, Sampling(), name), text, "the text")
        content = {"model": name, "shape": model.config.describe(), "dataset": "sample_data/stories"}
        content |= page_content.of_text(ids, model, self.tokenizer, "the text")
        if name not in self.measured:
            stories = stories_to_measure(self.tokenizer, model.config.max_seq_len)
            self.measured[name] = page_content.of_model(model, self.tokenizer, stories)
        page = inside_page(page_content.finite(content | self.measured[name]))
        yield f'<iframe srcdoc="{html.escape(page)}"></iframe>'

    def readable(self, token: int | None) -> str:
        """Make a token readable: signs for spaces and line ends, words for bytes that are not a whole character."""
        if token is None:
            return "(others)"
        if token == self.tokenizer.special["<eos>"]:
            return "(end)"
        text = without_controls(self.tokenizer.decode([token]))
        return "(part of a character)" if "\ufffd" in text else signs(text)


def bar_chart(text: str, rows: list[tuple[str, float, float]]) -> str:
    """Return a chart as HTML.  rows: (token, the model's probability, sampling probability)."""
    end = text if len(text) <= CAPTION else f"\u2026{text[-CAPTION:]}"
    return TEMPLATES.get_template("bars.html").render(text=end, rows=rows)


# The page -------------------------------------------------------------------------------------------------------------


def page(demo: Demo, max_new_tokens: int, max_at_once: int):
    """Return the page, a gradio.Blocks that is not served yet."""
    import gradio as gr

    limit = {"concurrency_id": "writing", "concurrency_limit": max_at_once, "show_progress": "minimal"}
    with gr.Blocks(title="TinyStories", analytics_enabled=False) as blocks:
        with gr.Tab("Story"), gr.Row():
            story_tab(demo, max_new_tokens, limit, blocks)
        with gr.Tab("Chat"), gr.Row():
            chat_tab(demo, max_new_tokens, limit)
        with gr.Tab("Look inside"):
            inside_tab(demo, limit)
    return blocks.queue(max_size=WAITING, api_open=False)


def story_tab(demo: Demo, max_new_tokens: int, limit: dict, blocks) -> None:
    """Lay out the story tab.  limit: on texts generated at once; blocks: the page, which loads with a chart."""
    import gradio as gr

    with gr.Column(scale=3):
        beginning = gr.Textbox(
            BEGINNING, label="Beginning", lines=3, max_length=demo.max_characters, elem_id="beginning"
        )
        with gr.Row():
            write = gr.Button("Write", variant="primary", min_width=80, elem_id="write")
            stop = gr.Button("Stop", min_width=80, elem_id="story-stop")
        story = gr.Textbox(label="Story", lines=12, interactive=False, elem_id="story")
        bars = gr.HTML(elem_id="bars")
    settings = settings_of(demo, max_new_tokens, "story")
    writing = gr.on([write.click, beginning.submit], errors_shown(demo.story), [beginning, *settings], story, **limit)
    newest = {"concurrency_id": "bars", "show_progress": "hidden", "trigger_mode": "always_last"}  # one at a time
    chart = {"fn": demo.bars, "inputs": [beginning, story, *settings], "outputs": bars} | newest
    writing.then(**chart)
    gr.on([blocks.load, *(setting.change for setting in settings)], **chart)
    stop.click(cancels=[writing], **chart)

    def begin_anew(text, *settings):
        return "", demo.bars(text, "", *settings)

    beginning.input(begin_anew, [beginning, *settings], [story, bars], cancels=[writing], **newest)


def chat_tab(demo: Demo, max_new_tokens: int, limit: dict) -> None:
    """Lay out the chat tab.  limit: on texts generated at once."""
    import gradio as gr

    with gr.Column(scale=3):
        turns = gr.State([])
        chat = gr.Chatbot(
            label="Chat", height=420, render_markdown=False, latex_delimiters=[], buttons=[], elem_id="chat"
        )
        note = gr.Markdown()
        message = gr.Textbox(label="Message", max_lines=5, max_length=demo.max_characters, elem_id="message")
        with gr.Row():
            send = gr.Button("Send", variant="primary", min_width=80, elem_id="send")
            stop = gr.Button("Stop", min_width=80, elem_id="chat-stop")
    settings = settings_of(demo, max_new_tokens, "chat")

    def answer(message, turns, *settings):
        for so_far, left_out in demo.reply(message, turns, *settings):
            shown = [{"role": role, "content": html.escape(text)} for role, text in so_far]
            yield shown, so_far, left_out, ""

    outputs = [chat, turns, note, message]
    replying = gr.on([send.click, message.submit], errors_shown(answer), [message, turns, *settings], outputs, **limit)
    stop.click(None, cancels=[replying])
    chat.clear(lambda: ([], ""), outputs=[turns, note], cancels=[replying], show_progress="hidden")


def inside_tab(demo: Demo, limit: dict) -> None:
    """Lay out the tab that looks inside a model."""
    import gradio as gr

    names = list(demo.models)
    with gr.Row():
        text = gr.Textbox(INSIDE, label="Text", lines=3, max_length=demo.max_characters, elem_id="inside-text", scale=3)
        name = gr.Dropdown(names, value=names[0], label="Model", scale=2)
    look = gr.Button("Look inside (the first time, up to a minute)", variant="primary", elem_id="look")
    frame = gr.HTML(elem_id="inside")
    look.click(errors_shown(demo.inside), [text, name], frame, **limit | {"show_progress": "full"})


def settings_of(demo: Demo, max_new_tokens: int, tab: str) -> list:
    """Lay out the settings of a tab; return the components in the order of `Demo`'s settings."""
    import gradio as gr

    names = list(demo.models)
    fitting = [name for name in names if ("chat" in name) == (tab == "chat")]
    start = Sampling(min(MAX_NEW_TOKENS, max_new_tokens))
    with gr.Column(scale=2):
        return [
            gr.Dropdown(names, value=fitting[0] if fitting else names[0], label="Model"),
            gr.Slider(
                1, max_new_tokens, start.max_new_tokens, step=1, label="Maximum length in tokens",
                elem_id=f"{tab}-length",
            ),
            gr.Slider(0, 2, start.temperature, step=0.05, label="Temperature (0: greedy)", elem_id=f"{tab}-heat"),
            gr.Slider(0, 100, start.top_k, step=1, label="Top-k (0: off)"),
            gr.Slider(0.05, 1, start.top_p, step=0.05, label="Top-p (1: off)"),
            gr.Number(start.seed, label="Seed (same seed, same text)", precision=0, minimum=0),
        ]  # fmt: skip


def errors_shown(write: Callable[..., Iterator]) -> Callable[..., Iterator]:
    """Wrap a generator function so that the page shows its UserError."""
    import gradio as gr

    def writing(*inputs):
        try:
            yield from write(*inputs)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return writing


# The program ----------------------------------------------------------------------------------------------------------


def serve(blocks, host: str, port: int) -> str:
    """Serve a page in background threads; return its address."""
    _, address, _ = blocks.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False,
        mcp_server=False, pwa=False, enable_monitoring=False, run_history=False, footer_links=[], max_file_size=1,
        css=CSS,
    )  # fmt: skip
    return address


def main() -> None:
    args = parse_args()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # must be set before the import
    # Gradio checks that its own page answers; a proxy could not reach it.
    os.environ["no_proxy"] = f"localhost,{args.host},{os.environ.get('no_proxy', os.environ.get('NO_PROXY', ''))}"
    try:
        socket.create_server((args.host, args.port)).close()
    except (OSError, OverflowError) as error:
        reason = reason_of(error)
        raise UserError(f"cannot listen on {args.host}:{args.port} ({reason}); pass another --port or --host") from None
    if not importlib.util.find_spec("gradio"):
        raise UserError('the demo needs Gradio, which is not installed: pip install -e ".[demo]"')
    tokenizer = load_tokenizer(args.tokenizer_path)
    models = load_models(args.model_path, tokenizer, choose_device(args.device))
    blocks = page(Demo(models, tokenizer, args.max_characters), args.max_new_tokens, args.max_at_once)
    try:
        log.info(f"open {serve(blocks, args.host, args.port)} in a browser; Ctrl-C ends the demo")
        while True:
            time.sleep(1)
    finally:
        logging.disable()  # no errors about unfinished texts
        if blocks.is_running:
            blocks.server.force_exit = True  # or it waits for those texts
        blocks.close(verbose=False)
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    run_program(main)
