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
    """A dialogue that ends with the user's turn, rendered as in training up to `<assistant>`.

    Says what had to be left out.  A quarter of the context at most is kept free for the answer; a longer one continues
    past the context.
    """
    room = writer.context - min(writer.sampling.max_new_tokens, writer.context // 4)
    (dialogue,) = render_dialogues(writer.tokenizer, [turns], room, open_ended=True)
    return dialogue
