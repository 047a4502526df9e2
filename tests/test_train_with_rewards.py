"""Training with rewards, as a program: what it writes, that it resumes exactly, and what it refuses."""

import json
import shutil
import signal

import pytest
import torch
import train_with_rewards as step6
from graded import grade
from programs import main, outcome, write_rows
from refusals import error_of
from rewards import replies
from rewards.grpo import Grpo
from tiny_runs import assert_nothing_is_lost, assert_same_models, metrics, signal_at

import train_tinystories_chat_model as step4
from common.weights_files import load_model, save_model
from data import load_tokenizer
from model import Transformer

ANIMALS = ("cat", "dog", "frog", "bird", "cow")
MODEL = "tinystories_chat_model/best_model.pth"
LETTERS = """
def letters(prompt, reply):
    return reply.text.count("e") / 10

def constant(prompt, reply):
    return 1

def size(prompt, reply):
    return len(reply.text)
"""
SHORT = ["--max_new_tokens", 16, "--logging_steps", 1, "--eval_steps", 2]
COMMON = ["--pretrained_model_path", MODEL, "--dataset", "short.jsonl", "--cache_dir", "cache", *SHORT]
GRPO = [*COMMON, "--prompts_file", "prompts.jsonl", "--batch_size", 8, "--group_size", 4]
DPO = [*COMMON, "--method", "dpo", "--prompts_file", "prompts.jsonl", "--pairs_file", "pairs.jsonl", "--batch_size", 4]
MINE = ["--reward_file", "my.py:letters", "--reward", "ends=0.1"]
SIX = ["--max_steps", 6, "--save_steps", 3]


@pytest.fixture(scope="module")
def prepared(course, tmp_path_factory):
    """Return a folder with prompts, a reward function, and a chat model that has dropout and ends some replies."""
    folder = shutil.copytree(course, tmp_path_factory.mktemp("rewards") / "course")
    answers = ("A red hen.", "The tree.", "I see.", "No!", "We sleep.", "Yes, me.")
    rows = [{"question": f"A {ANIMALS[n % 5]} {n}?", "answer": answers[n % 6]} for n in range(60)]
    write_rows(folder / "short.jsonl", rows)
    flags = ["--dataset", "short.jsonl", "--cache_dir", "cache", "--epochs", 8, "--batch_size", 8, "--lr", 1e-2]
    main(step4, *flags, "--pretrained_model_path", MODEL, "--overwrite", folder=folder)
    rows = [{"prompt": f"A {ANIMALS[n % 5]} {n}?", "words": [ANIMALS[n % 5]]} for n in range(20)]
    write_rows(folder / "prompts.jsonl", rows)
    (folder / "my.py").write_text(LETTERS)
    model, content = load_model(folder / MODEL, dropout=0.5)
    save_model(folder / MODEL, model, content["tokenizer_fingerprint"])
    return folder


@pytest.fixture
def folder(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "course")


@pytest.fixture(autouse=True)
def close_runs(monkeypatch):
    """Close the records of a run that a signal ends: its process ends, but that of the tests does not."""
    train_job = step6.train

    def closing(job):
        try:
            return train_job(job)
        finally:
            job.run.close()

    monkeypatch.setattr(step6, "train", closing)


def train(folder, *flags, to="out"):
    main(step6, *flags, "--output_dir", to, folder=folder)
    return folder / to


# GRPO -----------------------------------------------------------------------------------------------------------------


def test_the_reward_of_the_replies_rises(folder):
    out = train(folder, *GRPO, "--reward_file", "my.py:letters", "--max_steps", 40, "--lr", 3e-3, "--eval_steps", 40)
    found = [row["reward"] for row in metrics(out, "train") if "reward" in row]
    assert sum(found[-5:]) > 1.3 * sum(found[:5])


