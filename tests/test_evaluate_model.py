"""Scoring: measures of texts, the program that compares models, and the judge, which is a local server here."""

import contextlib
import csv
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import evaluate_model
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import outcome
from scoring import judge as judge_module
from scoring import measures
from scoring.judge import Judge, endpoint, find_grades, key_from
from tiny import render_dialogue

from common.devices import Precision
from common.errors import UserError
from common.weights_files import save_model
from corpus.dialogues import reply_mask
from corpus.sources import open_dataset
from data import Tokenizer, load_tokenizer, train_tokenizer
from model import ModelConfig, Transformer

KEY = "sk-" + "a1B2" * 8
GRADED = {"grammar": 7, "creativity": 5, "consistency": 6, "age_group": "C"}


# Scoring --------------------------------------------------------------------------------------------------------------

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=12), max_size=5)


def occurs(run, text):
    return any(text[start : start + len(run)] == run for start in range(len(text) - len(run) + 1))


@settings(max_examples=400, deadline=None)
@given(texts=TEXTS, training=TEXTS)
def test_copied_passages_are_the_same_as_in_a_naive_search(texts, training):
    passages = measures.CopiedPassages(texts)
    for text in training:
        passages.compare(text)
    passages.finish()
    for text in texts:
        matches = passages.matches(text)
        for end in range(1, len(text) + 1):
            runs = [text[start:end] for start in range(end)]
            copied = [len(run) for run in runs if any(occurs(run, other) for other in training)]
            assert matches[end - 1] == max(copied, default=0)
        longest = measures.longest_passage(text, matches)
        assert len(longest) == max(matches, default=0) and occurs(longest, text)
        grams = measures.ngrams(text, 3)
        in_training = {gram for other in training for gram in measures.ngrams(other, 3)}
        assert measures.copied_ngrams(matches, 3) == (sum(gram in in_training for gram in grams), len(grams))


def test_words_are_lower_case_without_punctuation():
    assert measures.words('"Don\'t!" said Mia-Lou, 5 years old.\n_It’s_ É.') == [
        "don't", "said", "mia", "lou", "5", "years", "old", "it’s", "é",
    ]  # fmt: skip


def test_distinct_and_repeated_ngrams_match_a_count_by_hand():
    texts = [list("abab"), list("abc"), []]
    assert measures.distinct(texts, 1) == 3 / 7
    assert measures.distinct(texts, 2) == 3 / 5  # ab ba ab, ab bc
    assert measures.distinct([["a"]], 2) is None
    assert measures.repeated(list("abcdabcdabc"), 4) == 4 / 8
    assert measures.repeated(list("abc"), 4) is None


def test_wanted_words_count_as_whole_words_or_in_the_plural():
    text = measures.words("Two CATS ate ice cream with Tom.")
    assert measures.words_come_back(["cat", "ice cream", "Tom"], text)
    assert not measures.words_come_back(["car"], text)
    assert not measures.words_come_back(["cream", "ice tom"], text)
    assert not measures.words_come_back(["at"], text)
    assert measures.content_words_come_back("Please tell me a story about a cat and a dog!", text) == 1 / 2
    assert measures.content_words_come_back("Can you?", text) is None


# The judge ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def endpoint_that_answers(*answers):
    """Run a server with these answers, (status, content, headers), in order; it repeats the last one.

    content: a dict of grades, or a string.  A status of None closes the connection.  Yields (URL, received requests).
    """
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path, dict(self.headers), body))
            status, content, headers = answers[min(len(received), len(answers)) - 1]
            if status is None:
                return
            if isinstance(content, dict):
                content = json.dumps({"choices": [{"message": {"content": json.dumps(content)}}]})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def said(text):
    return json.dumps({"choices": [{"message": {"content": text}}]})


