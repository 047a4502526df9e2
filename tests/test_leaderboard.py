"""The leaderboard: runs within the budget, ranked by bits per byte on the instructor's texts."""

import json
import math
import shutil

import grade_runs
import pytest
import torch
from grading import leaderboard
from grading.facts import facts_of
from grading.findings import problem
from grading.leaderboard import (
    Disqualified,
    Result,
    Rules,
    pages_of,
    read_rules,
    result_of,
    standings,
    write_leaderboard,
)
from grading.submissions import Submission, opened
from pages.report import Entry
from pages_seen import Seen
from programs import ROOT, main, write_rows
from refusals import error_of

from common.errors import UserError
from common.weights_files import load_model, save_model
from corpus.sources import open_dataset
from data import SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from model import ModelConfig, Transformer

GOLDEN = ROOT / "tests/golden"
TOKENIZER = GOLDEN / "bpe_tokenizer_tinystories.pkl"
STORIES = ["Tom had a cat. The cat ran!\n\nThe end.", "Mia  saw a dog. Ünï, €5!", "Ben and Lily went home." * 6]


def write_rules(folder, text="", texts=GOLDEN / "stories"):
    """Write rules for these texts, and return the path."""
    path = folder / "rules.toml"
    path.write_text(f"texts = '{texts}'\n{text}", encoding="utf-8")
    return path


def tiny_model(tokenizer, **changes):
    shape = {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24, "max_seq_len": 64}
    torch.manual_seed(0)
    return Transformer(ModelConfig(**{"vocab_size": tokenizer.vocab_size} | shape | changes)).eval()


def computed(network, tokenizer, folder, stories=STORIES):
    """Return what the leaderboard computes for a model on these stories."""
    write_rows(folder / "texts.jsonl", [{"text": story} for story in stories])
    split = open_dataset(str(folder / "texts.jsonl"))["train"]
    return leaderboard.bits_per_byte(network, tokenizer, split, str(folder / "cache"))


# Bits per byte --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab_size", [270, 300])
def test_bits_per_byte_are_those_of_the_definition_for_any_vocabulary(tmp_path, vocab_size):
    tokenizer = train_tokenizer(STORIES, vocab_size)
    network = tiny_model(tokenizer, max_seq_len=512)
    bos, eos = tokenizer.special["<bos>"], tokenizer.special["<eos>"]
    ids = []
    for story in STORIES:
        ids += [bos, *tokenizer.encode(story), eos]
    with torch.no_grad():
        hidden = network.hidden(torch.tensor([ids[:-1]]))
        chances = network.logits(hidden)[0].log_softmax(-1)
    predicted = [(place, token) for place, token in enumerate(ids[1:]) if token != bos]
    bits = -sum(chances[place, token].item() for place, token in predicted) / math.log(2)
    expected = bits / sum(len(story.strip().encode()) for story in STORIES)
    assert computed(network, tokenizer, tmp_path) == pytest.approx(expected, rel=1e-5)


def test_on_the_run_s_own_validation_texts_they_are_those_of_the_records(tmp_path):
    network, _ = load_model(GOLDEN / "story/best_model.pth")
    split = leaderboard.held_out(str(GOLDEN / "stories"))
    bits = leaderboard.bits_per_byte(network, load_tokenizer(TOKENIZER), split, str(tmp_path))
    recorded = json.loads((GOLDEN / "story/summary.json").read_text())["best_bits_per_byte"]
    assert bits == pytest.approx(recorded, abs=1e-4)


def test_without_a_validation_split_all_texts_count(tmp_path):
    write_rows(tmp_path / "texts.jsonl", [{"text": story} for story in STORIES])
    assert leaderboard.check_rules(Rules(str(tmp_path / "texts.jsonl")), {}) == len(STORIES)
    assert leaderboard.check_rules(Rules(str(GOLDEN / "stories")), {}) == 10