def test_the_records_have_each_reward_and_the_measures_of_the_method(folder):
    out = train(folder, *GRPO, *MINE, "--max_steps", 4)
    rows = metrics(out, "train")
    assert {"reward", "reward_letters", "reward_ends", "reply_tokens", "equal_groups"} <= rows[0].keys()
    assert "kl" in rows[0] and "clipped" in rows[0] and "perplexity" not in rows[0]
    assert "reward" not in rows[1]  # the second step with the same replies
    for row in metrics(out, "eval"):
        assert row["reward"] == pytest.approx(row["reward_letters"] + 0.1 * row["reward_ends"])
    log = (out / "train.log").read_text()
    assert "prompts.jsonl: prompts for training: 18; set aside: the last 2" in log
    assert "rewards: ends x 0.1, letters x 1" in log
    summary = json.loads((out / "summary.json").read_text())
    best = max(metrics(out, "eval"), key=lambda row: row["reward"])
    assert (summary["best_step"], summary["best_reward"]) == (best["step"], best["reward"])
    assert torch.load(out / "best_model.pth")["step"] == best["step"]


def test_at_the_first_step_the_ratios_are_1_and_the_divergence_is_0(folder):
    out = train(folder, *GRPO, *MINE, "--max_steps", 2)
    first, second = metrics(out, "train")
    assert first["kl"] == first["clipped"] == 0
    assert second["kl"] > 0


def test_old_log_probabilities_are_those_of_the_training_forward(folder, monkeypatch):
    seen = []
    of_reference = Grpo.of_reference

    def checked(self, inputs, targets):
        (part,) = (part for part in self.parts if torch.equal(part.targets, targets))
        again = replies.log_probabilities(self.model, inputs, targets, self.precision, self.temperature)
        seen.append(torch.equal(part.old, again.detach()) and self.model.training)
        return of_reference(self, inputs, targets)

    monkeypatch.setattr(Grpo, "of_reference", checked)
    train(folder, *GRPO, *MINE, "--max_steps", 4)
    assert seen and all(seen)


def test_the_replies_to_learn_from_come_from_a_copy_with_the_newest_weights(folder, monkeypatch):
    seen = []
    ask = replies.Asker.ask

    def noted(self, *args):
        mine = self.writer.model.state_dict()
        newest = tasks[0].model.state_dict() if tasks else {}
        same = all(torch.equal(mine[name].float(), newest[name].to(mine[name].dtype).float()) for name in newest)
        seen.append(bool(newest) and same and self.writer.model is not tasks[0].model)
        return ask(self, *args)

    tasks = []
    write_replies = Grpo.write_replies
    monkeypatch.setattr(Grpo, "write_replies", lambda self, batch: tasks.append(self) or write_replies(self, batch))
    monkeypatch.setattr(replies.Asker, "ask", noted)
    train(folder, *GRPO, *MINE, "--max_steps", 4, "--lr", 1e-2, "--eval_steps", 100)
    assert seen and all(seen)
    assert all(weight.dtype == torch.float32 for weight in tasks[0].model.parameters())


