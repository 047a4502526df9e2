"""From prompts to text: the flags, texts as they grow, many at once, the files of prompts and samples, the chat."""

import dataclasses
import json
import subprocess
import sys

import pytest
from tiny import make_model, render_dialogue

import chat_with_tinystories_model as chat_module
from chat_with_tinystories_model import COMMANDS, Chat
from common.errors import UserError
from common.weights_files import save_model
from data import train_tokenizer
from generation.prompt_files import Samples, read_prompts, write_samples
from generation.prompts import chat_prompt
from generation.sampling import Sampling
from generation.writer import Writer

LONG = "Once upon a time, Tom had a cat. " * 20
TEXTS = ["Once upon a time, Tom had a cat. Ünï, €5!", "The dog ran away. Mia looked for it.", LONG]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 290)


@pytest.fixture(scope="module")
def model_path(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "best_model.pth"
    save_model(path, make_model(vocab_size=tokenizer.vocab_size, max_seq_len=32), tokenizer.fingerprint)
    return path


@pytest.fixture
def make_writer(tokenizer, model_path):
    model = make_model(vocab_size=tokenizer.vocab_size, max_seq_len=32)
    return lambda **flags: Writer(model, tokenizer, Sampling(**{"max_new_tokens": 20} | flags), model_path)


def prompt_of(writer, text="Tom had"):
    return [writer.tokenizer.special["<bos>"], *writer.tokenizer.encode(text)]


# The flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        {"max_new_tokens": 0}, {"min_new_tokens": -1}, {"min_new_tokens": 9, "max_new_tokens": 8}, {"temperature": -1},
        {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 2},
        {"repetition_penalty": 0}, {"num_beams": 0}, {"stop": [""]}, {"seed": -1}, {"num_beams": 2, "top_p": 0.5},
    ],
)  # fmt: skip
def test_flags_that_make_no_sense_are_refused_by_name(flags):
    with pytest.raises(UserError) as refusal:
        Sampling(**flags)
    assert all(f"--{name}" in str(refusal.value) for name in list(flags)[:1]) and "\n" not in str(refusal.value)


def test_as_many_tokens_are_written_as_the_least_asks_for():
    assert Sampling().max_new_tokens == 200
    assert Sampling(min_new_tokens=1300).max_new_tokens == 1300


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, {"temperature": 0}, {"num_beams": 3}, {"max_new_tokens": 80}])
def test_a_streamed_text_is_the_written_one_and_comes_in_whole_words(make_writer, flags):
    for seed in range(8):
        writer = make_writer(seed=seed, **flags)
        (written,) = writer.write([prompt_of(writer)], [5])
        pieces = list(writer.stream(prompt_of(writer), key=5))
        assert "".join(pieces) == written.text
        assert all(piece[0].isspace() for piece in pieces[1:] if piece)


def test_a_text_says_why_it_ended(make_writer, tokenizer):
    writer, seen = make_writer(max_new_tokens=120), set()
    for key in range(30):
        (written,) = writer.write([prompt_of(writer)], [key])
        seen.add(written.ended)
        assert written.ended == ("length" if written.tokens == 120 else "eos")
        assert not any(name in written.text for name in tokenizer.special)
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
            assert "".join(stopping.stream(prompt_of(writer), key=key)) == text.text


def test_a_stop_text_may_lie_in_several_tokens_or_within_one(make_writer):
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


