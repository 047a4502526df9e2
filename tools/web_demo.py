"""The model in the browser: a story that grows, the chances of its next token, and a chat.

    pip install -e ".[demo]"
    python tools/web_demo.py
    python tools/web_demo.py --model_path pilot/tinystories_model/best_model.pth --port 8000

Readers choose among best_model.pth and final_model.pth of the folders here, or the files of --model_path, all loaded at
the start.  The page is for this computer alone (127.0.0.1); --host 0.0.0.0 lets everyone in who can reach it, without a
password.  It asks nothing of any other computer.  Ctrl-C ends it.

In reading order: `next_tokens`; `Demo`, what the page's buttons do; `bar_chart`; `page`, its layout, all that knows of
Gradio.
"""

import functools
import html
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.console import log
from common.devices import choose_device, ready_to_write
from common.errors import UserError
from common.flags import FlagParser
from common.program import run_program
from common.text import without_controls, without_surrogates
from common.weights_files import load_model
from data import load_tokenizer
from generation.prompts import chat_prompt, story_prompt
from generation.sampling import MAX_NEW_TOKENS, Sampling, ban, probabilities
from generation.writer import Writer

BEGINNING = "Once upon a time, there was a"
BARS = 10
CAPTION = 40  # characters of the text that the bars go on from
WAITING = 32  # requests; the next reader is told that the demo is busy
READABLE = str.maketrans({" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"})  # spaces and line ends that can be seen
CSS = """
.chances { display: grid; grid-template-columns: max-content 1fr max-content; gap: 0.35em 0.6em; align-items: center; }
.chances p { grid-column: 1 / -1; margin: 0; overflow-wrap: anywhere; }
.chances code { text-align: right; white-space: pre; }
.chances i { display: block; height: 0.5em; background: var(--neutral-400); }
.chances i + i, .chances b { background: var(--color-accent); }
.chances b, .chances u { display: inline-block; width: 0.8em; height: 0.8em; }
.chances u { background: var(--neutral-400); }
.chances span { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 640px) { .chances { font-size: 0.8em; } }
"""


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    parser.add_argument(
        "--model_path", action="append", metavar="FILE",
        help="a model to choose; may be given several times (default: best_model.pth, final_model.pth in ./*/)",
    )  # fmt: skip
    parser.add_argument("--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto takes cuda, then mps, then cpu (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7870, help="default: %(default)s")
    limits = {"max_characters": (2000, "of a text typed"), "max_new_tokens": (1000, "of a text written")}
    limits["max_at_once"] = 2, "texts that are written at once; other readers wait"
    group = parser.add_argument_group("limits")
    for name, (default, text) in limits.items():
        group.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: %(default)s)")
    args = parser.parse_args(argv)
    for name in limits:
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if not 1 <= args.port <= 65535:
        raise UserError(f"--port must lie between 1 and 65535, not {args.port}")
    return args


def load_models(paths, tokenizer, device):
    """{path: model} of paths, or, where there are none, of the model files found here; one found that is bad is said.

    Raises UserError where there is none, and for one of paths that is bad.
    """
    models, given = {}, bool(paths)
    found = (path for name in ("best_model.pth", "final_model.pth") for path in Path().glob(f"*/{name}"))
    for path in paths or sorted(path.as_posix() for path in found):
        try:
            model, _ = load_model(path, tokenizer, device)
        except UserError as error:
            if given:
                raise
            log.info(f"left out: {error}")
            continue
        models[path] = ready_to_write(model)
    if not models:
        raise UserError(
            "no usable best_model.pth or final_model.pth in the folders here; train a model first (step 2 or 4), "
            "or pass --model_path"
        )
    return models


@torch.inference_mode()
def next_tokens(writer, ids, count):
    """The likeliest tokens after ids: up to count of (id, chance of the model's own, chance to be drawn).

    The second chance is what temperature, top-k and top-p make of the first; a last row, of id None, sums up all other
    tokens.
    """
    model, sampling = writer.model, writer.sampling
    ids = torch.tensor([ids[-writer.context :]], device=model.tokens.weight.device)
    logits = model.logits(model.hidden(ids)[:, -1])
    ban(logits, list(writer.rules().banned))
    own, drawn = probabilities(logits)[0][0], torch.zeros(logits.size(-1), device=logits.device)
    chances, tokens = probabilities(logits, sampling.temperature, sampling.top_k, sampling.top_p)
    drawn[tokens[0]] = chances[0]
    likeliest = own.topk(min(count, len(own))).indices
    rows = [(token, own[token].item(), drawn[token].item()) for token in likeliest.tolist()]
    own[likeliest] = drawn[likeliest] = 0
    return [*rows, (None, own.sum().item(), drawn.sum().item())]


