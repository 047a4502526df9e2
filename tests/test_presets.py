"""Presets, --config and --max_steps: where a run gets its flags, and that each preset's network learns."""

import contextlib
import json
import math
import sys
from argparse import Namespace

import pytest
import torch
from grading.edited_records import command_and_args
from grading.facts import differences, flags_typed
from grading.logs import Log
from grading.submissions import Submission
from programs import ROOT, TINY, run, write_data
from refusals import one_line
from tiny_runs import LATEST, assert_equal_weights, interrupt, make_rows, metrics, train_in, weights

import train_tinystories_chat_model as step4
import train_tinystories_model as step2
from common.devices import Precision
from common.errors import UserError, reason_of
from common.flags import settings_from
from corpus.sources import open_dataset
from corpus.token_cache import cache_stories
from data import Rows, load_tokenizer
from model import GPU_ROWS, ModelConfig, Transformer
from training.optimizer import learning_rate, make_optimizers
from training.presets import PRESETS, config_of, flags_of, parameters_of
from training.settings import TrainingSettings, seed_everything
from training.step import micro_batches, training_step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Return a folder with data, a tokenizer and a run of step 2."""
    folder = tmp_path_factory.mktemp("course")
    write_data(folder)
    run(folder, "train_bpe_tokenizer_hf", "--dataset", "stories", "--vocab_size", 400)
    flags = ["--dataset", "stories", "--cache_dir", "cache", "--lr", "0.002", "--no-amp", "--max_steps", 3]
    main(folder, *TINY, *flags, "--preset", "baby_cpu", "--pilot_run")
    return folder


def main(folder, *words):
    """Run step 2 as if these words were typed in a folder."""
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr(sys, "argv", ["train_tinystories_model.py", *map(str, words)])
        step2.main()


def file_of(folder, content):
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


# The table ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "vocab_size", "in_layers", "in_all"),
    [
        ("1M", 10_000, 0.4, 1.1), ("8M", 10_000, 6.3, 8.9), ("28M", 10_000, 25, 30.5), ("cs336", 10_000, 12.5, 22.7),
        ("gpt2", 50_257, 85, 124), ("course", 10_000, 4.2, 6.8),
    ],
)  # fmt: skip
def test_a_preset_has_the_published_number_of_parameters(name, vocab_size, in_layers, in_all):
    for found, known in zip(parameters_of(name, vocab_size), (in_layers, in_all), strict=True):
        assert round(found / 1e6, 0 if isinstance(known, int) else 1) == known


def test_the_list_has_every_preset_and_its_source(tmp_path, capsys):
    main(tmp_path, "--preset", "list")
    assert not [*tmp_path.iterdir()]
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == {"preset", *PRESETS}
    for name, (source, _) in PRESETS.items():
        assert lines[name].endswith(source)
    for part in ("12.5 M", "22.7 M", "4 x 512, 16", "256", "1e-03", "20,000 steps"):
        assert part in lines["cs336"]
    assert "12 x 40" in lines["gpt2"] and "124.4 M" in lines["gpt2"] and "5 epochs" in lines["course"]
    assert "min_lr of 5e-4 is above its lr; here it is 1e-5" in lines["slm"]


def test_every_preset_uses_existing_flags():
    args = vars(step2.parse_args([]))
    for name in PRESETS:
        assert flags_of(name).keys() <= args.keys()
        for key, value in flags_of(name).items():
            assert vars(step2.parse_args(["--preset", name]))[key] == value


def test_course_is_the_default_and_changes_nothing():
    assert step2.parse_args([]).preset == "course"
    assert step2.parse_args([]) == step2.parse_args(["--preset", "course"])
    args = step2.parse_args([])
    assert settings_from(args, TrainingSettings) == TrainingSettings()
    args.vocab_size = 99
    assert settings_from(args, ModelConfig) == ModelConfig(99)


# Which flag wins ------------------------------------------------------------------------------------------------------


def test_the_shell_wins_over_the_file_the_preset_the_pilot_and_the_default(tmp_path):
    config = ["--config", file_of(tmp_path, {"weight_decay": 0.3, "min_lr": 0.0001, "logging_steps": 7})]
    pilot, preset = ["--pilot_run"], ["--preset", "28M"]
    shell = ["--min_lr", "0.0002"]
    names = ("eval_steps", "logging_steps", "lr", "weight_decay", "min_lr")
    of = lambda *flags: tuple(getattr(step2.parse_args([*flags]), name) for name in names)
    assert of() == (None, 100, 1e-3, 0.1, 0.0)
    assert of(*pilot) == (400, 50, 0.018, 0.1, 0.0)
    assert of(*pilot, *preset) == (400, 50, 1e-3, 0.0, 1e-3)
    assert of(*pilot, *preset, *config) == (400, 7, 1e-3, 0.3, 1e-4)
    assert of(*pilot, *preset, *config, *shell) == (400, 7, 1e-3, 0.3, 2e-4)
    assert of(*shell, *config, *preset, *pilot) == (400, 7, 1e-3, 0.3, 2e-4)


@pytest.mark.parametrize(
    ("flags", "content", "epochs", "steps"),
    [
        ("", {}, 5, None),
        ("--max_steps 9", {}, None, 9),
        ("--max_steps 9 --epochs 2", {}, 2, 9),
        ("--preset baby_cpu", {}, None, 5000),
        ("--preset baby_cpu --epochs 2", {}, 2, None),
        ("--preset 8M --max_steps 9", {}, None, 9),
        ("--pilot_run --max_steps 9", {}, None, 9),
        ("--pilot_run --preset baby_cpu", {}, 3, 5000),  # a pilot run keeps its 3 epochs with any preset
        ("--preset baby_cpu", {"epochs": 2, "max_steps": None}, 2, None),
        ("--preset 8M", {"epochs": None, "max_steps": 7}, None, 7),
        ("", {"epochs": 2, "max_steps": 7}, 2, 7),
        ("--epochs 5", {"max_steps": 7}, 5, None),
    ],
)
def test_which_flag_sets_the_length_of_a_run(tmp_path, flags, content, epochs, steps):
    args = step2.parse_args([*flags.split(), "--config", file_of(tmp_path, content)])
    assert (args.epochs, args.max_steps) == (epochs, steps)


def test_a_config_may_contain_a_preset_and_a_pilot_run(tmp_path):
    config = ["--config", file_of(tmp_path, {"preset": "8M", "pilot_run": True})]
    args = step2.parse_args(config)
    assert (args.preset, args.pilot_run, args.hidden_size, args.num_layers) == ("8M", True, 256, 8)
    assert args.max_train_samples == step2.PILOT["max_train_samples"]
    assert step2.parse_args([*config, "--preset", "1M"]).hidden_size == 64


# --config -------------------------------------------------------------------------------------------------------------


def test_a_run_s_args_json_gives_the_same_flags_except_its_folders_and_device(course):
    path = course / "tinystories_model/args.json"
    before, usual = json.loads(path.read_text()), vars(step2.parse_args([]))
    assert before["preset"] == "baby_cpu" and before["pilot_run"] and before["max_steps"] == 3
    after = vars(step2.parse_args(["--config", str(path)]))
    own = {"output_dir", "overwrite", "resume_from_checkpoint", "pilot_run", "device", "cache_dir", "config"}
    assert {name: after[name] for name in own - {"config"}} == {name: usual[name] for name in own - {"config"}}
    assert {name: after[name] for name in after.keys() - own} == {name: before[name] for name in after.keys() - own}
    assert before.keys() - after.keys() == {"program"}


def test_a_run_with_the_args_json_of_another_run_ends_with_the_same_weights(course, tmp_path, capsys):
    main(course, "--config", "tinystories_model/args.json", "--output_dir", tmp_path, "--cache_dir", "cache")
    said = capsys.readouterr().err
    assert "3 steps of 8 rows" in said and "preset baby_cpu, from tiny_stories" in said and "--dropout 0.2" in said
    folders = (course / "tinystories_model", tmp_path)
    assert_equal_weights(*(weights(folder / "final_model.pth") for folder in folders))


def test_a_data_set_at_the_shell_replaces_those_in_the_file(tmp_path):
    config = ["--config", file_of(tmp_path, {"dataset": ["one=0.5", "two=0.5"]})]
    assert step2.parse_args(config).dataset == ["one=0.5", "two=0.5"]
    assert step2.parse_args([*config, "--dataset", "three"]).dataset == ["three"]


def test_a_hand_written_config_may_name_the_folder_and_the_model(tmp_path):
    content = {"output_dir": "mine", "pretrained_model_path": "a.pth", "amp": False, "lora_rank": 4, "wandb": True}
    args = step4.parse_args(["--config", file_of(tmp_path, content)])
    assert (args.output_dir, args.pretrained_model_path, args.amp, args.wandb) == ("mine", "a.pth", False, True)
    assert args.lr == step4.LEARNING_RATE
    assert step4.parse_args(["--config", file_of(tmp_path, content | {"lr": 1e-3})]).lr == 1e-3
    with pytest.raises(UserError, match="--pretrained_model_path is missing"):
        step4.parse_args([])


def test_adapters_keep_their_learning_rate_in_a_pilot_run():
    flags = ["--pretrained_model_path", "a.pth", "--pilot_run"]
    assert step4.parse_args(flags).lr == step4.PILOT["lr"]
    assert step4.parse_args([*flags, "--lora_rank", "4"]).lr == step4.LEARNING_RATE
    assert step4.parse_args([*flags, "--lora_rank", "4", "--lr", "0.001"]).lr == 0.001


def test_a_flag_of_an_older_version_is_skipped_if_it_had_no_effect(tmp_path):
    content = {"program": "train_tinystories_chat_model.py", "pretrained_model_path": "a.pth", "epochs": 2}
    args = step4.parse_args(["--config", file_of(tmp_path, content | {"swap_words": 0.0})])
    assert args.epochs == 2 and "swap_words" not in args
    with pytest.raises(UserError, match="no flag swap_words") as refusal:
        step4.parse_args(["--config", file_of(tmp_path, content | {"swap_words": 0.8})])
    one_line(refusal)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"learning_rat": 1}, "no flag learning_rat; --help"), ({"bach_size": 1}, "did you mean batch_size?"),
        ({"config": "b.json"}, "no flag config"), ({"help": True}, "no flag help"), ({"vocab_size": 9}, "vocab_size"),
        ({"lr": "fast"}, "invalid float value"), ({"epochs": 2.5}, "invalid int value"),
        ({"lr": [1]}, "[1] is not a valid value for lr"),
        ({"scheduler": "steps"}, "invalid choice"), ({"batch_size": True}, "true is not a valid value for batch_size"),
        ({"amp": "yes"}, "not a valid value for amp"), ({"dataset": []}, "not a valid value for dataset"),
        ({"dataset": [{}]}, "not a valid value for dataset"),
        ({"overwrite": True}, "only be given at the shell"), ({"resume_from_checkpoint": "auto"}, "only be given"),
        ({"preset": "9M"}, "invalid choice"), ([1], "no JSON object"), ("{", "is not JSON"), ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"), ('{"lr\\n\\u001b[2J": 1}', "no flag"),
    ],
)  # fmt: skip
def test_a_config_with_an_invalid_flag_or_value_is_refused_in_one_line(tmp_path, content, what):
    with pytest.raises(UserError, match="--config .*config.json") as refusal:
        step2.parse_args(["--config", file_of(tmp_path, content)])
    assert what in one_line(refusal)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_config_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    """Editors on Windows write one in UTF-8, PowerShell's > in UTF-16."""
    path = tmp_path / "config.json"
    path.write_bytes('{"lr": 0.002, "output_dir": "é"}\n'.encode(encoding))
    args = step2.parse_args(["--config", str(path)])
    assert (args.lr, args.output_dir) == (0.002, "é")