GOOD = (200, GRADED, {})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Record waiting times instead of waiting; return the list of them."""
    waits = []
    monkeypatch.setattr(judge_module.time, "sleep", waits.append)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return waits


def make_judge(url, folder, limit=100):
    return Judge(endpoint(url), "teacher", "Grade it.", folder, limit, KEY)


def test_the_judge_is_asked_again_after_growing_waits_until_it_answers(tmp_path, no_waiting):
    broken = [(429, "", {}), (500, "", {}), (200, "<html>", {}), (None, "", {}), (200, '{"choices": []}', {})]
    with endpoint_that_answers(*broken, GOOD) as (url, received):
        judge = make_judge(url, tmp_path)
        assert judge.grade("Once", "upon a time.") == GRADED
    assert judge.requests == len(received) == 6
    assert no_waiting == sorted(no_waiting) and len(set(no_waiting)) == 5
    path, headers, body = received[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert body["model"] == "teacher" and body["messages"][0] == {"role": "system", "content": "Grade it."}
    assert "Once" in body["messages"][1]["content"] and "upon a time." in body["messages"][1]["content"]


def test_the_judge_waits_as_long_as_the_endpoint_asks_within_reason(tmp_path, no_waiting):
    with endpoint_that_answers((429, "", {"Retry-After": "7"}), (429, "", {"Retry-After": "86400"}), GOOD) as (url, _):
        assert make_judge(url, tmp_path).grade("a", "b") == GRADED
    assert no_waiting == [7, judge_module.LONGEST_WAIT]


def test_the_same_grade_is_never_requested_twice(tmp_path):
    with endpoint_that_answers(GOOD) as (url, received):
        for judge in (make_judge(url, tmp_path), make_judge(url, tmp_path)):
            assert judge.grade("Once", "upon a time.") == GRADED
        assert len(received) == 1 and judge.cached == 1
        judge.grade("Once", "there was a cat.")
        judge.rubric = "Be strict."
        judge.grade("Once", "upon a time.")
        assert len(received) == 3
        for path in tmp_path.iterdir():
            path.write_text('{"grammar": 70}')  # a damaged cache entry is ignored
        assert judge.grade("Once", "upon a time.") == GRADED
        assert len(received) == 4


def test_an_answer_without_grades_is_counted_and_requested_again_next_time(tmp_path):
    with endpoint_that_answers((200, said("It is lovely!"), {}), GOOD) as (url, received):
        judge = make_judge(url, tmp_path)
        assert judge.grade("a", "b") is None
        assert judge.unreadable == 1 and "answers without grades: 1" in judge.summary()
        assert judge.grade("a", "b") == GRADED
        assert len(received) == 2


def test_the_limit_counts_every_request(tmp_path):
    with endpoint_that_answers((503, "", {}), GOOD) as (url, received):
        judge = make_judge(url, tmp_path, limit=3)
        grades = [judge.grade("a", str(number)) for number in range(4)]
        assert grades == [GRADED, GRADED, None, None]
        assert len(received) == 3 and judge.left_out == 2


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_a_refusal_ends_the_program_at_once_in_one_line_without_the_key(tmp_path, status):
    body = json.dumps({"error": {"message": f"bad\n{KEY}"}})
    with endpoint_that_answers((200, GRADED, {})) as (elsewhere, redirected):
        refusal = (status, body, {"Location": f"{elsewhere}/chat/completions"})
        with endpoint_that_answers(refusal) as (url, received), pytest.raises(UserError) as caught:
            make_judge(url, tmp_path).grade("a", "b")
    assert len(received) == 1 and not redirected  # the key is not sent to another address
    assert str(status) in str(caught.value) and "\n" not in str(caught.value)
    assert KEY not in str(caught.value) and not list(tmp_path.iterdir())


def test_the_key_is_never_shown(tmp_path, monkeypatch):
    assert KEY not in repr(make_judge("http://localhost", tmp_path))
    monkeypatch.setenv("MY_KEY", f"{KEY} {KEY}")
    with pytest.raises(UserError, match="MY_KEY") as caught:
        key_from("MY_KEY")
    assert KEY not in str(caught.value)
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    assert key_from("MY_KEY") == KEY
    monkeypatch.delenv("MY_KEY")
    assert key_from("MY_KEY") is None


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", "http://me:secret@host/v1", "http://host/?key=secret", "http://["],
)
def test_an_unusable_address_is_refused(url):
    with pytest.raises(UserError) as caught:
        endpoint(url)
    assert "secret" not in str(caught.value)


def test_an_address_may_be_given_with_or_without_its_last_part():
    assert (
        endpoint("http://host/v1/") == endpoint("http://host/v1/chat/completions") == "http://host/v1/chat/completions"
    )


def test_grades_are_found_in_a_text_and_ignored_if_out_of_range():
    assert find_grades(f"Well {{then}}:\n```json\n{json.dumps(GRADED)}\n```") == GRADED
    assert find_grades(json.dumps(GRADED | {"age_group": "d (8-9)"})) == GRADED | {"age_group": "D"}
    for change in ({"grammar": 11}, {"grammar": "7"}, {"creativity": 0}, {"consistency": True}, {"age_group": "G"}):
        assert find_grades(json.dumps(GRADED | change)) is None
    assert find_grades("[1, 2]") is None and find_grades("") is None


# The program ----------------------------------------------------------------------------------------------------------


def story(number):
    name, animal = ("Tom", "Mia", "Ben", "Lily")[number % 4], ("cat", "dog", "frog", "bird", "cow")[number % 5]
    return f"Once upon a time, {name} had a {animal}. It ran away! {name} looked for it {number} times. The end."


def dialogue(number):
    animal = ("cat", "dog", "frog", "bird", "cow")[number % 5]
    turns = [f"Tell me about a {animal}.", f"The {animal} was happy {number} times.", "Thank you!", "You are welcome."]
    return {"conversation": [{"text": turn} for turn in turns]}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with data, two tokenizers, an untrained model for each, prompts and samples."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_rows(folder / "stories/train.jsonl", [{"text": story(n)} for n in range(60)])
    write_rows(folder / "stories/validation.jsonl", [{"text": story(n)} for n in range(60, 70)])
    write_rows(folder / "talks/train.jsonl", [dialogue(n) for n in range(40)])
    write_rows(folder / "talks/valid.jsonl", [dialogue(n) for n in range(40, 46)])
    for number, size in enumerate((300, 340)):
        tokenizer = train_tokenizer([story(n) for n in range(60)], size)
        assert isinstance(tokenizer, Tokenizer)
        tokenizer.save(folder / f"{number}.pkl")
        torch.manual_seed(number)
        shape = {"num_layers": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "max_seq_len": 48}
        model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **shape))
        save_model(folder / f"{number}.pth", model, tokenizer.fingerprint, 1, 5.0, "run")
    prompts = [{"id": "a", "prompt": "Once", "words": ["cat"]}, {"id": "b", "prompt": "Mia ran."}]
    write_rows(folder / "prompts.jsonl", prompts)
    rows = [
        {
            "prompt": "Once",
            "words": ["cat"],
            "text": "upon a time, Tom had a cat. It sang!",
            "tokens": 12,
            "ended": "eos",
        },
        {"prompt": ["Mia?"], "text": "Mia looked. Mia looked. Mia looked.", "tokens": 8, "ended": "length"},
    ]
    write_rows(folder / "samples.jsonl", rows)
    write_rows(folder / "others.jsonl", [{"text": "Hi."}])
    return folder


@pytest.fixture
def run(trained, monkeypatch, capsys):
    """Return a function that runs the program with flags in the folder and returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(trained)

    return lambda *flags: outcome(evaluate_model, [*flags, "--cache_dir", "cache"], monkeypatch, capsys)


