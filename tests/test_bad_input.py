"""Bad input at the shell: one clear line, and no file is written."""

import shutil

import numpy as np
import pytest
import torch
from programs import TINY, main, write_rows

import chat_with_tinystories_model as step5
import generate_tinystories_text as step3
import train_bpe_tokenizer_hf as step1
import train_tinystories_chat_model as step4
import train_tinystories_model as step2
from common.errors import UserError
from common.program import run_program


@pytest.fixture(scope="module")
def damaged(course, tmp_path_factory):
    """Return a course's folder with some broken files in it."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(course, folder, dirs_exist_ok=True)
    noise = np.random.default_rng(0)
    (folder / "empty.jsonl").write_text("")
    (folder / "latin1.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    write_rows(folder / "other.jsonl", [{"story": "A cat."}])
    (folder / "garbage.pth").write_bytes(noise.bytes(500))
    (folder / "cut.pth").write_bytes((folder / "tinystories_model/best_model.pth").read_bytes()[:-2000])
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pth")
    (folder / "garbage.pkl").write_bytes(noise.bytes(500))
    (folder / "file").write_text("")
    main(step1, "--dataset", "stories", "--vocab_size", 280, "--output", "second.pkl", folder=folder)
    return folder


BAD_INPUT = [
    (step1, ["--dataset", "none.jsonl"], "none.jsonl"),
    (step1, ["--dataset", "empty.jsonl"], "empty.jsonl"),
    (step1, ["--dataset", "other.jsonl"], "--text_column"),
    (step1, ["--dataset", "latin1.jsonl"], "line 2"),
    (step1, ["--dataset", "stories", "--output", "bpe_tokenizer_tinystories.pkl"], "--overwrite"),
    (step1, ["--dataset", "stories", "--output", "stories"], "stories"),
    (step1, ["--dataset", "stories", "--output", "file/t.pkl"], "--output"),
    (step1, ["--vocab_size", "100"], "--vocab_size"),
    (step2, ["--dataset", "none.jsonl"], "none.jsonl"),
    (step2, ["--dataset", "empty.jsonl"], "empty.jsonl"),
    (step2, ["--dataset", "other.jsonl"], "--text_column"),
    (step2, ["--dataset", "latin1.jsonl"], "line 2"),
    (step2, ["--dataset", "stories", "--num_heads", "7"], "--num_heads 7"),
    (step2, ["--dataset", "stories", "--tokenizer_path", "garbage.pkl"], "garbage.pkl"),
    (step2, ["--dataset", "stories", "--tokenizer_path", "none.pkl"], "none.pkl"),
    (step2, ["--dataset", "stories", "--output_dir", "tinystories_model"], "--overwrite"),
    (step2, ["--dataset", "stories", "--output_dir", "file"], "file"),
    (step2, ["--dataset", "stories", "--output_dir", "file/run"], "--output_dir"),
    (step2, ["--dataset", "stories", "--cache_dir", "file"], "--cache_dir"),
    (step2, ["--dataset", "stories", "--resume_from_checkpoint", "latest"], "no checkpoint"),
    (step2, ["--dataset", "stories", "--resume_from_checkpoint", "garbage.pth"], "garbage.pth"),
    (step2, ["--dataset", "stories", "--resume_from_checkpoint", "tinystories_model/best_model.pth"], "best_model.pth"),
    (step2, ["--dataset", "stories", "--device", "abacus"], "abacus"),
    (step2, ["--batch_size", "0"], "--batch_size"),
    (step2, ["--no_such_flag"], "--no_such_flag"),
    (step3, ["--model_path", "none.pth"], "none.pth"),
    (step3, ["--model_path", "garbage.pth"], "garbage.pth"),
    (step3, ["--model_path", "cut.pth"], "cut.pth"),
    (step3, ["--model_path", "foreign.pth"], "foreign.pth"),
    (step3, ["--prompt", "long " * 60], "context"),
    (step3, ["--temperature", "-1"], "--temperature"),
    (step3, ["--max_length", "30", "--max_new_tokens", "30"], "--max_length"),
    (step3, ["--max_length", "30", "--min_new_tokens", "60"], "--min_new_tokens"),
    (step3, ["--top_p", "0"], "--top_p"),
    (step3, ["--tokenizer_path", "second.pkl"], "tokenizer"),
    (step2, ["--seed", str(2**70)], "--seed"),
    (step4, [], "--pretrained_model_path"),
    (step4, ["--pretrained_model_path", "tinystories_model/best_model.pth", "--dropout", "5"], "--dropout must"),
    (step4, ["--pretrained_model_path", "none.pth"], "none.pth"),
    (step4, ["--pretrained_model_path", "tinystories_model/best_model.pth", "--dataset", "stories"], "conversation"),
    (step3, ["--prompts_file", "none.txt"], "none.txt"),
    (step3, ["--prompts_file", "other.jsonl"], "other.jsonl, line 1"),
    (step3, ["--prompts_file", "latin1.jsonl", "--prompt", "Tom"], "--prompt and --prompts_file"),
    (step3, ["--prompts_file", "latin1.jsonl", "--output_file", "out.txt"], "--output_file"),
    (step3, ["--output_file", "out.jsonl"], "--prompts_file"),
    (step3, ["--prompts_file", "other.jsonl", "--output_file", "./other.jsonl"], "prompts would be lost"),
    (step3, ["--num_samples", "0"], "--num_samples"),
    (step3, ["--num_samples", "2", "--temperature", "0"], "omit --num_samples"),
    (step3, ["--overwrite"], "--overwrite needs --output_file"),
    (step3, ["--num_samples", "2", "--num_beams", "2", "--temperature", "0.8"], "--num_beams"),
    (step5, ["--batch_size", "0"], "--batch_size"),
    (step5, ["--once", " "], "--once"),
    (step5, ["--once", "Hi", "--prompts_file", "latin1.jsonl"], "--once"),
    (step5, ["--num_samples", "2"], "--num_samples"),
    (step5, ["--model_path", "none.pth"], "none.pth"),
    (step5, ["--tokenizer_path", "second.pkl"], "tokenizer"),
]


@pytest.mark.parametrize(("program", "flags", "named"), BAD_INPUT, ids=lambda value: getattr(value, "__name__", None))
def test_bad_input_gets_one_clear_line_and_no_file_is_written(damaged, capsys, program, flags, named):
    places = {step1: ["--output", "fresh"]}
    places[step2] = places[step4] = ["--output_dir", "fresh", "--cache_dir", "cache"]
    files = lambda: sorted(path for path in damaged.rglob("*") if "cache" not in path.parts)
    before = files()
    with pytest.raises(SystemExit) as ended:
        run_program(lambda: main(program, *places.get(program, []), *flags, folder=damaged))
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2, errors
    assert len(errors) == 1 and named in errors[0]
    assert files() == before
    assert not list(damaged.rglob(".*"))  # half-written files have names that begin with a dot


BROKEN = '{"text": "A cat sat."}\n{"text": "A dog\n{"story": "wrong"}\n{"text": 5}\n\n[1]\n{"text": "A cow ate."}\n'


@pytest.mark.parametrize("program", [step1, step2])
def test_bad_rows_are_named_or_counted_with_skip_bad_rows(capsys, tmp_path, course, program):
    (tmp_path / "broken.jsonl").write_text(BROKEN + '{"text": "A frog \\ud83d"}\n' * 3)
    flags = ["--dataset", tmp_path / "broken.jsonl"]
    if program is step1:
        flags += ["--vocab_size", 300, "--output", tmp_path / "t.pkl"]
    else:
        flags += ["--tokenizer_path", course / "bpe_tokenizer_tinystories.pkl", *TINY]
        flags += ["--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "run"]
    with pytest.raises(UserError, match="line 2: not JSON"):
        main(program, *flags, folder=tmp_path)
    main(program, *flags, "--skip_bad_rows", folder=tmp_path)
    printed = "".join(capsys.readouterr())
    assert "3 bad rows skipped; the first: " in printed and "broken.jsonl, line 2: not JSON" in printed