def test_a_tokenizer_that_loses_line_breaks_is_disqualified(tmp_path):
    letters = sorted({letter for story in STORIES for letter in story if not letter.isspace()})
    tokens = [*SPECIAL_TOKENS, *letters, *(f"{letter}</w>" for letter in letters), "</w>"]
    model = {"type": "WordBPE", "vocab": {token: number for number, token in enumerate(tokens)}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    network = tiny_model(tokenizer)
    with pytest.raises(Disqualified, match="its tokenizer loses a part of the texts"):
        computed(network, tokenizer, tmp_path)
    assert computed(network, tokenizer, tmp_path, ["Tom had a cat ."]) > 0  # of this text it loses nothing


def test_a_model_whose_loss_is_not_finite_is_disqualified(tmp_path, monkeypatch):
    tokenizer = train_tokenizer(STORIES, 270)
    monkeypatch.setattr(leaderboard, "evaluate", lambda *_: {"bits_per_byte": math.nan})
    with pytest.raises(Disqualified, match="not a finite number"):
        computed(tiny_model(tokenizer), tokenizer, tmp_path)


# One run --------------------------------------------------------------------------------------------------------------


def make_run(device="cuda:0 (Tesla T4, 15 GiB)", resumed_on=None, processes=1, **row):
    """Return a run of 40 minutes and 1,000 tokens."""
    rows = [{"event": "train", "step": 9, "seconds": 2400.0, "tokens": 1000, "train_loss": 1.0} | row]
    hardware = {"device": device, "processes": processes}
    run = Submission("anna", "anna", rows=rows, first_row={"event": "run", "hardware": hardware})
    run.log.devices = [resumed_on] if resumed_on else []
    return run


def without(name):
    run = make_run()
    del run.rows[0][name]
    return run


def reason(run, *problems, **rules):
    """Return why a run is not ranked.  It has no model file, which is checked last."""
    entry = Entry("anna", facts_of(run), [problem(text) for text in problems], person="anna")
    return result_of(run, entry, Rules("texts", **rules), args=None).reason


WITHIN = "best_model.pth was not handed in, or cannot be read"
T4 = {"device": "Tesla T4"}


@pytest.mark.parametrize(
    ("run", "rules", "said"),
    [
        (make_run(), {}, WITHIN),
        (make_run(), {"minutes": 40, **T4}, WITHIN),
        (make_run(seconds=2400.6), {"minutes": 40, **T4}, "40.01 minutes of training; the budget is 40"),
        (make_run(), {"tokens": 1000}, WITHIN),
        (make_run(), {"tokens": 999}, "1,000 tokens; the budget is 999"),
        (make_run(tokens=20_480_000), {"tokens": 2e7}, "20,480,000 tokens; the budget is 20,000,000"),
        (make_run(), {"device": "t4"}, WITHIN),
        (make_run("cuda:0 (NVIDIA A100-SXM4-40GB, 39 GiB)"), {"device": "NVIDIA A100"}, WITHIN),
        (make_run("cuda:0 (NVIDIA L40S, 44 GiB)"), {"device": "NVIDIA L4"},
         "trained on cuda:0 (NVIDIA L40S, 44 GiB); the budget is for one NVIDIA L4"),
        (make_run(resumed_on="cuda:0 (Tesla T4, 15 GiB)"), T4, WITHIN),
        (make_run(resumed_on="cuda:0 (H200)"), T4, "trained on cuda:0 (H200); the budget is for one Tesla T4"),
        (make_run(processes=2), T4, "trained on 2 devices at a time; the budget is for one Tesla T4"),
        (make_run(None), T4, "its records do not show the device"),
        (Submission(), {"minutes": 40, **T4}, "no run was found in it"),
        (without("seconds"), {"minutes": 40, **T4}, "its records do not show the number of minutes of training"),
        (without("tokens"), {"tokens": 1}, "its records do not show the number of tokens"),
        (Submission(args={"program": "train_tinystories_chat_model.py"}), {},
         "a chat run; the leaderboard is for story runs"),
    ],
)  # fmt: skip
def test_a_run_outside_the_budget_is_disqualified_with_the_reason(run, rules, said):
    assert reason(run, **rules) == said


def handed_in(folder, tokenizer=TOKENIZER, model=GOLDEN / "story/best_model.pth", name="anna"):
    """Make a submission of the golden run, with this tokenizer and model."""
    shutil.copytree(GOLDEN / "story", folder / name)
    shutil.copy(model, folder / name / "best_model.pth")
    if tokenizer:
        shutil.copy(tokenizer, folder / name / TOKENIZER.name)
    return folder / name


def result_in(folder, path, **rules):
    """Return the result of a submission on the golden stories, in which problems are allowed."""
    flags = ["x", "--cache_dir", str(folder / "cache"), "--tokenizer_path", str(folder / "none.pkl")]
    args = grade_runs.parse_args(flags)
    with opened(path) as (run,):
        entry = Entry(run.name, facts_of(run), person=run.person)
        return result_of(run, entry, Rules(str(GOLDEN / "stories"), **rules), args)


def test_parameters_are_counted_in_the_model_file(tmp_path):
    path = handed_in(tmp_path)
    edited = (path / "metrics.jsonl").read_text().replace('"parameters": 7024', '"parameters": 12')
    (path / "metrics.jsonl").write_text(edited)
    assert result_in(tmp_path, path, parameters=7024).parameters == 7024
    assert result_in(tmp_path, path, parameters=7023).reason == "7,024 parameters; the budget is 7,023"


def test_a_missing_or_wrong_tokenizer_or_model_disqualifies_without_a_path(tmp_path):
    train_tokenizer(STORIES, 300).save(tmp_path / "other.pkl")
    (tmp_path / "broken.pkl").write_bytes(b"no")
    other_shape = tiny_model(load_tokenizer(TOKENIZER))
    save_model(tmp_path / "tiny.pth", other_shape, load_tokenizer(TOKENIZER).fingerprint)
    content = torch.load(tmp_path / "tiny.pth", weights_only=True)
    torch.save(content | {"config": content["config"] | {"hidden_size": 32}}, tmp_path / "misfit.pth")
    lost = f"{TOKENIZER.name} was not handed in, or cannot be read"
    other = f"best_model.pth was trained with another tokenizer than {TOKENIZER.name}"
    cases = {
        "none": ({"tokenizer": None}, lost),
        "broken": ({"tokenizer": tmp_path / "broken.pkl"}, lost),
        "other": ({"tokenizer": tmp_path / "other.pkl"}, other),
        "misfit": ({"model": tmp_path / "misfit.pth"}, "best_model.pth cannot be loaded"),
    }
    for name, (files, said) in cases.items():
        path = handed_in(tmp_path, name=name, **files)
        assert result_in(tmp_path, path).reason == said


# Ranks ----------------------------------------------------------------------------------------------------------------


def make_entry(name, bits=None, problems=0, reason="", kind="story", person=None):
    result = Result(kind, 10.0, 1000, "Tesla T4", 7000, bits, reason)
    person = person or name.split("/")[0]
    return Entry(name, {}, [problem("the same run id as eve")] * problems, person=person, result=result)


def ranked(entries, **rules):
    places, disqualified = standings(entries, Rules("texts", **rules))
    return [(place.rank, place.person, place.result.bits_per_byte) for place in places], dict(disqualified)


def test_equal_runs_share_a_rank_and_the_next_rank_is_left_out():
    entries = [make_entry("dan", 0.7), make_entry("Ben", 0.61234), make_entry("anna", 0.61233), make_entry("cy", 0.5)]
    places, _ = ranked(entries)
    assert places == [("1", "cy", 0.5), ("2=", "anna", 0.61233), ("2=", "Ben", 0.61234), ("4", "dan", 0.7)]


def test_the_best_run_of_a_person_counts_and_chat_runs_are_left_out():
    chat = "a chat run; the leaderboard is for story runs"
    over = "50 minutes of training; the budget is 45"
    entries = [
        make_entry("anna/one", 0.7), make_entry("anna/two", 0.6), make_entry("anna/three", reason=over),
        make_entry("anna/chat", reason=chat, kind="chat"), make_entry("ben", reason=chat, kind="chat"),
    ]  # fmt: skip
    places, disqualified = ranked(entries)
    assert places == [("1", "anna", 0.6)] and disqualified == {"anna/three": over, "ben": chat}
    (place,), _ = standings(entries, Rules("texts"))
    assert place.runs == 3


def test_a_fault_of_the_instructor_s_machine_is_not_the_student_s_problem(tmp_path, monkeypatch):
    def broken(*_):
        raise UserError("the hub does not answer")

    tokenizer = load_tokenizer(TOKENIZER)
    network, _ = load_model(GOLDEN / "story/best_model.pth")
    monkeypatch.setattr(leaderboard, "load", lambda *_: (network, tokenizer))
    monkeypatch.setattr(leaderboard, "held_out", broken)
    assert reason(make_run()) == "it could not be evaluated here; make the leaderboard again"


def test_a_run_with_a_problem_is_disqualified_until_the_instructor_allows_it():
    entries = [make_entry("anna", 0.7, problems=1), make_entry("ben", 0.6, problems=2), make_entry("cy", 0.8)]
    unread = Entry("dora", {}, [problem("cannot be read")], person="dora")
    places, disqualified = ranked([*entries, unread], allow=["anna", "dora"])
    assert places == [("1", "anna", 0.7), ("2", "cy", 0.8)]
    assert disqualified == {"ben": "2 problems in its records", "dora": "it cannot be read"}
    late = make_entry("anna", reason="1,000 tokens; the budget is 999", problems=1)
    assert ranked([late], allow=["anna"]) == ([], {"anna": "1,000 tokens; the budget is 999"})


def test_the_pages_are_for_the_whole_class_and_a_name_is_never_markup(tmp_path):
    bad = "<b>a|b</b>\u202e"
    entries = [make_entry("anna", 0.61), make_entry(bad, 0.5, person=bad), make_entry("carl|x", problems=1)]
    rules = Rules("/home/instructor/held", title="Best <i>model</i>", minutes=45, device="Tesla T4", tokens=2e7)
    printed = write_leaderboard(entries, rules, 500, pages_of(str(tmp_path / "rules.toml")))
    page = (tmp_path / "rules.html").read_text(encoding="utf-8")
    table = (tmp_path / "rules.md").read_text(encoding="utf-8")
    assert printed == table
    seen = Seen(page)
    assert not {"b", "i", "script", "img"} & set(seen.elements) and "\u202e" not in page + table
    assert r"\<b\>a\|b\</b\>?" in table and r"| carl\|x | 1 problem in its records |" in table
    budget = "Budget: 45 minutes of training on one Tesla T4, 20,000,000 tokens. Bits per byte on 500 texts"
    for text in (table, "\n".join(seen.texts)):
        assert budget in text and "0.6100" in text and "7,000" in text
        assert "instructor/held" not in text and "run id" not in text and "eve" not in text
    assert "default-src 'none'" in page and "script-src 'none'" in page
    assert table.index("| 1 |") < table.index("| 2 | anna |")


# Rules and the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budget", "is not TOML"),
        ("", "texts must name the texts that you hold"),
        ("texts = 3", "texts must name the texts that you hold"),
        ("texts = 'x'\nplace = 3", "unknown field place; use title, texts, allow, budget"),
        ("texts = 'x'\ntitle = 3", "title must be a text"),
        ("texts = 'x'\nallow = 'anna'", "allow must be a list of submissions"),
        ("texts = 'x'\nbudget = 3", "budget must be a table"),
        ("texts = 'x'\n[budget]\nhours = 3", "[budget]: unknown field hours; use minutes, tokens, parameters, device"),
        ("texts = 'x'\n[budget]\nminutes = 3", "[budget]: minutes need a device"),
        ("texts = 'x'\n[budget]\ntokens = '3'", "[budget]: tokens must be a number above 0"),
        ("texts = 'x'\n[budget]\nparameters = 0", "[budget]: parameters must be a number above 0"),
        ("texts = 'x'\n[budget]\ntokens = true", "[budget]: tokens must be a number above 0"),
        ("texts = 'x'\n[budget]\nminutes = nan\ndevice = 'T4'", "[budget]: minutes must be a number above 0"),
        ("texts = 'x'\n[budget]\ndevice = ''", "[budget]: device must be a part of a device's name"),
    ],
)
def test_invalid_rules_are_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    message = error_of(read_rules, str(path))
    assert said in message and str(path) in message