def test_equal_rewards_change_nothing(folder):
    out = train(folder, *GRPO, "--reward_file", "my.py:constant", "--max_steps", 3)
    before = torch.load(folder / MODEL)["model"]
    after = torch.load(out / "final_model.pth")["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [row["equal_groups"] for row in metrics(out, "train") if "equal_groups" in row] == [1, 1]


def test_adapters_leave_everything_else_as_it_was(folder):
    out = train(folder, *GRPO, *MINE, "--max_steps", 4, "--lora_rank", 2)
    before = torch.load(folder / MODEL)["model"]
    after = torch.load(out / "final_model.pth")["model"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("blocks.") for name in changed)
    load_model(out / "best_model.pth", load_tokenizer(folder / "bpe_tokenizer_tinystories.pkl"))


def test_replies_are_shortened_to_fit_into_the_context(folder):
    flags = GRPO[:]
    at = flags.index("--max_new_tokens")
    out = train(folder, *flags[:at], *flags[at + 2 :], *MINE, "--max_steps", 1)
    (row,) = metrics(out, "run")
    assert 16 < row["fingerprints"]["max_new_tokens"] < 32  # the context


def test_a_pilot_run_has_few_steps(folder, monkeypatch):
    monkeypatch.setitem(step6.PILOT, "max_steps", 2)
    flags = [flag for flag in GRPO if flag not in SHORT]
    out = train(folder, *flags, "--pilot_run")
    assert json.loads((out / "summary.json").read_text())["step"] == 2


def without_times(folder):
    return [row | {"seconds": 0, "tokens_per_second": 0} for row in metrics(folder, "train", "eval")]


# Resume ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "more"), [(3, []), (4, []), (3, ["--lora_rank", 2])])
def test_a_resumed_run_of_grpo_ends_with_the_same_weights(folder, step, more):
    """Step 3 is between two steps with the same replies, step 4 is before new ones."""
    flags = [*GRPO, *MINE, *SIX, *more]
    train(folder, *flags, to="whole")
    with signal_at(step, signal.SIGTERM):
        train(folder, *flags, to="stopped")
    train(folder, *flags, "--resume_from_checkpoint", "latest", to="stopped")
    assert_nothing_is_lost(folder / "stopped", folder / "whole")
    assert without_times(folder / "stopped") == without_times(folder / "whole")


def test_a_resumed_run_of_dpo_ends_with_the_same_weights(folder):
    flags = [*DPO, *MINE, "--epochs", 2, "--save_steps", 2, "--logging_steps", 2]
    train(folder, *flags, to="whole")
    with signal_at(3, signal.SIGTERM):
        train(folder, *flags, to="stopped")
    train(folder, *flags, "--resume_from_checkpoint", "latest", to="stopped")
    assert_same_models(folder / "stopped", folder / "whole")
    assert without_times(folder / "stopped") == without_times(folder / "whole")


@pytest.mark.parametrize("change", [
    ["--kl", 0.5], ["--group_size", 2], ["--updates", 3], ["--temperature", 0.9], ["--reward", "sentences"],
    ["--lora_rank", 2, "--lr", 3e-4], ["--prompts_file", "others.jsonl"],
])  # fmt: skip
def test_a_run_does_not_resume_with_other_settings(folder, change):
    write_rows(folder / "others.jsonl", [{"prompt": f"You {n}?"} for n in range(20)])
    train(folder, *GRPO, *MINE, *SIX)
    again = [*GRPO, *MINE, *SIX, "--resume_from_checkpoint", "latest", *change, "--output_dir", "out"]
    message = error_lines(step6, again, folder)
    assert change[0] in message and "checkpoint-6.pth" in message


def test_a_run_does_not_resume_from_another_model_or_reward(folder):
    train(folder, *GRPO, *MINE, *SIX)
    again = [*GRPO, *MINE, *SIX, "--resume_from_checkpoint", "latest", "--output_dir", "out"]
    (folder / "my.py").write_text(LETTERS.replace("10", "20"))
    assert "--reward_file: not the data" in error_lines(step6, again, folder)
    (folder / "my.py").write_text(LETTERS)
    model, content = load_model(folder / MODEL, dropout=0.5)
    with torch.no_grad():
        model.tokens.weight[0, 0] += 1
    save_model(folder / MODEL, model, content["tokenizer_fingerprint"])
    assert "--pretrained_model_path: not the first model" in error_lines(step6, again, folder)


def test_the_flags_of_a_run_can_be_used_again(folder):
    train(folder, *GRPO, *MINE, "--max_steps", 2)
    main(step6, "--config", "out/args.json", "--output_dir", "again", folder=folder)
    assert_same_models(folder / "again", folder / "out")


def error_lines(program, words, folder):
    with pytest.raises(step6.UserError) as raised:
        main(program, *words, folder=folder)
    return str(raised.value)


# DPO ------------------------------------------------------------------------------------------------------------------


def test_pairs_are_made_once_and_the_better_reply_becomes_more_probable(folder, capsys):
    out = train(folder, *DPO, *MINE, "--epochs", 4, "--lr", 1e-3)
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert pairs and all(pair["chosen_reward"] > pair["rejected_reward"] for pair in pairs)
    assert len({pair["prompt"] for pair in pairs}) == len(pairs)
    rows = metrics(out, "train")
    assert rows[0]["train_loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] and rows[-1]["margin"] > 0
    before = (folder / "pairs.jsonl").read_bytes()
    capsys.readouterr()
    train(folder, *DPO, *MINE, "--epochs", 1, to="again")
    assert "pairs.jsonl exists: its pairs are used" in capsys.readouterr().err
    assert (folder / "pairs.jsonl").read_bytes() == before


def test_no_pair_of_a_set_aside_prompt_is_used(folder, capsys):
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    write_rows(folder / "pairs.jsonl", [row | {"chosen": "Yes.", "rejected": "No."} for row in rows])
    train(folder, *DPO, *MINE, "--epochs", 1)
    assert "because their prompts are set aside: 2" in capsys.readouterr().err


def test_pairs_have_no_empty_reply(folder, monkeypatch):
    finished = replies.Writer.finished

    def sometimes_empty(self, ids):
        written = finished(self, ids)
        written.text = written.text if len(ids) % 3 else " "
        return written

    monkeypatch.setattr(replies.Writer, "finished", sometimes_empty)
    train(folder, *DPO, "--reward_file", "my.py:size", "--epochs", 1)
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert pairs and all(pair["chosen"].strip() and pair["rejected"].strip() for pair in pairs)


def test_pairs_of_ones_own_need_no_prompts(folder):
    turn = [{"role": "assistant", "content": "A cat is here."}]
    rows = [{"prompt": f"Who is {n}?", "chosen": turn, "rejected": "No."} for n in range(12)]
    write_rows(folder / "mine.jsonl", rows)
    flags = [*COMMON, "--method", "dpo", "--pairs_file", "mine.jsonl", "--batch_size", 4, "--epochs", 2]
    out = train(folder, *flags)
    log = (out / "train.log").read_text()
    assert "mine.jsonl: prompts for training: 11; set aside: the last 1" in log
    assert "rewards: ends x 0.5, no_repeat x 0.5" in log


# Grading --------------------------------------------------------------------------------------------------------------


def test_grading_reads_a_run_with_rewards(folder, tmp_path):
    out = train(folder, *GRPO, *MINE, "--max_steps", 6, "--lr", 3e-3, to="submissions/anna")
    train(folder, *DPO, *MINE, "--epochs", 1, to="submissions/ben")
    found = grade(folder / "submissions", "--chat_dataset", folder / "short.jsonl", "--verify", "--tokenizer_path",
                  folder / "bpe_tokenizer_tinystories.pkl", "--cache_dir", folder / "cache")  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    facts, problems, questions = found["anna"]
    assert facts["model"] == "rewards" and facts["state"] == "finished"
    assert facts["reward"] == pytest.approx(summary["best_reward"], abs=1e-3)
    assert facts["validation loss"] == pytest.approx(summary["best_val_loss"], abs=1e-4)
    assert problems == questions == []
    assert "--group_size 4" in facts["differs from the default flags"]
    facts, problems, questions = found["ben"]
    assert facts["model"] == "rewards" and problems == questions == []
    assert "--method dpo" in facts["differs from the default flags"]


@pytest.mark.parametrize("name", ["best_reward", "final_reward"])
def test_grading_finds_an_edited_reward_in_the_summary(folder, name):
    out = train(folder, *GRPO, *MINE, "--max_steps", 4, to="submissions/anna")
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(summary | {name: summary[name] + 1}))
    _, problems, _ = grade(folder / "submissions")["anna"]
    assert any(text.startswith(f"summary.json: {name} is") for text in problems)


def test_a_console_log_of_a_run_with_rewards_is_read(folder):
    train(folder, *GRPO, *MINE, "--max_steps", 4, to="out")
    (folder / "submissions").mkdir()
    shutil.copy(folder / "out/train.log", folder / "submissions/anna.log")
    facts, problems, _ = grade(folder / "submissions")["anna"]
    assert facts["model"] == "rewards" and facts["reward"] is not None and len(problems) == 1  # only a log


def test_grading_finds_an_edited_reward(folder):
    out = train(folder, *GRPO, *MINE, "--max_steps", 4, to="submissions/anna")
    path = out / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["event"] == "eval":
            row["reward"] += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, problems, _ = grade(folder / "submissions")["anna"]
    assert any(text.startswith("the reward at step 2 is") for text in problems)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "reason"), [
    (["--prompts_file", "p"], "--pretrained_model_path is missing"),
    (["--pretrained_model_path", "m"], "--prompts_file is missing"),
    (["--pretrained_model_path", "m", "--method", "dpo"], "--method dpo needs --pairs_file"),
    ([*GRPO, "--pairs_file", "p"], "--pairs_file is for --method dpo"),
    ([*GRPO, "--beta", 0.5], "--beta is for --method dpo, not for --method grpo"),
    ([*DPO, "--kl", 0.5], "--kl is for --method grpo, not for --method dpo"),
    ([*GRPO, "--group_size", 3], "a step of 8 replies"),
    ([*GRPO, "--group_size", 0], "--group_size must be at least 2"),
    ([*DPO, "--group_size", 1], "--group_size must be at least 2"),
    ([*GRPO, "--temperature", 0], "--temperature must be above 0"),
    ([*GRPO, "--lora_rank", -1], "--lora_rank must be 0 or more"),
    ([*GRPO, "--lora_rank", 2, "--optimizer", "muon"], "pass only one of them"),
])  # fmt: skip
def test_flags_that_make_no_sense_are_refused(flags, reason):
    assert reason in error_of(step6.parse_args, list(map(str, flags)))


