"""Step 5: chat with the model.

    python chat_with_tinystories_model.py
    printf 'Hello!\\nTell me a story about a cat.\\nexit\\n' | python chat_with_tinystories_model.py

At a terminal: a conversation, its replies appearing while they are written; /help says what else can be typed.  In a
pipe: one message a line in, one reply a line out, and nothing else on stdout.
"""

import sys

from checkpoints import load_model
from data import load_tokenizer
from devices import choose_device, ready_to_write
from dialogues import render_dialogue
from model import generate
from shell import FlagParser, add_generation_flags, printable, run_program, sampling, say

HELP = "type a message and press Enter; /reset forgets the conversation; /help shows this; exit (or Ctrl-D) ends it"


def parse_args(argv=None):
    parser = FlagParser(__doc__)
    add_generation_flags(parser, "tinystories_chat_model/best_model.pth")
    return parser.parse_args(argv)


def reply(model, tokenizer, turns, max_new_tokens, options):
    """Yield the answer to turns, (role, text) with the user's last, piece by piece; say when old turns are left out.

    A quarter of the context at most is kept free for the answer; a longer one goes on past the context.
    """
    context = model.config.max_seq_len
    room = context - min(max_new_tokens, context // 4)
    prompt, dropped, _ = render_dialogue(tokenizer, turns, room, open_ended=True)
    if dropped:
        del turns[: 2 * dropped]
        say("(the conversation no longer fits the model's context: its oldest turns are forgotten)")
    if len(render_dialogue(tokenizer, turns, open_ended=True)[0]) > room:
        say("(the message does not fit the model's context: its beginning is left out)")
    steps = generate(model, [prompt], max_new_tokens, **options)
    return tokenizer.stream(tokens[0] for tokens in steps)


def main():
    args = parse_args()
    tokenizer = load_tokenizer(args.tokenizer_path)
    model, _ = load_model(args.model_path, tokenizer, choose_device(args.device))
    model = ready_to_write(model)
    options, interactive = sampling(args, tokenizer), sys.stdin.isatty()
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
            for piece in reply(model, tokenizer, turns, args.max_new_tokens, options):
                piece = printable(piece)
                answer += piece
                if interactive:
                    print(piece if answer != piece else f"model: {piece.lstrip()}", end="", flush=True)
            print("" if interactive else " ".join(answer.split()))
            turns.append(("assistant", answer.strip()))


if __name__ == "__main__":
    run_program(main)
