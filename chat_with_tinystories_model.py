"""Step 5: chat with the model.

    python chat_with_tinystories_model.py
    python chat_with_tinystories_model.py --once "Tell me a story about a cat."
    printf 'Hello!\\nTell me a story about a cat.\\nexit\\n' | python chat_with_tinystories_model.py
    python chat_with_tinystories_model.py --prompts_file questions.jsonl --output_file replies.jsonl

At a terminal: a conversation; replies appear while they are written, and /help lists the commands.  In a pipe: each
line of input is a message, and each line of output is the reply to it; the reply to an empty line is an empty line.
"""

import argparse
import contextlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from common.console import log
from common.errors import UserError, file_error
from common.flags import FlagParser
from common.program import run_program
from common.text import without_controls
from generation.prompt_files import (
    Samples,
    add_prompt_flags,
    check_prompt_flags,
    read_prompts,
    rows_at_once,
    write_samples,
)
from generation.prompts import chat_prompt
from generation.writer import Writer, add_generation_flags, load_writer

HELP = """type a message and press Enter; Ctrl-C stops a reply; exit (or Ctrl-D) ends the program
/retry             another reply to the last message
/undo              forget the last message and its reply
/reset             forget the conversation
/system TEXT       tell the model who it is; without TEXT: remove the system text
/temperature 0.5   below 1 safer, above 1 wilder; 0: always the most likely token
/save FILE.jsonl   add the conversation to a file that step 4 can learn from
/help              this list
 /word             a space before the slash makes it a message"""
COMMAND = re.compile(r"(/[^\W\d_]+)(?:\s+(.*))?$")  # a word after a slash, at the start of a line
COMMANDS = [line.split()[0] for line in HELP.splitlines() if line.startswith("/")]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.add_argument("--once", metavar="TEXT", help="answer this one message and exit")
    add_generation_flags(parser, "tinystories_chat_model/best_model.pth")
    add_prompt_flags(parser)
    args = parser.parse_args(argv)
    check_prompt_flags(args)
    if args.prompts_file and args.once is not None:
        raise UserError("--once and --prompts_file do not go together; pass one of them")
    if args.num_samples > 1 and not args.prompts_file:
        raise UserError("--num_samples needs --prompts_file; at a terminal, /retry writes another reply")
    if args.once is not None and not args.once.strip():
        raise UserError("--once needs a message that is not empty")
    return args