@dataclass
class Demo:
    """What the page does.  settings: model's name, length in tokens, temperature, top-k, top-p, seed."""

    models: dict  # {name: model}
    tokenizer: object
    max_characters: int

    def writer(self, name, *settings):
        if name not in self.models:
            raise UserError("choose one of the models")
        if None in settings:
            raise UserError("fill in length, temperature, top-k, top-p and seed")
        names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
        return Writer(self.models[name], self.tokenizer, Sampling(**dict(zip(names, settings, strict=True))), name)

    def typed(self, text, what):
        """A text that a reader typed, cleaned.  Raises UserError if it is too long."""
        if len(text or "") > self.max_characters:
            raise UserError(f"{what} has {len(text):,} characters, and {self.max_characters:,} are allowed; shorten it")
        return without_surrogates(text or "")

    def pieces(self, writer, prompt, key):
        """Yield the text that continues a prompt, token by token."""
        yield from map(without_controls, writer.pieces(prompt, key))

    def story(self, beginning, *settings):
        """Yield the beginning and what was written so far: with the same settings what step 3 writes."""
        writer, text = self.writer(*settings), self.typed(beginning, "the beginning")
        prompt = story_prompt(writer, text, "the beginning")
        yield text
        for piece in self.pieces(writer, prompt, key=0):
            text += piece
            yield text

    def reply(self, message, turns, *settings):
        """Yield (turns, note): the conversation with the message and its answer so far, and what is left out of it.

        turns: [(role, text), ...]
        """
        writer, message = self.writer(*settings), self.typed(message, "the message").strip()
        if not message:
            raise UserError("type a message first")
        turns = [*turns, ("user", message)]
        prompt = chat_prompt(writer, turns)
        notes = ["The conversation no longer fits the model's context: it forgets the oldest turns."] * bool(
            prompt.dropped
        )
        notes += ["The message does not fit the model's context: its beginning is left out."] * prompt.question_cut
        yield turns, " ".join(notes)
        answer = ""
        for piece in self.pieces(writer, prompt.ids, key=sum(role == "user" for role, _ in turns)):
            answer += piece if answer else piece.lstrip()
            yield [*turns, ("assistant", answer)], " ".join(notes)

    def bars(self, beginning, story, *settings):
        """The chart of what may come after the story, or after its beginning where nothing is written yet."""
        try:
            writer = self.writer(*settings)
            text = without_surrogates(story or "")[-20 * writer.context :] or self.typed(beginning, "the beginning")
        except UserError as error:
            return html.escape(str(error))
        ids = [self.tokenizer.special["<bos>"], *self.tokenizer.encode(text)]
        rows = next_tokens(writer, ids, BARS)
        named = [("(others)" if token is None else self.readable(token), *chances) for token, *chances in rows]
        return bar_chart(text, named)

    def readable(self, token):
        """A token as a reader can see it: spaces and line ends as signs, bytes that are no character as numbers."""
        if token == self.tokenizer.special["<eos>"]:
            return "(end)"
        text = without_controls(self.tokenizer.decode([token]))
        return "(part of a character)" if "\ufffd" in text else text.translate(READABLE)


def bar_chart(text, rows):
    """HTML: what may come after a text; rows: (name, chance of the model's own, chance to be drawn)."""
    end = ("\u2026" if len(text) > CAPTION else "") + text[-CAPTION:]
    parts = [f"<p>What may come after <strong>{html.escape(end) or 'nothing'}</strong></p>"]
    parts.append("<p><u></u> the model's own guess &nbsp; <b></b> after temperature, top-k and top-p</p>")
    for name, own, drawn in rows:
        widths = "".join(f'<i style="width: {100 * chance:.2f}%"></i>' for chance in (own, drawn))
        numbers = f"<span>{own:.1%} \u2192 {f'{drawn:.1%}' if drawn else 'never'}</span>"
        parts.append(f"<code>{html.escape(name)}</code><div>{widths}</div>{numbers}")
    return f'<div class="chances">{"".join(parts)}</div>'