def test_the_reason_why_a_file_is_not_json_is_complete_or_truncated_after_a_word(tmp_path):
    with pytest.raises(UserError) as refusal:
        step2.parse_args(["--config", file_of(tmp_path, "{lr: 1}")])
    assert "(Expecting property name enclosed in double quotes: line 1 column 2 (char 1))" in one_line(refusal)
    assert reason_of(ValueError("one two three four"), 13) == "one two..."
    assert reason_of(ValueError("one two three"), 13) == "one two three"


def test_a_missing_config_or_one_of_another_program_is_refused_in_one_line(course, tmp_path):
    with pytest.raises(UserError, match="No such file") as refusal:
        step2.parse_args(["--config", str(tmp_path / "none.json")])
    assert one_line(refusal)
    with pytest.raises(UserError, match="the file was written by train_tinystories_model.py") as refusal:
        step4.parse_args(["--config", str(course / "tinystories_model/args.json")])
    assert one_line(refusal)


# Grading of submitted runs --------------------------------------------------------------------------------------------


def handed_in(*words, command=None):
    args = vars(step2.parse_args(words)) | {"program": "train_tinystories_model.py"}
    log = Log(command=f"python train_tinystories_model.py {command}") if command else Log()
    return Submission(args=args, log=log)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "nothing"), *((flags, flags) for flags in ("--preset 8M", "--preset baby_cpu --epochs 2")),
        ("--preset baby_cpu --lr 0.5", "--preset baby_cpu --lr 0.5"), ("--max_steps 9", "--max_steps 9"),
        ("--minutes 9", "--minutes 9"), ("--no-tie_embeddings --amp", "--no-tie_embeddings --amp"),
    ],
)  # fmt: skip
def test_differences_are_relative_to_the_preset(flags, said):
    assert differences(handed_in(*flags.split())) == said