def test_files_of_samples_are_scored(run, trained, tmp_path):
    flags = ["--training_set", "stories", "--output", tmp_path / "s.json", "--csv", tmp_path / "s.csv"]
    status, out, err = run("samples.jsonl", "others.jsonl", *flags)
    assert status == 0, err
    content = json.loads((tmp_path / "s.json").read_text())
    scores = content["models"][0]["scores"]
    expected = {
        "texts": 2, "words": 7.5, "tokens": 10, "ended": 0.5, "distinct_1": 10 / 15, "repeated_4": (0 + 1 / 3) / 2,
        "copied_longest": 8, "copied_mean": 5, "copied_over_12": 0, "copied_5": 4 / 7, "wanted_words": 1,
        "prompt_words": 1,
    }  # fmt: skip
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert content["models"][0]["samples"][0]["copied"] == "upon a time tom had a cat it"
    rows = list(csv.reader((tmp_path / "s.csv").read_text().splitlines()))
    assert rows[0] == ["measure", "samples.jsonl", "others.jsonl"]
    assert ["texts", "2", "1"] in rows and ["ended", "0.5", ""] in rows
    assert "end by themselves" in out and "loss" not in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_wanted_words_may_be_a_list_or_separated_by_commas():
    rows = [{"text": "A red cat.", "words": words} for words in (["red", "cat"], "red, cat", "red,dog", ["dog"])]
    assert evaluate_model.written_scores(rows)["wanted_words"] == 1 / 2


