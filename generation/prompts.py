"""The story prompt and the chat prompt."""

from common.errors import UserError
from corpus.dialogues import render_dialogues


def story_prompt(writer, text, place="--prompt"):
    """The ids of a story's beginning.  Raises UserError if it does not fit the model's context."""
    ids = writer.tokenizer.encode(text)
    if len(ids) >= writer.context:
        raise UserError(f"{place}: {len(ids)} tokens, and the model's context has {writer.context}; shorten the prompt")
    return [writer.tokenizer.special["<bos>"], *ids]


def chat_prompt(writer, turns):
    """(ids, pairs dropped, whether the last message was cut) of a dialogue that ends with the user's turn.

    turns: (role, text).  A quarter of the context at most is kept free for the answer; a longer one goes on past the
    context.
    """
    room = writer.context - min(writer.sampling.max_new_tokens, writer.context // 4)
    (dialogue,) = render_dialogues(writer.tokenizer, [turns], room, open_ended=True)
    return dialogue.ids, dialogue.dropped, dialogue.question_cut
