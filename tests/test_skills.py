"""The test of skills: what its items are like, how they are scored, and the names in written texts."""

import csv
import json
import random
import re
from functools import cache, partial

import evaluate_model
import pytest
import torch
from programs import ROOT, outcome
from scoring import measures
from scoring.samples import written_scores
from scoring.skill_items import ITEMS_PER_SKILL, SEEDS, SKILLS, items_of
from scoring.skill_words import TEMPLATES
from scoring.skills import ALL, answers, log_probabilities, skill_scores, wilson_interval
from tiny import assert_same, both, make_model

from common.errors import UserError
from common.weights_files import save_model
from data import train_tokenizer
from model import ModelConfig, Transformer

SETS = {name: items_of(name) for name in SEEDS}
ITEMS = SETS["public"]
EVERY_SET = [item for items in SETS.values() for item in items]
NEXT_TO_EACH_OTHER = {"agreement", "a_an", "counting"}  # the word before is what decides
WITH_TWO_CANDIDATES = ("hero_name", "who_has", "where", "colours")  # in the context, at least in some templates


def words(text):
    return re.findall(r"\w+|[^\w\s]", text)


def shares(score, items=ITEMS):
    """Return {skill: share of right answers} of a scorer of single texts."""
    scores = skill_scores(answers(items, lambda texts: [score(text) for text in texts]))
    return {skill: value["share"] for skill, value in scores.items()}


@cache
def random_number(*key):
    """Return a number that depends on the key only."""
    return random.Random(repr(key)).gauss(0, 1)


# The items ------------------------------------------------------------------------------------------------------------


def test_the_items_are_always_the_same():
    assert items_of("public") == ITEMS
    assert items_of("second") == SETS["second"]


def test_each_set_has_100_items_of_each_skill_and_no_item_twice():
    for items in SETS.values():
        assert len(set(items)) == len(items)
        for skill in SKILLS:
            assert sum(item.skill == skill for item in items) == ITEMS_PER_SKILL == 100
    assert len(SKILLS) >= 12


def test_no_item_of_the_public_set_is_in_the_second_one():
    assert not set(SETS["public"]) & set(SETS["second"])


def test_each_skill_has_at_least_five_templates_and_uses_all_of_them():
    assert TEMPLATES.keys() == SKILLS.keys()
    for templates in TEMPLATES.values():
        assert len(set(templates)) == len(templates) >= 5
        assert all(template.count("{wanted}") == 1 for template in templates)


@pytest.mark.parametrize("skill", SKILLS)
def test_right_and_wrong_differ_in_one_place_only(skill):
    """The place is at the beginning of the continuation: what follows it is in both texts."""
    for item in EVERY_SET:
        if item.skill != skill:
            continue
        right, wrong = words(item.right), words(item.wrong)
        assert right != wrong
        same = 0  # words at the end that are in both
        while same < min(len(right), len(wrong)) and right[-1 - same] == wrong[-1 - same]:
            same += 1
        assert same >= 1  # at least the full stop
        assert max(len(right), len(wrong)) - same <= 4
        assert abs(len(right) - len(wrong)) <= 1


def test_each_item_has_a_mirror_image_with_the_same_continuations_and_another_context():
    for items in SETS.values():
        for item, mirror in zip(items[::2], items[1::2], strict=True):
            assert (item.skill, item.right, item.wrong) == (mirror.skill, mirror.wrong, mirror.right)
            assert item.context != mirror.context


def test_texts_are_plain_and_fit_into_128_tokens_even_if_each_byte_is_one():
    for item in EVERY_SET:
        for text in (item.context + item.right, item.context + item.wrong):
            assert len(text.encode()) <= 127
            assert text.isascii() and text[-1] in '.!?"' and "{" not in text and "  " not in text
            assert text[0].isupper() or text[0] == '"' and text[1].isupper()
            assert text.count('"') % 2 == 0


def test_a_right_text_never_says_a_before_a_vowel():
    for item in EVERY_SET:
        text = item.context + item.right
        assert not re.search(r"\b[Aa] [aeiou]", text) and not re.search(r"\b[Aa]n [^aeiou]", text), text


def test_the_page_shows_two_items_of_the_public_set_for_each_skill():
    page = (ROOT / "docs/skills.md").read_text(encoding="utf-8").split("## The skills")[1]
    texts = {(item.context + item.right, item.context + item.wrong): item.skill for item in ITEMS}
    shown = []
    for before, right, wrong, after in re.findall(r"^    (.*)\[(.*)\|(.*)\](.*)$", page, re.MULTILINE):
        shown.append(texts[before + right + after, before + wrong + after])
    assert shown == [skill for skill in SKILLS for _ in range(2)]
    for name, skill in SKILLS.items():
        assert f"**{skill.label}** (`{name}`): {skill.meaning}." in page


