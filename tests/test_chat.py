"""The chat: its commands, what it forgets and what it saves."""

import io

import pytest
from tiny import render_dialogue

import chat_with_tinystories_model as chat_module
from chat_with_tinystories_model import COMMANDS, Chat
from corpus.dialogue_rows import read_dialogues
from corpus.sources import open_dataset


def roles(chat):
    return [role for role, _ in chat.turns]


def command(chat, line):
    name, _, text = line.partition(" ")
    assert name in COMMANDS
    return chat.command(name, text)


def test_the_chat_can_undo_retry_and_reset(make_writer, capsys):
    chat = Chat(make_writer(max_new_tokens=3))
    first = "".join(chat.reply("Hi"))
    assert chat.turns == [("user", "Hi"), ("assistant", first.strip())]
    assert command(chat, "/retry") == "Hi" and chat.turns == []
    assert "".join(chat.reply("Hi")) != first
    list(chat.reply("A?"))
    assert roles(chat) == ["user", "assistant"] * 2
    assert command(chat, "/undo") is None and roles(chat) == ["user", "assistant"]
    command(chat, "/reset")
    assert chat.turns == []
    for line in ("/undo", "/retry"):
        assert command(chat, line) is None and "the conversation is empty" in capsys.readouterr().err


def test_the_chat_sets_the_temperature_and_refuses_nonsense(make_writer, capsys):
    chat = Chat(make_writer())
    command(chat, "/temperature 0.5")
    assert chat.writer.sampling.temperature == 0.5
    for line in ("/temperature", "/temperature hot", "/temperature -1", "/temperature nan"):
        command(chat, line)
        assert chat.writer.sampling.temperature == 0.5 and len(capsys.readouterr().err.splitlines()) < 3


def test_a_system_text_comes_before_the_turns_until_it_is_removed(make_writer, monkeypatch):
    writer = make_writer(max_new_tokens=2)
    asked_with = []
    chat = Chat(writer)
    monkeypatch.setattr(writer, "stream", lambda ids, row_seed: asked_with.append(ids) or iter(["Yes."]))
    command(chat, "/system Be Tom")
    list(chat.reply("Hi"))
    turns = [("system", "Be Tom"), ("user", "Hi")]
    assert asked_with[0] == render_dialogue(writer.tokenizer, turns, open_ended=True)[0]
    command(chat, "/reset")
    command(chat, "/system")
    list(chat.reply("Hi"))
    assert asked_with[1] == render_dialogue(writer.tokenizer, turns[1:], open_ended=True)[0]


def test_the_chat_reports_once_that_it_forgets(make_writer, capsys):
    chat = Chat(make_writer(max_new_tokens=8, min_new_tokens=8))
    for number in range(6):
        list(chat.reply(f"Tom had a cat {number}"))
        assert len(roles(chat)) % 2 == 0 and roles(chat)[0] == "user"
    assert capsys.readouterr().err.count("forgets the oldest turns") == 1
    assert len(chat.turns) == 12  # they can still be saved
    command(chat, "/reset")
    for number in range(6):
        list(chat.reply(f"Tom had a cat {number}"))
    assert capsys.readouterr().err.count("forgets the oldest turns") == 1


def test_the_trainer_can_read_a_saved_conversation(make_writer, tmp_path, capsys):
    chat = Chat(make_writer(max_new_tokens=8, min_new_tokens=8))
    path = tmp_path / "talk.jsonl"
    command(chat, f"/save {path}")
    assert not path.exists()
    list(chat.reply("Hi <eos> Tom \u00e9"))
    command(chat, f"/save {path}")
    command(chat, "/system Be Tom")
    command(chat, f"/save {path}")
    first, second = read_dialogues(open_dataset(str(path))["train"])
    assert first == chat.turns and second == [("system", "Be Tom"), *chat.turns]
    for name in ("talk.txt", "", tmp_path / "no folder" / "t.jsonl"):
        command(chat, f"/save {name}")
        assert "added" not in capsys.readouterr().err.splitlines()[-1]


def test_an_interrupted_reply_is_kept_as_far_as_it_was_written(make_writer, monkeypatch):
    chat = Chat(make_writer())

    def stream(ids, row_seed):
        yield "Once"
        raise KeyboardInterrupt

    monkeypatch.setattr(chat.writer, "stream", stream)
    with pytest.raises(KeyboardInterrupt):
        list(chat.reply("Hi"))
    assert chat.turns == [("user", "Hi"), ("assistant", "Once")]
    assert command(chat, "/retry") == "Hi" and not chat.turns
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(chat_module, "chat_prompt", lambda *_: stream(None, None).throw(KeyboardInterrupt))
        list(chat.reply("Hi"))
    assert chat.turns == [("user", "Hi"), ("assistant", "")]


def talk(writer, monkeypatch, text):
    """Run a chat on lines from a pipe, and return it."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    chat = Chat(writer)
    chat_module.converse(chat, interactive=False)
    return chat


def test_in_a_pipe_an_empty_line_and_an_unknown_command_get_an_empty_line(make_writer, monkeypatch, capsys):
    replies = iter(["One.", "Two.", "Three.\n\nThe end.", "Four."])
    writer = make_writer()
    monkeypatch.setattr(writer, "stream", lambda ids, row_seed: iter([next(replies)]))
    lines = ["Hi", "", "/reset", "/unknown to me", "  ", " /unknown to me", "/usr/bin is what?", "/ is a slash", "exit"]
    chat = talk(writer, monkeypatch, "\n".join(lines))
    printed = capsys.readouterr()
    assert printed.out.split("\n") == ["One.", "", "", "", "Two.", "Three. The end.", "Four.", ""]
    assert [text for role, text in chat.turns if role == "user"] == [line.strip() for line in lines[5:8]]
    (refusal,) = [line for line in printed.err.splitlines() if "/unknown" in line]
    assert all(name in refusal for name in COMMANDS)


def test_a_reply_stopped_by_its_length_limit_is_reported_on_stderr(make_writer, monkeypatch, capsys):
    talk(make_writer(max_new_tokens=3, min_new_tokens=3), monkeypatch, "Hi\n\nYou\n")
    printed = capsys.readouterr()
    assert printed.err.count("(stopped at --max_new_tokens 3)") == 2 and "stopped" not in printed.out