def test_a_wanted_phrase_in_a_list_may_contain_a_comma():
    """Its words must be next to each other."""
    rows = [{"text": text, "words": ["red, round ball"]} for text in ("A red, round ball.", "A round ball, all red.")]
    assert evaluate_model.written_scores(rows)["wanted_words"] == 1 / 2


@pytest.mark.parametrize("judged", [False, True])
def test_grades_already_in_a_file_of_samples_are_not_the_judge_s(run, trained, judged):
    write_rows(
        trained / "graded.jsonl", [{"text": "A cat.", "grades": "A+"}, {"text": "A dog.", "grades": {"style": 3}}]
    )
    with endpoint_that_answers(GOOD) as (url, _):
        flags = ["--judge", url, "--judge_model", "m", "--judge_limit", 1] if judged else []
        status, out, err = run("graded.jsonl", *flags)
    assert status == 0 and "texts written" in out, err
    assert ("texts graded" in out) == judged


def test_a_model_file_without_a_tokenizer_fingerprint_gets_one_line(run, trained):
    content = torch.load("0.pth", weights_only=True)
    del content["tokenizer_fingerprint"]
    torch.save(content, "nameless.pth")
    status, _, err = run("nameless.pth", "--dataset", "stories", "--tokenizer_path", "0.pkl")
    assert status == 2 and "nameless.pth was not trained with this tokenizer" in err and "Traceback" not in err


def test_only_replies_count_as_training_text_of_a_chat_model(run, trained, tmp_path):
    write_rows(trained / "echo.jsonl", [{"text": "Tell me about a frog."}, {"text": "The frog was happy."}])
    status, out, err = run("echo.jsonl", "--training_set", "talks", "--output", tmp_path / "s.json")
    assert status == 0, err
    samples = json.loads((tmp_path / "s.json").read_text())["models"][0]["samples"]
    assert [sample["copied"] for sample in samples] == ["frog", "the frog was happy"]


