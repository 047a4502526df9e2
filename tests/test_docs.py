"""What helps a student: --help, and the pages in docs/ that name commands and messages."""

import importlib
import re

import pytest

PROGRAMS = {
    "train_bpe_tokenizer_hf": "dataset sample vocab_size output",
    "train_tinystories_model": "dataset num_layers hidden_size num_heads max_seq_len batch_size epochs lr amp output_dir "
    "pilot_run",
    "generate_tinystories_text": "prompt model_path max_new_tokens temperature top_k top_p",
    "train_tinystories_chat_model": "pretrained_model_path dataset batch_size epochs lr amp output_dir pilot_run",
    "chat_with_tinystories_model": "once model_path max_new_tokens temperature",
}
SCREEN = 50  # lines, at 120 columns


def help_of(program, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.argv", [f"{program}.py"])
    with pytest.raises(SystemExit):
        importlib.import_module(program).parse_args(["--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_fits_two_screens(program, monkeypatch, capsys):
    lines = help_of(program, monkeypatch, capsys).splitlines()
    assert len(lines) <= 2 * SCREEN and max(map(len, lines)) <= 120


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_lists_the_handouts_flags_before_all_groups_and_every_flag_with_its_meaning(program, monkeypatch, capsys):
    _, first, *groups = re.split(r"^(?=\S.*:$)", help_of(program, monkeypatch, capsys), flags=re.MULTILINE)
    assert {f"--{name}" for name in PROGRAMS[program].split()} <= {*re.findall(r"^  (--\w+)", first, re.MULTILINE)}
    assert groups
    for part in (first, *groups):
        for flag in re.split(r"^  (?=-)", part, flags=re.MULTILINE)[1:]:
            assert re.search(r"\s{2,}\w", flag), flag
