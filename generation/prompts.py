"""The text that a model is asked to continue: the story prompt and the chat prompt."""

from common.errors import UserError
from corpus.dialogues import Rendered, Turn, render_dialogues
from generation.writer import Writer


def story_prompt(writer: Writer, text: str, place: str = "--prompt") -> list[int]:
    """Return the ids of a story's beginning, `<bos> text`.  Raises UserError, naming the place, if it does not fit."""
    ids = writer.tokenizer.encode(text)
    if len(ids) >= writer.context:
        raise UserError(f"{place}: {len(ids)} tokens, but the model's context has {writer.context}; shorten the prompt")
    return [writer.tokenizer.special["<bos>"], *ids]


def chat_prompt(writer: Writer, turns: list[Turn]) -> Rendered:
    """Render a dialogue that ends with the user's turn: `<bos> <system> text <user> text <assistant>`.

    Earlier turns come before the last one, each pair as `<user> text <assistant> text <eos>`.  The same function
    renders the training data, so the model sees the form that it was trained on.  The result also tells what was left
    out.  At most a quarter of the context is kept free for the answer; a longer answer continues past the context.
    """
    room = writer.context - min(writer.sampling.max_new_tokens, writer.context // 4)
    (dialogue,) = render_dialogues(writer.tokenizer, [turns], room, open_ended=True)
    return dialogue