# Whoever ignores the context is right half of the time ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_word_frequencies_alone_give_exactly_half(seed):
    for items in SETS.values():
        assert set(shares(lambda text: sum(random_number(seed, word) for word in words(text)), items).values()) == {0.5}


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_words_alone_give_exactly_half_unless_the_word_before_decides(seed):
    def score(text):
        found = words(text)
        return sum(random_number(seed, *pair) for pair in zip(found, found[1:], strict=False))

    result = shares(score)
    for skill in SKILLS:
        if skill not in NEXT_TO_EACH_OTHER:
            assert result[skill] == 0.5, skill


def test_always_taking_the_candidate_that_was_named_last_gives_exactly_half():
    for items in SETS.values():
        for skill in WITH_TWO_CANDIDATES:
            is_last = []
            for item in items:
                right, wrong = (place_of(item.context, text, other) for text, other in candidates(item))
                if item.skill == skill and right >= 0 and wrong >= 0:
                    is_last.append(right > wrong)
            assert len(is_last) >= 30 and sum(is_last) == len(is_last) / 2, skill


def candidates(item):
    return (item.right, item.wrong), (item.wrong, item.right)


def place_of(context, continuation, other):
    """Return where the beginning of a continuation, up to what it shares with the other, was named last; or -1."""
    right, wrong = continuation.split(), other.split()
    same = 0
    while same < min(len(right), len(wrong)) and right[-1 - same] == wrong[-1 - same]:
        same += 1
    candidate = " ".join(right[: len(right) - same]).rstrip('.!?"')
    found = list(re.finditer(rf"\b{candidate}\b", context))
    return found[-1].start() if found else -1


def test_a_model_that_knows_gets_everything_right():
    known = {item.context + item.right for item in ITEMS}
    assert set(shares(lambda text: float(text in known)).values()) == {1.0}
    assert set(shares(lambda text: -float(text in known)).values()) == {0.0}
    assert set(shares(lambda text: 0.0).values()) == {0.0}  # who cannot tell them apart knows nothing


# The scores -----------------------------------------------------------------------------------------------------------


def test_the_interval_has_known_values():
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert wilson_interval(1, 2) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_the_scores_count_the_right_answers_of_each_skill_and_of_all():
    rows = [{"skill": "a", "passed": passed} for passed in (True, True, False, True)]
    rows += [{"skill": "b", "passed": False}]
    scores = skill_scores(rows)
    assert [*scores] == ["a", "b", ALL]
    assert (scores["a"]["right"], scores["a"]["total"], scores["a"]["share"]) == (3, 4, 0.75)
    assert (scores["a"]["low"], scores["a"]["high"]) == wilson_interval(3, 4)
    assert (scores[ALL]["right"], scores[ALL]["total"]) == (3, 5)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([item.context + item.right for item in ITEMS[:400]], 400)


@both
def test_the_log_probability_of_a_text_is_the_sum_over_its_tokens(tokenizer, arch):
    model = make_model(arch, vocab_size=tokenizer.vocab_size, max_seq_len=128)
    texts = [item.context + item.right for item in ITEMS[::40]]  # 43 of different lengths: more than one batch
    scores = log_probabilities(model, tokenizer, texts)
    for text, score in zip(texts, scores, strict=True):
        ids = torch.tensor([[tokenizer.special["<bos>"], *tokenizer.encode(text)]])
        with torch.no_grad():
            log_probs = model(ids[:, :-1]).log_softmax(-1)[0]
        expected = log_probs[range(len(log_probs)), ids[0, 1:]].sum()
        assert_same(torch.tensor(score), expected)


def test_dropout_is_off_while_a_model_is_tested(tokenizer):
    model = make_model(vocab_size=tokenizer.vocab_size, max_seq_len=128, dropout=0.5).train()
    texts = [ITEMS[0].context + ITEMS[0].right]
    assert log_probabilities(model, tokenizer, texts) == log_probabilities(model, tokenizer, texts)


def test_a_context_that_is_too_short_is_named(tokenizer):
    model = make_model(vocab_size=tokenizer.vocab_size, max_seq_len=8)
    with pytest.raises(UserError, match="--max_seq_len 8") as caught:
        answers(ITEMS, partial(log_probabilities, model, tokenizer))
    assert "\n" not in str(caught.value)


