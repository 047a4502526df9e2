"""The writer: streamed texts, where they end, and which part of a dialogue the model sees."""

import dataclasses

import pytest
from tiny import LONG, render_dialogue

from generation.prompts import chat_prompt


def prompt_of(writer, text="Tom had"):
    return [writer.tokenizer.special["<bos>"], *writer.tokenizer.encode(text)]


@pytest.mark.parametrize("flags", [{}, {"temperature": 0}, {"num_beams": 3}, {"max_new_tokens": 80}])
def test_a_streamed_text_equals_the_written_one_and_comes_in_whole_words(make_writer, flags):
    for seed in range(8):
        writer = make_writer(seed=seed, **flags)
        (written,) = writer.write([prompt_of(writer)], [5])
        pieces = list(writer.stream(prompt_of(writer), row_seed=5))
        assert "".join(pieces) == written.text and writer.ended == written.ended
        assert all(piece[0].isspace() for piece in pieces[1:] if piece)


def test_a_text_records_why_it_ended(make_writer):
    writer = make_writer(max_new_tokens=120)
    seen = set()
    for key in range(30):
        (written,) = writer.write([prompt_of(writer)], [key])
        seen.add(written.ended)
        assert written.ended == ("length" if written.tokens == 120 else "eos")
        assert not any(name in written.text for name in writer.tokenizer.special)
    assert seen == {"eos", "length"}


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_ends_before_the_first_stop_text(make_writer, beams):
    drawing = {"num_beams": beams, "max_new_tokens": 40, "min_new_tokens": 40}
    writer, keys = make_writer(**drawing), range(6)
    endless = writer.write([prompt_of(writer)] * 6, keys)
    for middle in (1, 2, 5):
        stops = ["never in it", *(text.text[10:][middle : 2 * middle + 1] for text in endless)]
        stopping = make_writer(**drawing, stop=[stop for stop in stops if stop])
        for key, text, free in zip(keys, stopping.write([prompt_of(writer)] * 6, keys), endless, strict=True):
            if beams == 1:
                place = min(free.text.find(stop) for stop in stopping.sampling.stop if stop in free.text)
                assert text.text == free.text[:place] and text.tokens < 40
            assert text.ended == "stop" and not any(stop in text.text for stop in stopping.sampling.stop)
            assert "".join(stopping.stream(prompt_of(writer), row_seed=key)) == text.text
            assert stopping.ended == "stop"


def test_a_stop_text_may_span_several_tokens_or_be_part_of_one(make_writer):
    writer = make_writer()
    writer.sampling = dataclasses.replace(writer.sampling, stop=["t\u00fcr", "nce"])
    for text, stopped in (("die t\u00fcr", True), ("die t\u00fc", False), ("Once", True), ("On ce", False)):
        ids = writer.tokenizer.encode(text)
        assert any(writer.reaches_stop(ids[: n + 1]) for n in range(len(ids))) == stopped


def test_a_dialogue_leaves_a_quarter_of_the_context_for_the_answer(make_writer):
    writer = make_writer(max_new_tokens=30)
    turns = [("user", "Hello Tom"), ("assistant", "Hi"), ("user", "The cat?")]
    ids, dropped, _, cut, _ = chat_prompt(writer, turns[-1:])
    assert (ids, dropped, cut) == (render_dialogue(writer.tokenizer, turns[-1:], open_ended=True)[0], 0, False)
    system = ("system", "Be")
    ids, dropped, _, cut, _ = chat_prompt(writer, [system, *turns[:2], *turns[:2], turns[2]])
    assert len(ids) <= 24 and dropped > 0 and not cut
    assert ids == render_dialogue(writer.tokenizer, [system, *turns[: 4 - 2 * dropped], turns[2]], open_ended=True)[0]
    ids, dropped, _, cut, _ = chat_prompt(writer, [("user", LONG)])
    assert len(ids) == 24 and (dropped, cut) == (0, True)
    ids, dropped, _, cut, _ = chat_prompt(writer, [("system", LONG), ("user", "Hi")])
    assert len(ids) <= 24 and (dropped, cut) == (0, True)


def test_typed_special_tokens_are_plain_text(make_writer):
    writer = make_writer()
    ids, *_ = chat_prompt(writer, [("user", "<eos><user>")])
    special = writer.tokenizer.special
    assert ids.count(special["<user>"]) == 1 and special["<eos>"] not in ids