@pytest.mark.parametrize("chat", [False, True])
def test_the_held_out_loss_equals_that_of_a_simple_loop(trained, monkeypatch, chat):
    monkeypatch.chdir(trained)
    tokenizer = load_tokenizer("0.pkl")
    args = evaluate_model.parse_args(["0.pth", "--dataset", "talks" if chat else "stories", "--cache_dir", "cache"])
    model, _ = evaluate_model.load_with_its_tokenizer("0.pth", [tokenizer], "cpu")
    splits = open_dataset(args.dataset)
    assert evaluate_model.holds_dialogues(splits["train"], "text") == chat
    scores = evaluate_model.held_out_scores(model, tokenizer, splits, args, chat, Precision(torch.device("cpu")))
    special, losses, size = tokenizer.special, [], 0
    if chat:
        talks = [[("user", a), ("assistant", b), ("user", c), ("assistant", d)] for a, b, c, d in
                 ([turn["text"] for turn in dialogue(n)["conversation"]] for n in range(40, 46))]  # fmt: skip
        rendered = [render_dialogue(tokenizer, talk, 48) for talk in talks]
        rows = [torch.tensor(ids) for ids, _, _ in rendered]
        predicted = [torch.from_numpy(reply_mask(ids.numpy(), special)) for ids in rows]
        size = sum(size for _, _, size in rendered)
    else:
        stories = [story(n) for n in range(60, 70)]
        stream = [token for text in stories for token in (special["<bos>"], *tokenizer.encode(text), special["<eos>"])]
        rows = [torch.tensor(stream[start : start + 49]) for start in range(0, len(stream) - 1, 48)]
        predicted = [ids != special["<bos>"] for ids in rows]
        size = sum(len(text.encode()) for text in stories)
    model.eval()
    with torch.no_grad():
        for ids, counted in zip(rows, predicted, strict=True):
            chances = model(ids[None, :-1])[0].log_softmax(-1)
            losses += (-chances[range(len(ids) - 1), ids[1:]])[counted[1:]].tolist()
    mean = sum(losses) / len(losses)
    assert scores["loss"] == pytest.approx(mean, rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert scores["bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / size, rel=1e-5)


def test_models_and_samples_are_compared_each_model_with_its_tokenizer(run, tmp_path):
    flags = ["--dataset", "stories", "--prompts_file", "prompts.jsonl", "--max_new_tokens", 6, "--training_set"]
    flags += ["stories", "talks", "--tokenizer_path", "1.pkl", "0.pkl", "--output", tmp_path / "s.json"]
    status, out, err = run("0.pth", "1.pth", "samples.jsonl", *flags)
    assert status == 0, err
    assert "asked as story models" in err
    first, second, third = json.loads((tmp_path / "s.json").read_text())["models"]
    assert first["scores"]["loss"] != second["scores"]["loss"] and "loss" not in third["scores"]
    assert [sample["id"] for sample in first["samples"]] == ["a", "b"]
    assert all(1 <= sample["tokens"] <= 6 for sample in first["samples"])
    assert all(len(line) <= 80 for line in out.splitlines())


def test_each_model_is_also_scored_with_rounded_weights(run, trained, tmp_path):
    flags = ["--dataset", "stories", "--prompts_file", "prompts.jsonl", "--max_new_tokens", 6]
    flags += ["--tokenizer_path", "1.pkl", "0.pkl", "--output", tmp_path / "s.json", "--csv", tmp_path / "s.csv"]
    status, out, err = run("0.pth", "samples.jsonl", "1.pth", *flags, "--weights", "int8", "int4")
    assert status == 0, err
    names = ["0.pth", "0.pth int8", "0.pth int4", "samples.jsonl", "1.pth", "1.pth int8", "1.pth int4"]
    models = json.loads((tmp_path / "s.json").read_text())["models"]
    assert [model["model"] for model in models] == names
    whole, int8, int4 = (model["scores"] for model in models[:3])
    parameters = sum(tensor.numel() for tensor in torch.load(trained / "0.pth", weights_only=True)["model"].values())
    assert whole["megabytes"] == parameters * 4 / 1e6
    assert whole["megabytes"] / 4 < int8["megabytes"] < whole["megabytes"] / 3.5
    assert whole["megabytes"] / 8 < int4["megabytes"] < int8["megabytes"]
    assert len({whole["loss"], int8["loss"], int4["loss"]}) == 3
    assert all(len(model["samples"]) == 2 for model in models[:3])
    assert "megabytes" not in models[3]["scores"]
    assert "B: 0.pth int8" in out and "size of the weights, MB" in out
    rows = list(csv.reader((tmp_path / "s.csv").read_text().splitlines()))
    assert rows[0] == ["measure", *names] and rows[1][0] == "megabytes"
    status, out, err = run("0.pth", "--dataset", "stories", "--tokenizer_path", "0.pkl")
    assert status == 0 and "size of the weights" not in out


def test_with_dialogues_or_prompts_of_turns_models_count_as_chat_models(run, trained):
    flags = ["--tokenizer_path", "0.pkl", "--max_new_tokens", 3]
    asked = ["--prompts_file", "prompts.jsonl"]
    status, out, err = run("0.pth", "--dataset", "talks", *asked, *flags)
    assert status == 0 and "asked as chat models" in err and "what the assistant says" in out
    write_rows(trained / "turns.jsonl", [{"id": 1, "prompt": ["Hi", "Ho", "Well?"]}])
    status, out, err = run("0.pth", "--prompts_file", "turns.jsonl", *flags)
    assert status == 0 and "asked as chat models" in err, err
    status, out, err = run("0.pth", "--dataset", "stories", "--chat", *asked, *flags)  # a chat model on stories
    assert status == 0 and "asked as chat models" in err and "what the assistant says" not in out, err


def test_without_a_validation_split_the_end_of_the_training_texts_is_held_out(run):
    status, out, err = run("0.pth", "--dataset", "stories/train.jsonl", "--tokenizer_path", "0.pkl")
    assert status == 0 and "set aside" in err and "perplexity" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["0.pth"], "nothing to score"),
        (["no.pth", "--dataset", "stories"], "no file no.pth"),
        (["samples.jsonl", "--dataset", "stories"], "--dataset is for model files"),
        (["samples.jsonl", "--weights", "int8"], "--weights is for model files"),
        (["0.pth", "--dataset", "stories", "--weights", "int8", "int8"], "names a format twice"),
        (["0.pth", "--dataset", "stories", "--weights", "int3"], "int3"),
        (["0.pth", "--dataset", "stories", "--judge", "http://x", "--judge_model", "m"], "pass --prompts_file"),
        (["0.pth", "--dataset", "stories", "--training_set", "stories"], "pass --prompts_file"),
        (["samples.jsonl", "samples.jsonl"], "named twice"),
        (["samples.jsonl", "--judge", "http://x"], "--judge_model"),
        (["samples.jsonl", "--judge_model", "m"], "pass --judge with its URL"),
        (["0.pth", "--dataset", "stories", "--temperature", "0.3"], "for writing; pass --prompts_file too"),
        (["samples.jsonl", "--judge", "x", "--judge_model", "m"], "--judge must be an address"),
        (["samples.jsonl", "--judge_limit", 0], "--judge_limit must be at least 1"),
        (["samples.jsonl", "--output", "nowhere/s.json"], "cannot write nowhere"),
        (["samples.jsonl", "--output", "./samples.jsonl"], "would be overwritten"),
        (["samples.jsonl", "--output", "new", "--csv", "new"], "would be overwritten"),
        (["talks/train.jsonl"], 'line 1: no "text"'),
        (["1.pth", "--dataset", "stories", "--tokenizer_path", "0.pkl"], "was not trained with this tokenizer"),
        (
            ["1.pth", "--dataset", "stories", "--tokenizer_path", "0.pkl", "0.pkl"],
            "was not trained with this tokenizer",
        ),
        (["0.pth", "--prompts_file", "no.txt", "--tokenizer_path", "0.pkl"], "no file no.txt"),
        (["samples.jsonl", "--training_set", "nothing.jsonl"], "nothing.jsonl; pass --training_set"),
    ],
)
def test_inputs_that_cannot_be_scored_are_named_in_one_line(run, flags, message):
    status, out, err = run(*flags)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and message in errors[0] and not out