# The program ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, tokenizer, monkeypatch, capsys):
    """Return a function that runs evaluate_model.py with flags and returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    tokenizer.save(tmp_path / "bpe_tokenizer_tinystories.pkl")
    torch.manual_seed(0)
    shape = {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24}
    for name, length in (("tiny.pth", 128), ("short.pth", 8)):
        model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=length, **shape))
        save_model(tmp_path / name, model, tokenizer.fingerprint, 1, 5.0, "run")
    (tmp_path / "samples.jsonl").write_text('{"text": "A cat ran."}\n')

    more = ["--cache_dir", "cache", "--device", "cpu"]
    return lambda *flags: outcome(evaluate_model, [*flags, *more], monkeypatch, capsys)


def test_a_model_s_skills_are_in_the_table_the_json_and_the_csv(run, tmp_path):
    status, out, err = run("tiny.pth", "samples.jsonl", "--skills", "--output", "s.json", "--csv", "s.csv")
    assert status == 0, err
    assert "chance is 50%" in out and "all skills" in out
    assert all(skill.label in out for skill in SKILLS.values())
    assert all(len(line) <= 80 for line in out.splitlines())
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["about"]["skills"] == "public" and content["skills"].keys() == SKILLS.keys()
    tested, samples = content["models"]
    assert "skills" not in samples
    assert [row["context"] for row in tested["answers"]] == [item.context for item in ITEMS]
    for row in tested["answers"]:
        assert row["passed"] == (row["log_probability_of_right"] > row["log_probability_of_wrong"])
    assert tested["skills"] == skill_scores(tested["answers"])
    for score in tested["skills"].values():
        assert 0 < score["low"] < score["share"] < score["high"] < 1
        assert 0.25 < score["share"] < 0.75  # the model is untrained
    rows = {row[0]: row[1:] for row in csv.reader((tmp_path / "s.csv").read_text().splitlines())}
    for skill, score in tested["skills"].items():
        assert rows[f"skill_{skill}"] == [str(score["share"]), ""]
        assert rows[f"skill_{skill}_low"] == [str(score["low"]), ""]
        assert rows[f"skill_{skill}_high"] == [str(score["high"]), ""]


def test_the_second_set_has_other_items(run, tmp_path):
    status, _, err = run("tiny.pth", "--skills", "second", "--output", "s.json")
    assert status == 0, err
    content = json.loads((tmp_path / "s.json").read_text())
    contexts = [row["context"] for row in content["models"][0]["answers"]]
    assert content["about"]["skills"] == "second" and contexts == [item.context for item in SETS["second"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["samples.jsonl", "--skills"], "--skills is for model files"),
        (["tiny.pth"], "nothing to score model files on; pass --dataset, --prompts_file or --skills"),
        (["short.pth", "--skills"], "--max_seq_len 8"),
        (["tiny.pth", "--skills", "third"], "--skills"),
    ],
)
def test_a_test_that_cannot_be_taken_is_refused_in_one_line(run, flags, message):
    status, out, err = run(*flags)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and message in errors[0] and not out


def test_a_model_writes_without_dropout_after_it_was_tested(run, tmp_path, monkeypatch):
    modes = []

    def ready_to_write(model, rows):
        modes.append(model.training)
        return model

    monkeypatch.setattr(evaluate_model, "ready_to_write", ready_to_write)
    (tmp_path / "prompts.txt").write_text("Once\n")
    status, _, err = run("tiny.pth", "--skills", "--prompts_file", "prompts.txt", "--max_new_tokens", "2")
    assert status == 0 and modes == [False], err


# Names in written texts -----------------------------------------------------------------------------------------------


def test_names_have_capitals_inside_sentences():
    texts = ['One day, Tim met Lily. Then they ran. "Mom, look!" said Tim.', "He saw the Sun. The sun was in the sun."]
    assert measures.names_in(texts) == {"Tim", "Lily"}
    assert measures.names_in(["I saw Mom and Grandma on Monday. Big Ben was Big."]) == {"Ben", "Big"}
    assert measures.names_in([]) == set()


def test_the_hero_is_the_first_who_is_named():
    assert measures.hero_of("There was a boy named Tim. He had a dog named Max.") == "Tim"
    assert measures.hero_of("Once upon a time") is None


def test_a_hero_stays_if_no_other_name_comes_more_often():
    names = {"Tim", "Sue"}
    assert measures.hero_stays("Tim", names, "Tim's dog ran. Sue saw it.")
    assert measures.hero_stays("Tim", set(), "Tim ran.")  # a hero is a name, whatever the texts say
    assert not measures.hero_stays("Tim", names, "Tim ran to Sue. Sue smiled.")
    assert not measures.hero_stays("Tim", names, "He was happy. Timothy was a bear.")


def test_name_consistency_counts_only_prompts_with_a_named_hero():
    prompt = "Once there was a boy named Tim."
    rows = [
        {"prompt": prompt, "text": "One day, Tim ran."},
        {"prompt": prompt, "text": "One day, Sue ran. Then Sue and Tim ran."},
        {"prompt": "Once", "text": "He ran."},
        {"prompt": ["Tell me about a boy named Tim."], "text": "Then Tim sang."},
    ]
    scores = written_scores(rows)
    assert scores["hero_prompts"] == 3 and scores["name_consistency"] == 2 / 3
    scores = written_scores([{"text": "A cat."}])
    assert scores["hero_prompts"] is None and scores["name_consistency"] is None
