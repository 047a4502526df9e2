"""What a model is given to continue: the story prompt and the chat prompt."""

from common.errors import UserError
from corpus.dialogues import Rendered, Turn, render_dialogues
from generation.writer import Writer


def story_prompt(writer: Writer, text: str, place: str = "--prompt") -> list[int]:
    """The ids of a story's beginning, `<bos> text`.  Raises UserError, naming the place, if it does not fit."""
    ids = writer.tokenizer.encode(text)
    if len(ids) >= writer.context:
        raise UserError(f"{place}: {len(ids)} tokens, and the model's context has {writer.context}; shorten the prompt")
    return [writer.tokenizer.special["<bos>"], *ids]


def chat_prompt(writer: Writer, turns: list[Turn]) -> Rendered:
    """The ids of a dialogue that ends with the user's turn: `<bos> <system> text <user> text <assistant>`.

    The turns before come between, each pair as `<user> text <assistant> text <eos>`.  It is made by the function that
    makes the training data, so that the model is asked as it was trained; it also says what had to be left out.
    At most a quarter of the context is kept free for the answer; a longer answer continues past the context.
    """
    room = writer.context - min(writer.sampling.max_new_tokens, writer.context // 4)
    (dialogue,) = render_dialogues(writer.tokenizer, [turns], room, open_ended=True)
    return dialogue
