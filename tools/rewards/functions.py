"""The rewards: what is good about a reply, as a number that a few lines of Python can compute.

Each function takes the prompt and the reply, and returns a number; all of these are from 0 to 1.

    prompt.prompt   the user's message, or a list of turns
    prompt.extra    the other keys of the prompt's row: {"words": ["cat", "ladder"]}
    reply.text      what the model wrote
    reply.tokens    how many tokens it wrote
    reply.ended     "eos" if it ended by itself, else "length"

Change them, or write your own in a file of yours: --reward_file my.py:function.
"""

from scoring.measures import repeated, words_come_back
from scoring.measures import words as words_of

from generation.prompt_files import Prompt
from generation.writer import Written

TARGET_LENGTH = 80  # words, for the reward `length`


def words(prompt: Prompt, reply: Written) -> float:
    """Return the share of the prompt's `words` that are in the reply; 1 if the prompt has none."""
    wanted = prompt.extra.get("words")
    if not wanted:
        return 1.0
    written = words_of(reply.text)
    found = [word for word in wanted if words_come_back([word], written)]
    return len(found) / len(wanted)


def ends(prompt: Prompt, reply: Written) -> float:
    """Return 1 if the reply ends by itself, before --max_new_tokens."""
    return float(reply.ended == "eos")


def no_repeat(prompt: Prompt, reply: Written) -> float:
    """Return 1 if no four words in a row occur twice in the reply."""
    return float(not repeated(words_of(reply.text), n=4))


def length(prompt: Prompt, reply: Written) -> float:
    """Return 1 for a reply of TARGET_LENGTH words; less for one that is longer or shorter, down to 0."""
    error = abs(len(words_of(reply.text)) - TARGET_LENGTH) / TARGET_LENGTH
    return max(0.0, 1 - error)


def sentences(prompt: Prompt, reply: Written) -> float:
    """Return 1 if the reply begins with a capital letter and ends with a full stop, `!` or `?`."""
    text = reply.text.strip().strip("\"'")
    return float(text[:1].isupper() and text[-1:] in tuple(".!?"))