def test_the_example_in_the_documentation_is_valid(tmp_path):
    text = (ROOT / "docs/grading.md").read_text(encoding="utf-8").split("```toml\n")[2].split("```")[0]
    (tmp_path / "rules.toml").write_text(text)
    rules = read_rules(str(tmp_path / "rules.toml"))
    assert rules.budget() == "45 minutes of training on one Tesla T4, 20,000,000 tokens, 10,000,000 parameters"
    assert Rules("x").budget() == "no limit"


def test_a_wrong_name_or_text_is_refused_before_a_run_is_read(tmp_path, monkeypatch):
    handed_in(tmp_path / "class")
    monkeypatch.setattr(grade_runs, "grade_all", None)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "A cat."}\n{"text"\n')
    flags = [tmp_path / "class", "--cache_dir", tmp_path / "cache", "--leaderboard", tmp_path / "rules.toml"]
    for rules, said in (
        ({"text": "allow = ['bob']"}, "the rules allow bob, but there is no submission with this name"),
        ({"texts": tmp_path / "missing.jsonl"}, "the texts of the rules"),
        ({"texts": bad}, "bad.jsonl"),
    ):
        write_rules(tmp_path, **rules)
        assert said in error_of(main, grade_runs, *flags)
    taken = tmp_path / "rules.html"
    assert "another use in this command" in error_of(grade_runs.parse_args, [*map(str, flags), "--report", str(taken)])


def test_the_command_writes_both_pages_for_a_class(tmp_path, capsys):
    folder = tmp_path / "class"
    handed_in(folder)
    shutil.copytree(GOLDEN / "early", folder / "ben")
    shutil.copytree(GOLDEN / "early", folder / "copied")
    shutil.copy(GOLDEN / "logs/stopped.console.log", folder / "carl.log")
    rules = write_rules(folder, "[budget]\nminutes = 1\ndevice = 'cpu'")
    flags = [folder, "--leaderboard", rules, "--tokenizer_path", TOKENIZER, "--cache_dir", tmp_path / "cache"]
    for _ in range(2):  # the pages in the folder of the submissions do not count as submissions
        main(grade_runs, *flags, "--processes", 1)
        table = (folder / "rules.md").read_text(encoding="utf-8")
        _, _, best, *rest = [line for line in table.splitlines() if line.startswith("|")]
        assert best.startswith("| 1 | anna | 3.9382 | 0.0 | 5,496 | 7,024 | cpu") and best.endswith("| 1 |")
        reasons = "\n".join(rest)
        assert "| ben | 1 problem in its records |" in reasons and "| copied | 1 problem in its records |" in reasons
        assert "| carl | 2 problems in its records |" in reasons and "leaderboard" not in reasons
        assert "3.9382" in (folder / "rules.html").read_text(encoding="utf-8")
    captured = capsys.readouterr()
    assert f"wrote {folder / 'rules.html'} and {folder / 'rules.md'}" in captured.err and table in captured.out