# Files of prompts -----------------------------------------------------------------------------------------------------

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "A?"}]
FILES = {
    "p.txt": ("Tom had\n\nMia, \"ran\"\n", [(0, "Tom had", {}), (1, 'Mia, "ran"', {})]),
    "p.json": (json.dumps(["Tom", {"prompt": "Mia", "id": "m", "words": ["cat"]}]),
               [(0, "Tom", {}), ("m", "Mia", {"words": ["cat"]})]),
    "p.jsonl": (f'"Tom"\n{json.dumps(TURNS)}\n{json.dumps({"id": 9, "prompt": TURNS, "kind": None})}\n',
                [(0, "Tom", {}), (1, TURNS, {}), (9, TURNS, {"kind": None})]),
    "p.csv": ("id,prompt,subject\na,\"Tom, the\ncat\",cat\nb,7,\n",
              [("a", "Tom, the\ncat", {"subject": "cat"}), ("b", "7", {"subject": ""})]),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_prompts_are_read_from_every_kind_of_file(tmp_path, name, mark):
    content, expected = FILES[name]
    (tmp_path / name).write_text(mark + content, encoding="utf-8")
    assert [(p.id, p.prompt, p.extra) for p in read_prompts(tmp_path / name)] == expected


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("p.txt", "\n \n", "no prompt"),
        (
            "p.jsonl",
            '"fine"\n{"promt": "x"}\n',
            'line 2: a text, a list of turns, or an object with one as "prompt" was expected (found: promt)',
        ),
        ("p.jsonl", '"fine"\n{broken\n', "line 2"),
        ("p.jsonl", '{"prompt": 7}\n', "line 1"),
        ("p.jsonl", '{"prompt": ""}\n', "line 1"),
        ("p.jsonl", '{"prompt": "x", "id": [1]}\n', "the id"),
        ("p.jsonl", '{"prompt": "x", "id": 1}\n{"prompt": "y", "id": 1}\n', "line 1 too"),
        ("p.jsonl", '{"prompt": "x", "id": 1}\n"y"\n', "line 1 too"),
        ("p.jsonl", '{"prompt": [{"role": "user"}]}\n', "line 1"),
        ("p.jsonl", json.dumps(TURNS[:2]) + "\n", "nothing to answer"),
        ("p.json", "[1", "p.json"),
        ("p.csv", "text\nTom\n", "line 2"),
        ("p.csv", "prompt\nTom,Mia\n", "line 2"),
        ("p.tsv", "x", ".tsv"),
        ("p.csv", b"prompt\ncaf\xe9\n", "UTF-8"),
        ("p.txt", b"caf\xe9\n", "UTF-8"),
    ],
)
def test_a_file_that_holds_no_prompts_is_named_in_one_line(tmp_path, name, content, named):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refusal:
        read_prompts(tmp_path / name)
    assert named in str(refusal.value) and "\n" not in str(refusal.value) and "skip_bad" not in str(refusal.value)
    with pytest.raises(UserError, match="no file"):
        read_prompts(tmp_path / f"no {name}")