@pytest.mark.parametrize("preset", ["9M", ["8M"], None, "list"])
def test_an_invented_preset_is_ignored(preset):
    run = handed_in("--lr", "0.5")
    run.args["preset"] = preset
    assert differences(run) == "--lr 0.5"
    run.args["preset"], run.args["program"] = "8M", "train_tinystories_chat_model.py"
    assert "--preset" not in differences(run)  # the chat trainer has no presets


@pytest.mark.parametrize("words", ["--config FILE", "--config=FILE", "--lr 0.1 --config FILE"])
def test_a_file_named_in_a_submitted_log_is_not_opened(tmp_path, words):
    run = handed_in(command=words.replace("FILE", file_of(tmp_path, {"lr": 0.5})))
    assert flags_typed(run) is None and list(command_and_args(run)) == []
    typed = handed_in("--preset", "8M", command="--preset 8M")
    assert list(command_and_args(typed)) == []
    lied = handed_in("--preset", "28M", command="--preset 8M")
    assert "--preset is 28M in args.json but 8M" in next(command_and_args(lied)).text


# --max_steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "epochs", "taken"), [(3, None, 3), (15, None, 15), (3, 2, 3), (99, 2, None)])
def test_a_run_takes_exactly_max_steps_unless_its_epochs_end_before(tmp_path, steps, epochs, taken):
    rows = make_rows()
    taken = taken or math.ceil(2 * rows.per_epoch / 4)
    summary = train_in(tmp_path, rows, max_steps=steps, epochs=epochs, eval_steps=1000)
    assert summary["step"] == metrics(tmp_path, "run")[0]["total_steps"] == taken
    assert summary["epoch"] == pytest.approx(min(taken * 4 / rows.per_epoch, epochs or math.inf), abs=1e-3)
    settings = TrainingSettings(max_steps=steps, lr=1e-2)
    rates = [learning_rate(step, taken, settings) for step in range(taken)]
    assert [row["lr"] for row in metrics(tmp_path, "train")] == pytest.approx(rates)
    if not epochs:  # however many epochs there are
        assert [row["step"] for row in metrics(tmp_path, "eval")] == [taken]