def page(demo, max_new_tokens, max_at_once):
    """The page, a gradio.Blocks that is not yet served."""
    import gradio as gr

    def errors_shown(write):
        @functools.wraps(write)
        def writing(*inputs):
            try:
                yield from write(*inputs)
            except UserError as error:
                raise gr.Error(str(error), print_exception=False) from None

        return writing

    @errors_shown
    def answer(message, turns, *chosen):
        for said, note in demo.reply(message, turns, *chosen):
            yield [{"role": role, "content": html.escape(text)} for role, text in said], said, note, ""

    def settings(tab):
        names, start = list(demo.models), Sampling()
        model = next((name for name in names if ("chat" in name) == (tab == "chat")), names[0])
        length = min(MAX_NEW_TOKENS, max_new_tokens)
        return [
            gr.Dropdown(names, value=model, label="Model"),
            gr.Slider(1, max_new_tokens, length, step=1, label="Length, in tokens at most", elem_id=f"{tab}-length"),
            gr.Slider(0, 2, start.temperature, step=0.05, label="Temperature (0: likeliest)", elem_id=f"{tab}-heat"),
            gr.Slider(0, 100, start.top_k, step=1, label="Top-k (0: all)"),
            gr.Slider(0.05, 1, start.top_p, step=0.05, label="Top-p (1: all)"),
            gr.Number(start.seed, label="Seed (the same writes the same)", precision=0, minimum=0),
        ]

    limit = {"concurrency_id": "writing", "concurrency_limit": max_at_once, "show_progress": "minimal"}
    aside = {"concurrency_id": "bars", "show_progress": "hidden", "trigger_mode": "always_last"}
    with gr.Blocks(title="TinyStories", analytics_enabled=False) as blocks:
        with gr.Tab("Story"), gr.Row():
            with gr.Column(scale=3):
                beginning = gr.Textbox(
                    BEGINNING, label="Beginning", lines=3, max_length=demo.max_characters, elem_id="beginning"
                )
                with gr.Row():
                    write = gr.Button("Write", variant="primary", min_width=80, elem_id="write")
                    stop = gr.Button("Stop", min_width=80, elem_id="story-stop")
                story = gr.Textbox(label="Story", lines=12, interactive=False, elem_id="story")
                bars = gr.HTML(elem_id="bars")
            with gr.Column(scale=2):
                chosen = settings("story")
        starts = [write.click, beginning.submit]
        writing = gr.on(starts, errors_shown(demo.story), [beginning, *chosen], story, **limit)
        look = {"fn": demo.bars, "inputs": [beginning, story, *chosen], "outputs": bars, **aside}
        writing.then(**look)
        gr.on([blocks.load, *(setting.change for setting in chosen)], **look)
        stop.click(cancels=[writing], **look)
        begin_anew = lambda text, *chosen: ("", demo.bars(text, "", *chosen))
        beginning.input(begin_anew, [beginning, *chosen], [story, bars], cancels=[writing], **aside)

        with gr.Tab("Chat"), gr.Row():
            with gr.Column(scale=3):
                turns = gr.State([])
                chat = gr.Chatbot(
                    label="Chat", height=420, render_markdown=False, latex_delimiters=[], buttons=[], elem_id="chat"
                )
                note = gr.Markdown()
                message = gr.Textbox(label="Message", max_lines=5, max_length=demo.max_characters, elem_id="message")
                with gr.Row():
                    send = gr.Button("Send", variant="primary", min_width=80, elem_id="send")
                    chat_stop = gr.Button("Stop", min_width=80, elem_id="chat-stop")
            with gr.Column(scale=2):
                chosen = settings("chat")
        said = [chat, turns, note, message]
        replying = gr.on([send.click, message.submit], answer, [message, turns, *chosen], said, **limit)
        chat_stop.click(None, cancels=[replying])
        chat.clear(lambda: ([], ""), outputs=[turns, note], cancels=[replying], show_progress="hidden")
    return blocks.queue(max_size=WAITING, api_open=False)


def serve(blocks, host, port):
    """Serve a page in threads of its own; returns its address."""
    _, address, _ = blocks.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False,
        mcp_server=False, pwa=False, enable_monitoring=False, run_history=False, footer_links=[], max_file_size=1,
        css=CSS,
    )  # fmt: skip
    return address


def main():
    args = parse_args()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported
    own = f"{os.environ.get('no_proxy', os.environ.get('NO_PROXY', ''))},localhost,{args.host}"
    os.environ["no_proxy"] = own.strip(",")  # Gradio looks whether its own page answers, and a proxy would not know it
    try:
        with socket.create_server((args.host, args.port)):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot listen on {args.host}:{args.port} ({reason}); pass another --port or --host") from None
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError('the demo needs Gradio, which is not installed: pip install -e ".[demo]"') from None
    tokenizer = load_tokenizer(args.tokenizer_path)
    models = load_models(args.model_path, tokenizer, choose_device(args.device))
    blocks = page(Demo(models, tokenizer, args.max_characters), args.max_new_tokens, args.max_at_once)
    try:
        log.info(f"open {serve(blocks, args.host, args.port)} in a browser; Ctrl-C ends the demo")
        while True:
            time.sleep(1)
    finally:
        logging.disable()  # of the texts that are cut off in the midst
        if blocks.is_running:
            blocks.server.force_exit = True  # or it waits for them
        blocks.close(verbose=False)
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    run_program(main)