# Samples --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path):
    """Seven prompts of stories."""
    rows = [{"prompt": text[:n], "id": f"{n}", "n": n} for n, text in enumerate([*TEXTS, *TEXTS, "Mia ran"], start=3)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_prompts(tmp_path / "p.jsonl")


def test_a_sample_has_all_that_is_needed_to_score_it(make_writer, asked, model_path):
    writer = make_writer(temperature=0.7, stop=["q"])
    rows = [row for rows in Samples(writer, asked, num_samples=2).rows() for row in rows]
    assert [(row["id"], row["sample"]) for row in rows] == [(p.id, n) for p in asked for n in (0, 1)]
    row = rows[3]
    assert (row["prompt"], row["n"], row["model"]) == (asked[1].prompt, 4, str(model_path))
    assert {"text", "tokens", "ended", "seed", "top_k", "top_p", "model_fingerprint"} <= row.keys()
    assert (row["temperature"], row["stop"], row["max_new_tokens"]) == (0.7, ["q"], 20)
    assert rows[2]["text"] != rows[3]["text"]


def test_half_characters_in_a_file_of_prompts_do_not_end_the_run(make_writer, tmp_path):
    half = "\\ud83d"
    (tmp_path / "p.jsonl").write_text(
        f'{{"prompt": "Tom {half}", "note": "{half}"}}\n'
        f'{{"prompt": [{{"content": "Hi {half}"}}], "n": NaN, "id": ""}}\n'
    )
    samples = Samples(make_writer(), read_prompts(tmp_path / "p.jsonl"), chat=True)
    for _ in range(2):
        write_samples(samples, tmp_path / "s.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [0, 1] and rows[0]["note"] == "\ufffd"


def test_a_sample_does_not_depend_on_the_batch(make_writer, asked):
    samples = Samples(make_writer(max_new_tokens=50), asked, num_samples=3)
    together = [row for rows in samples.rows(batch_size=64) for row in rows]
    assert len(together) == 21
    for size in (1, 4):
        assert together == [row for rows in samples.rows(batch_size=size) for row in rows]
    assert together[5:] == [row for rows in samples.rows(first=5, batch_size=6) for row in rows]


def test_a_run_that_was_cut_anywhere_goes_on_to_the_same_file(make_writer, asked, tmp_path, capsys):
    samples, path = Samples(make_writer(), asked), tmp_path / "out" / "s.jsonl"
    write_samples(samples, path, batch_size=3)
    whole = path.read_bytes()
    assert len(whole.splitlines()) == 7
    ends = [0, 8, 9, len(whole) // 2, whole.index(b"\n"), whole.index(b"\n") + 1, whole.rindex(b"\n"), len(whole)]
    for end in ends:
        path.write_bytes(whole[:end])
        write_samples(samples, path, batch_size=2)
        assert path.read_bytes() == whole
    assert "7 of 7 samples are there" in capsys.readouterr().err


def test_a_file_of_other_samples_is_left_as_it_is(make_writer, asked, tmp_path):
    path = tmp_path / "s.jsonl"
    write_samples(Samples(make_writer(), asked), path)
    before = path.read_bytes()
    runs = [
        (Samples(make_writer(temperature=0.5), asked), "temperature 0.8, and now it is 0.5"),
        (Samples(make_writer(), asked[1:]), "line 1: written with id"),
        (Samples(make_writer(), asked[:3]), "line 4: more samples"),
        (Samples(make_writer(), asked, num_samples=2), "line 2: written with id"),
    ]
    for samples, named in runs:
        with pytest.raises(UserError, match=named):
            write_samples(samples, path)
        assert path.read_bytes() == before
    for content in (
        b"my notes",
        b'{"mine": 1}\n',
        b'{"mine": 1}',
        b'{"id": "3", "prompt": "mine"}',
        before[:-9] + b"\n",
        b"\n" + before,
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match="line [17]: .*--overwrite"):
            write_samples(Samples(make_writer(), asked), path)
        assert path.read_bytes() == content
    write_samples(Samples(make_writer(), asked), path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks a file for its own process, too")
def test_two_runs_do_not_write_into_one_file(make_writer, asked, tmp_path):
    path = tmp_path / "s.jsonl"
    holds = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{holds}; sys.stdin.read()", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="another run"):
            write_samples(Samples(make_writer(), asked), path)
        other.stdin.close()


def test_prompts_that_cannot_be_asked_are_refused_before_anything_is_written(make_writer, tmp_path, capsys):
    def samples(*rows, chat=False):
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Samples(make_writer(), read_prompts(tmp_path / "p.jsonl"), chat=chat)

    with pytest.raises(UserError, match="line 2: .*chat_with_tinystories_model.py"):
        samples("Tom", TURNS)
    with pytest.raises(UserError, match="line 1: .* shorten"):
        samples(LONG)
    with pytest.raises(UserError, match='line 1: the key "text"'):
        samples({"prompt": "Tom", "text": "mine"})
    chat = samples("Tom", TURNS, LONG, chat=True)
    rows = [row for rows in chat.rows() for row in rows]
    assert len(rows) == 3 and rows[1]["prompt"] == TURNS and chat.shortened == 1


def test_without_a_file_the_samples_go_to_stdout(make_writer, asked, capsys):
    write_samples(Samples(make_writer(), asked))
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [p.id for p in asked]


# The chat -------------------------------------------------------------------------------------------------------------


def roles(chat):
    return [role for role, _ in chat.turns]


def command(chat, line):
    name, _, text = line.partition(" ")
    assert name in COMMANDS
    return chat.command(name, text)


def test_the_chat_takes_back_says_again_and_forgets(make_writer, capsys):
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
        assert command(chat, line) is None and "nothing was said" in capsys.readouterr().err


def test_the_chat_sets_the_temperature_and_refuses_nonsense(make_writer, capsys):
    chat = Chat(make_writer())
    command(chat, "/temperature 0.5")
    assert chat.writer.sampling.temperature == 0.5
    for line in ("/temperature", "/temperature hot", "/temperature -1", "/temperature nan"):
        command(chat, line)
        assert chat.writer.sampling.temperature == 0.5 and len(capsys.readouterr().err.splitlines()) < 3


def test_a_system_text_stands_before_the_turns_until_it_is_taken_back(make_writer, monkeypatch):
    writer, asked_with = make_writer(max_new_tokens=2), []
    chat = Chat(writer)
    monkeypatch.setattr(writer, "stream", lambda ids, key: asked_with.append(ids) or iter(["Yes."]))
    command(chat, "/system Be Tom")
    list(chat.reply("Hi"))
    turns = [("system", "Be Tom"), ("user", "Hi")]
    assert asked_with[0] == render_dialogue(writer.tokenizer, turns, open_ended=True)[0]
    command(chat, "/reset")
    command(chat, "/system")
    list(chat.reply("Hi"))
    assert asked_with[1] == render_dialogue(writer.tokenizer, turns[1:], open_ended=True)[0]


def test_the_chat_says_once_that_it_forgets_and_goes_on(make_writer, capsys):
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


def test_a_saved_conversation_is_what_the_trainer_reads(make_writer, tmp_path, capsys):
    from corpus.dialogues import read_dialogues
    from corpus.sources import open_dataset

    chat, path = Chat(make_writer(max_new_tokens=8, min_new_tokens=8)), tmp_path / "talk.jsonl"
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


def test_a_reply_that_is_cut_off_is_kept_as_far_as_it_came(make_writer, monkeypatch):
    chat = Chat(make_writer())

    def stream(ids, key):
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


def test_special_tokens_that_are_typed_are_text(make_writer):
    writer = make_writer()
    ids, *_ = chat_prompt(writer, [("user", "<eos><user>")])
    special = writer.tokenizer.special
    assert ids.count(special["<user>"]) == 1 and special["<eos>"] not in ids