def test_an_interrupted_run_of_max_steps_ends_with_the_same_weights(tmp_path):
    settings = {"max_steps": 15, "epochs": None}
    train_in(tmp_path / "whole", **settings)
    interrupt(tmp_path / "parts", 8, **settings)
    train_in(tmp_path / "parts", flags=LATEST, **settings)
    assert_equal_weights(*(weights(tmp_path / name / "final_model.pth") for name in ("whole", "parts")))


def test_more_steps_stretch_the_schedule_and_fewer_than_done_are_refused(tmp_path, capsys):
    train_in(tmp_path, max_steps=6, epochs=None)
    train_in(tmp_path, flags=LATEST, max_steps=8, epochs=None)
    assert "--max_steps 8: the learning-rate schedule now covers the new length" in capsys.readouterr().err
    rate = learning_rate(7, 8, TrainingSettings(max_steps=8, lr=1e-2))
    last = metrics(tmp_path, "train")[-1]
    assert (last["step"], last["lr"]) == (8, pytest.approx(rate))
    too_few = "--epochs 9 --max_steps 4 gives 4 steps, but .* is already at step 8; pass more"
    with pytest.raises(UserError, match=too_few):
        train_in(tmp_path, flags=LATEST, max_steps=4, epochs=9)


def test_a_run_must_have_a_length():
    with pytest.raises(UserError, match="--epochs, --max_steps and --minutes"):
        TrainingSettings(epochs=None)
    with pytest.raises(UserError, match="--max_steps must be at least 1, not 0"):
        TrainingSettings(max_steps=0)