class Chat:
    """A conversation and its commands."""

    def __init__(self, writer: Writer):
        self.writer = writer
        self.system = ""
        self.turns = []  # (role, text), user and assistant alternating
        self.replies = 0
        self.told = False  # whether the user knows that the model forgets old turns

    def reply(self, message: str) -> Iterator[str]:
        """Yield the answer to a message piece by piece; both join the conversation, even after an interruption."""
        self.turns.append(("user", message))
        self.replies += 1
        answer = ""
        try:
            prompt = chat_prompt(self.writer, self.all_turns())
            if prompt.dropped and not self.told:
                log.info("(the conversation no longer fits the model's context: it forgets the oldest turns)")
                self.told = True
            if prompt.question_cut:
                log.info("(the message, or the system text, does not fit the model's context: part of it is left out)")
            for piece in self.writer.stream(prompt.ids, row_seed=self.replies):
                piece = without_controls(piece if answer else piece.lstrip())
                answer += piece
                yield piece
        finally:
            self.turns.append(("assistant", answer.strip()))

    def report_length(self) -> None:
        """Log that the last reply reached the limit, if it did, since it may look finished."""
        if self.writer.ended == "length":
            log.info(f"(stopped at --max_new_tokens {self.writer.sampling.max_new_tokens})")

    def all_turns(self) -> list[tuple[str, str]]:
        system = [("system", self.system)] if self.system else []
        return system + self.turns

    def command(self, name: str, text: str) -> str | None:
        """Run a command of HELP.  Returns a message to answer again, or None."""
        if name in ("/retry", "/undo") and not self.turns:
            log.info("(the conversation is empty)")
        elif name == "/retry":
            (_, message), _ = self.turns[-2:]
            del self.turns[-2:]
            return message
        elif name == "/undo":
            del self.turns[-2:]
            log.info("(the last message and its reply are forgotten)")
        elif name == "/reset":
            self.turns = []
            self.told = False
            log.info("(the conversation is forgotten)")
        elif name == "/system":
            self.system = text
            log.info("(used from the next reply on)" if text else "(no system text)")
        elif name == "/temperature":
            self.set_temperature(text)
        elif name == "/save":
            self.save(text)
        elif name == "/help":
            log.info(HELP)
        return None

    def set_temperature(self, text: str) -> None:
        try:
            self.writer.set(temperature=float(text))
            log.info(f"(temperature {float(text):g})")
        except ValueError:
            log.info("(/temperature needs a number, such as 0.5)")
        except UserError as error:
            log.info(f"({error})")

    def save(self, name: str) -> None:
        """Run /save: add the conversation to a file, as a line that the trainer can read."""
        path = Path(name).expanduser()
        if not self.turns:
            log.info("(the conversation is empty)")
            return
        if path.suffix != ".jsonl":
            log.info("(/save needs a file name that ends in .jsonl)")
            return
        messages = [{"role": role, "content": text} for role, text in self.all_turns()]
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            log.info(f"(added to {path})")
        except OSError as error:
            log.info(f"({file_error(error)})")


def read_line(interactive: bool) -> str | None:
    """Return the next line that the user types; None at the end."""
    if not interactive:
        return sys.stdin.readline() or None
    while True:
        try:
            return input("you: ")
        except (EOFError, RuntimeError):  # RuntimeError: in a notebook without a user
            print()
            return None
        except KeyboardInterrupt:
            log.info("\n(exit or Ctrl-D ends the program)")


def answer(chat: Chat, message: str, interactive: bool) -> None:
    """Print the reply to a message: at a terminal as it grows, until Ctrl-C; otherwise on one line."""
    if not interactive:
        print(" ".join("".join(chat.reply(message)).split()))
        chat.report_length()
        return
    try:
        begin = "model: "
        for piece in chat.reply(message):  # before the first piece, it may log a line of its own
            print(begin + piece, end="", flush=True)
            begin = ""
        print(begin)
        chat.report_length()
    except KeyboardInterrupt:
        print()
        log.info("(stopped)")


def converse(chat: Chat, interactive: bool) -> None:
    while (line := read_line(interactive)) is not None:
        message = line.strip()
        if message.lower() in ("exit", "/exit"):
            return
        command = COMMAND.match(line)
        if command and command[1] in COMMANDS:
            message = chat.command(command[1], (command[2] or "").strip())
            if not message:
                continue
        elif command:
            log.info(f"(no command {command[1]}; commands: {', '.join(COMMANDS)}; for a message, type a space first)")
            message = ""
        if message:
            answer(chat, message, interactive)
        elif not interactive:
            print()  # in a pipe each message gets a line, even an empty one


def main() -> None:
    args = parse_args()
    prompts = read_prompts(args.prompts_file) if args.prompts_file else None
    writer = load_writer(args, rows_at_once(args))
    if prompts:
        samples = Samples(writer, prompts, args.num_samples, chat=True)
        write_samples(samples, args.output_file, args.batch_size, args.overwrite)
        return
    chat = Chat(writer)
    if args.once is not None:
        for piece in chat.reply(args.once):
            print(piece, end="", flush=True)
        print()
        chat.report_length()
        return
    interactive = sys.stdin.isatty() or not inspect.isbuiltin(input)  # a notebook has its own input function
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  arrow keys and history at the prompt
    if interactive:
        log.info(HELP)
    converse(chat, interactive)


if __name__ == "__main__":
    run_program(main)
