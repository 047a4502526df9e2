"""Reading files of prompts, and writing files of samples."""

import json
import subprocess
import sys

import pytest
from programs import write_rows
from tiny import LONG, TEXTS

from common.errors import UserError
from generation.prompt_files import Samples, read_prompts, write_samples

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
def test_prompts_are_read_from_every_kind_of_file(tmp_path, name):
    content, expected = FILES[name]
    for mark in ("", "\ufeff"):
        (tmp_path / name).write_text(mark + content, encoding="utf-8", newline="\n")
        assert [(p.id, p.prompt, p.extra) for p in read_prompts(tmp_path / name)] == expected


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("p.txt", "\n \n", "contains no prompts"),
        (
            "p.jsonl",
            '"fine"\n{"promt": "x"}\n',
            'line 2: a text, a list of turns, or an object with one as "prompt" was expected (found: promt)',
        ),
        ("p.jsonl", '"fine"\n{broken\n', "line 2"),
        ("p.jsonl", '{"prompt": 7}\n', "line 1"),
        ("p.jsonl", '{"prompt": ""}\n', "line 1"),
        ("p.jsonl", '{"prompt": "x", "id": [1]}\n', "the id"),
        ("p.jsonl", '{"prompt": "x", "id": 1}\n{"prompt": "y", "id": 1}\n', "the id 1 is also at "),
        ("p.jsonl", '{"prompt": "x", "id": 1}\n"y"\n', "line 1; give each prompt its own id"),
        ("p.jsonl", '{"prompt": [{"role": "user"}]}\n', "line 1"),
        ("p.jsonl", json.dumps(TURNS[:2]) + "\n", "nothing to answer"),
        ("p.json", "[1", "p.json"),
        ("p.csv", "text\nTom\n", "line 2"),
        ("p.csv", "prompt,id\nTom,Mia,1\n", "line 2: 3 values, but 2 columns"),
        ("p.tsv", "x", ".tsv"),
        ("p.csv", b"prompt\ncaf\xe9\n", "UTF-8"),
        ("p.txt", b"caf\xe9\n", "UTF-8"),
    ],
)
def test_a_file_without_valid_prompts_is_refused_in_one_line(tmp_path, name, content, named):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refusal:
        read_prompts(tmp_path / name)
    assert named in str(refusal.value) and "\n" not in str(refusal.value) and "skip_bad" not in str(refusal.value)
    with pytest.raises(UserError, match="no file"):
        read_prompts(tmp_path / f"no {name}")


# Samples --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path):
    """Return seven story prompts, read from a file."""
    rows = [{"prompt": text[:n], "id": f"{n}", "n": n} for n, text in enumerate([*TEXTS, *TEXTS, "Mia ran"], start=3)]
    write_rows(tmp_path / "p.jsonl", rows)
    return read_prompts(tmp_path / "p.jsonl")


def test_a_sample_has_everything_that_scoring_needs(make_writer, asked):
    writer = make_writer(temperature=0.7, stop=["q"])
    rows = [row for rows in Samples(writer, asked, num_samples=2).rows() for row in rows]
    assert [(row["id"], row["sample"]) for row in rows] == [(p.id, n) for p in asked for n in (0, 1)]
    row = rows[3]
    assert (row["prompt"], row["n"], row["model"]) == (asked[1].prompt, 4, str(writer.model_path))
    assert {"text", "tokens", "ended", "seed", "top_k", "top_p", "model_fingerprint"} <= row.keys()
    assert (row["temperature"], row["stop"], row["max_new_tokens"]) == (0.7, ["q"], 20)
    assert rows[2]["text"] != rows[3]["text"]


def test_lone_surrogates_in_a_file_of_prompts_do_not_stop_the_program(make_writer, tmp_path):
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


def test_a_file_of_samples_truncated_anywhere_is_completed_to_the_same_file(make_writer, asked, tmp_path, capsys):
    samples, path = Samples(make_writer(), asked), tmp_path / "out" / "s.jsonl"
    write_samples(samples, path, batch_size=3)
    whole = path.read_bytes()
    assert len(whole.splitlines()) == 7
    ends = [0, 8, 9, len(whole) // 2, whole.index(b"\n"), whole.index(b"\n") + 1, whole.rindex(b"\n"), len(whole)]
    for end in ends:
        path.write_bytes(whole[:end])
        write_samples(samples, path, batch_size=2)
        assert path.read_bytes() == whole
    assert "already contains 7 of 7 samples" in capsys.readouterr().err


def test_a_file_of_other_samples_is_refused_and_not_changed(make_writer, asked, tmp_path):
    path = tmp_path / "s.jsonl"
    write_samples(Samples(make_writer(), asked), path)
    before = path.read_bytes()
    runs = [
        (Samples(make_writer(temperature=0.5), asked), "temperature 0.8, but now it is 0.5"),
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
def test_two_runs_do_not_write_into_the_same_file(make_writer, asked, tmp_path):
    path = tmp_path / "s.jsonl"
    holds = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{holds}; sys.stdin.read()", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="another run"):
            write_samples(Samples(make_writer(), asked), path)
        other.stdin.close()


def test_unusable_prompts_are_refused_before_anything_is_written(make_writer, tmp_path, capsys):
    def samples(*rows, chat=False):
        write_rows(tmp_path / "p.jsonl", rows)
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