# Each preset learns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_two_steps_of_each_preset_lower_the_loss(course, name):
    """The network and its context are those of the preset; only the batch is small."""
    args = step2.parse_args(["--preset", name, "--batch_size", "1", "--gradient_accumulation_steps", "1"])
    tokenizer = load_tokenizer(course / "bpe_tokenizer_tinystories.pkl")
    args.vocab_size = tokenizer.vocab_size
    settings, config = settings_from(args, TrainingSettings), settings_from(args, ModelConfig)
    split = open_dataset(str(course / "stories"))["train"]
    cache = cache_stories(split, tokenizer, course / "cache", limit=2)
    rows = Rows(cache, config.max_seq_len, tokenizer.special)
    seed_everything(settings.seed)
    model = Transformer(config).train()
    optimizers, precision, losses = make_optimizers(model, settings), Precision(CPU), []
    batches = micro_batches(rows, 0, settings, CPU)
    for _ in range(2):
        loss, tokens, *_ = training_step(model, optimizers, precision, batches, settings)
        losses.append(float(loss / tokens))
    assert losses[0] == pytest.approx(math.log(config.vocab_size), abs=0.5) and losses[1] < losses[0]


# docs/models.md -------------------------------------------------------------------------------------------------------

CARDS = {"T4": 16.1e9, "L4": 24.1e9}  # bytes
SHARE = 0.8  # of a card's memory that a run may use
EPOCH = 475e6  # tokens of TinyStories with step 1's vocabulary, as docs/performance.md counts them


def memory(config, in_all):
    """Return (fixed bytes, bytes per row) of training in half precision, by the formula in docs/models.md."""
    hidden, feed_forward, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    layer = 20 * hidden + (4 if config.mlp == "gelu" else 8) * feed_forward + 2 * hidden * (config.dropout > 0)
    layer += 4 * hidden * (config.positions == "rotary") + 8 * hidden * (config.norm == "rms")
    row = config.max_seq_len * (config.num_layers * layer + 18 * hidden)
    return 18 * in_all + 6 * vocabulary * hidden + 8 * GPU_ROWS * vocabulary, row


def computed_row(name, vocab_size=10_000):
    """Compute a preset's row of the table in docs/models.md."""
    config, settings = config_of(name, vocab_size), settings_from(Namespace(**flags_of(name)), TrainingSettings)
    fixed, row = memory(config, parameters_of(name, vocab_size)[1])
    rows, pairs = settings.rows_per_step, []
    for card, count in (("T4", 1), ("L4", 1), ("T4", 2)):
        most = (SHARE * CARDS[card] - fixed) // row
        size = max(n for n in range(count, rows + 1, count) if rows % n == 0 and n // count <= most)
        pairs.append(f"{size} x {rows // size}")
    tokens = (settings.max_steps or 0) * rows * config.max_seq_len or settings.epochs * EPOCH
    with torch.device("meta"):
        operations = tokens * Transformer(config).flops_per_token()
    own = f"{settings.batch_size} x {settings.gradient_accumulation_steps}"
    cells = [f"{fixed / 1e9:.2f}", f"{row / 1e6:.0f}", own, f"{(fixed + settings.batch_size * row) / 1e9:.1f}", *pairs]
    label = f"`{name}`" + (f", {vocab_size:,} tokens" if vocab_size != 10_000 else "")
    return f"| {label} | {' | '.join(cells)} | {tokens / 1e9:.2f} | {operations / 1e15:,.0f} |"


def test_the_numbers_in_the_table_follow_from_its_formula():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8").splitlines()
    for row in (*map(computed_row, PRESETS), computed_row("gpt2", 50_257)):
        assert row in page
