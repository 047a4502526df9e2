"""Step 5: chat with the model.

    python chat_with_tinystories_model.py
    printf 'Hello!\\nTell me a story about a cat.\\nexit\\n' | python chat_with_tinystories_model.py

At a terminal: a conversation, its replies appearing while they are written; /help says what else can be typed.  In a
pipe: one message a line in, one reply a line out, and nothing else on stdout.
"""

import sys

from data import load_tokenizer, render_dialogue
from generate_tinystories_text import add_generation_flags, check_generation_flags, sampling
from model import generate
from records import load_model
from shell import FlagParser, printable, run_program, say
from training import choose_device

HELP = "type a message and press Enter; /reset forgets the conversation; /help shows this; exit (or Ctrl-D) ends it"


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    add_generation_flags(parser, "tinystories_chat_model/best_model.pth", 200)
    args = parser.parse_args(argv)
    check_generation_flags(args)
    return args


def reply(model, tokenizer, turns, args):
    """Yield the answer to turns, (role, text) with the user's last, piece by piece; say when old turns are left out.

    Half the context at most is kept for the history, so that there is room for the answer.
    """
    room = model.config.max_seq_len - min(args.max_new_tokens, model.config.max_seq_len // 2)
    prompt, dropped, _ = render_dialogue(tokenizer, turns, room, open_ended=True)
    if dropped:
        del turns[: 2 * dropped]
        say("(the conversation no longer fits the model's context: its oldest turns are forgotten)")
    steps = generate(model, [prompt], args.max_new_tokens, **sampling(args, tokenizer))
    return tokenizer.stream(tokens[0] for tokens in steps)


def main():
    args = parse_args()
    tokenizer = load_tokenizer(args.tokenizer_path)
    model, _ = load_model(args.model_path, tokenizer, choose_device(args.device))
    interactive = sys.stdin.isatty()
    if interactive:
        say(HELP)
    turns = []
    while True:
        if interactive:
            print("you: ", end="", flush=True)
        line = sys.stdin.readline()
        message = line.strip()
        if not line or message.lower() == "exit":
            return
        if message == "/help":
            say(HELP)
        elif message == "/reset":
            turns = []
            say("(the conversation is forgotten)")
        elif message:
            turns.append(("user", message))
            answer = ""
            for piece in reply(model, tokenizer, turns, args):
                piece = printable(piece)
                answer += piece
                if interactive:
                    print(piece if answer != piece else f"model: {piece.lstrip()}", end="", flush=True)
            print("" if interactive else " ".join(answer.split()))
            turns.append(("assistant", answer.strip()))


if __name__ == "__main__":
    run_program(main)