@pytest.mark.parametrize(("rows", "flags", "reason"), [
    ([{"prompt": "Hello!"}], [], "has only one prompt"),
    ([{"prompt": "Hello!"}] * 2, ["--reward", "words"], 'no prompt has "words"'),
    ([{"prompt": "Hello!", "words": "cat"}] * 2, [], '"words" must be a list of texts'),
    ([{"prompt": "Tell me a long story. " * 9}] * 2, [], "not for --max_new_tokens 16; pass a smaller number"),
    ([{"prompt": "Hello!", "chosen": "Hi!", "rejected": "No."}] * 3, "dpo", "all its prompts are set aside"),
    ([{"prompt": f"{n}?", "chosen": "Hi!"} for n in range(3)], "dpo", 'no text as "rejected"'),
    ([{"prompt": f"{n}?", "chosen": "Hi! " * 90, "rejected": "No."} for n in range(3)], "dpo", "no pair fits"),
])  # fmt: skip
def test_prompts_that_cannot_be_used_are_refused(folder, monkeypatch, capsys, rows, flags, reason):
    write_rows(folder / "mine.jsonl", rows)
    monkeypatch.chdir(folder)
    source = ["--prompts_file", "mine.jsonl", *flags]
    if flags == "dpo":
        source = ["--method", "dpo", "--pairs_file", "mine.jsonl"]
    status, out, err = outcome(step6, [*COMMON, *source, "--batch_size", 8, "--group_size", 4], monkeypatch, capsys)
    last = err.splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and reason in last
    assert not (folder / "tinystories_reward_model").exists()