def test_the_judge_grades_each_model_and_its_key_is_never_written(run, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    echo = (200, said(f"{KEY} is what you sent me"), {})
    files = ["--output", tmp_path / "s.json", "--csv", tmp_path / "s.csv"]
    with endpoint_that_answers((429, KEY, {}), echo, GOOD) as (url, received):
        flags = ["--judge", url, "--judge_model", "teacher", "--judge_key_variable", "MY_KEY", *files]
        for expected in (4, 5, 5):  # the second run asks again for the missing grades, the third asks nothing
            status, out, err = run("samples.jsonl", "others.jsonl", *flags)
            assert status == 0 and len(received) == expected, err
            assert KEY not in out + err
    assert all(headers["Authorization"] == f"Bearer {KEY}" for _, headers, _ in received)
    first, second = json.loads((tmp_path / "s.json").read_text())["models"]
    assert first["scores"]["graded"] == 2 and first["scores"]["grammar"] == 7 and second["scores"]["age_group"] == "C"
    assert first["samples"][0]["grades"] == GRADED
    written = [path for folder in (trained / "cache", tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert len(written) >= 4 and not any(KEY.encode() in path.read_bytes() for path in written)


def test_an_unreachable_judge_gets_one_line_and_no_other_score_is_lost(run, tmp_path):
    with endpoint_that_answers(GOOD) as (url, _):
        pass
    flags = ["--judge", url, "--judge_model", "teacher", "--csv", tmp_path / "s.csv"]
    status, out, err = run("samples.jsonl", *flags)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 1 and len(errors) == 1 and "does not answer" in errors[0]
    assert "distinct-1" in out and "distinct_1" in (tmp_path / "s.csv").read_text()


def test_a_limit_gives_each_model_the_same_number_of_grades(run, tmp_path):
    with endpoint_that_answers(GOOD) as (url, received):
        flags = ["--judge", url, "--judge_model", "m", "--judge_limit", 2, "--output", tmp_path / "s.json"]
        status, out, err = run("samples.jsonl", "others.jsonl", *flags)
    assert status == 0 and len(received) == 2 and "left out by --judge_limit: 1" in err
    models = json.loads((tmp_path / "s.json").read_text())["models"]
    assert [model["scores"]["graded"] for model in models] == [1, 1]