@pytest.mark.parametrize(("flags", "reason"), [
    (["--pairs_file", "no.jsonl"], "no file no.jsonl; to make it, pass --prompts_file too"),
    (["--pairs_file", "no.txt", "--prompts_file", "prompts.jsonl"], "--pairs_file no.txt must end in .jsonl"),
    (["--pairs_file", "no/p.jsonl", "--prompts_file", "prompts.jsonl"], "no/p.jsonl"),
])  # fmt: skip
def test_a_pairs_file_that_cannot_be_made_is_refused_at_once(folder, flags, reason):
    assert reason in error_lines(step6, [*COMMON, "--method", "dpo", *flags], folder)


def test_a_prompt_that_loses_words_is_counted(folder, capsys):
    rows = [{"prompt": "A cat and a dog, and a frog, and a bird? " * (1 + n)} for n in range(3)]
    write_rows(folder / "long.jsonl", rows)
    train(folder, *GRPO, *MINE, "--prompts_file", "long.jsonl", "--max_new_tokens", 8, "--max_steps", 1)
    printed = capsys.readouterr().err
    assert "prompts that do not fit the model's context, and lose their oldest turns or words: 3" in printed


def test_without_a_difference_between_the_replies_there_are_no_pairs(folder):
    message = error_lines(step6, [*DPO, "--reward_file", "my.py:constant"], folder)
    assert message.startswith("no pairs: for each prompt, all replies have the same reward")
    assert not (folder / "pairs.jsonl").exists()


def test_several_processes_are_refused(folder, monkeypatch):
    monkeypatch.setattr(step6, "start_run", lambda args, pilot: (type("Ranks", (), {"count": 2}), None, None, None))
    assert "start it without torchrun" in error_lines(step6, [*GRPO, *MINE], folder)


def test_the_network_in_training_has_no_dropout(folder, monkeypatch):
    rates = []
    hidden = Transformer.hidden

    def noted(self, *args, **options):
        rates.append(self.config.dropout)
        return hidden(self, *args, **options)

    monkeypatch.setattr(Transformer, "hidden", noted)
    train(folder, *GRPO, *MINE, "--max_steps", 1)
    assert set(rates) == {0.0}
