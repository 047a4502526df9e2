"""Export a model as the two files of llama2.c, a C program of one file that runs Llama models, and of its many ports.

    python tools/export_llama2c.py tinystories_model/best_model.pth exported_c
    git clone https://github.com/karpathy/llama2.c
    gcc -O3 -o run llama2.c/run.c -lm
    ./run exported_c/model.bin -z exported_c/tokenizer.bin -t 0.8 -i "Once upon a time"

Only --arch llama can be exported, because llama2.c computes no other network.  docs/export.md
describes what is the same as in step 3, and what is not.

In reading order: `compare_ids`; `main`.  formats/llama2c_writer.py writes the files.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from formats.llama2c_writer import Pieces, encode, pieces_of, refuse_other_networks, write_model, write_tokenizer
from pages.model_card import kind_of, run_records

from common.console import log
from common.errors import UserError
from common.flags import FlagParser
from common.program import run_program
from common.weights_files import load_model
from data import Tokenizer, load_tokenizer

MODEL_FILE = "model.bin"
TOKENIZER_FILE = "tokenizer.bin"
STORIES = Path(__file__).resolve().parents[1] / "sample_data/stories/validation.jsonl"
PROMPTS = 100
WORDS = 20  # of each prompt


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = FlagParser(__doc__)
    parser.usage = "python tools/export_llama2c.py MODEL OUT_DIR [flags]"
    parser.add_argument("model", metavar="MODEL", help="a model file, for example best_model.pth")
    parser.add_argument("out_dir", metavar="OUT_DIR", help=f"folder for {MODEL_FILE} and {TOKENIZER_FILE}")
    parser.add_argument("--tokenizer_path", default="bpe_tokenizer_tinystories.pkl", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace the two files if they exist")
    return parser.parse_args(argv)


def sample_prompts() -> list[str]:
    """Return the beginnings of sample stories."""
    lines = STORIES.read_text(encoding="utf-8").splitlines()[:PROMPTS]
    texts = [json.loads(line)["text"] for line in lines]
    return [" ".join(text.split(" ")[:WORDS]) for text in texts]


def compare_ids(tokenizer: Tokenizer, pieces: Pieces, prompts: list[str]) -> str:
    """Return a line about how many prompts have the same ids in llama2.c as here, after a space, and why not all."""
    different = []
    for prompt in prompts:
        here = tokenizer.encode(f" {prompt}")
        there = [pieces.order[number] for number in encode(prompt, pieces)]
        if here != there:
            different.append((here, there))
    same = len(prompts) - len(different)
    line = f"ids: {same} of {len(prompts)} prompts have the same ids in llama2.c as here, after a space"
    if not different:
        return line
    here, there = different[0]
    start = 0
    while here[start] == there[start]:
        start += 1
    ours = [tokenizer.decode([number]) for number in here[start : start + 3]]
    theirs = [tokenizer.decode([number]) for number in there[start : start + 3]]
    return (
        f"{line}; {len(different)} differ, because llama2.c does not cut a text into words before it merges: "
        f"for example, {ours} here, {theirs} there"
    )


def main() -> None:
    args = parse_args()
    paths = [Path(args.out_dir, name) for name in (MODEL_FILE, TOKENIZER_FILE)]
    if Path(args.out_dir).is_file():
        raise UserError(f"{args.out_dir} is a file; name a folder as OUT_DIR")
    for path in paths:
        if path.exists() and not args.overwrite:
            raise UserError(f"{path} already exists; pass --overwrite to replace it, or use another OUT_DIR")
    tokenizer = load_tokenizer(args.tokenizer_path)
    model, content = load_model(args.model, tokenizer)
    refuse_other_networks(model.config, args.model)
    pieces = pieces_of(tokenizer, args.tokenizer_path)
    line = compare_ids(tokenizer, pieces, sample_prompts())
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    write_model(paths[0], model, pieces.order)
    write_tokenizer(paths[1], pieces)
    for path in paths:
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    print(line)
    _, flags = run_records(args.model, content.get("run_id"))
    if kind_of(flags) == "chat":
        log.info(
            "a chat model: llama2.c does not write <user> and <assistant>, so it will not answer; it writes stories"
        )
    print(f'./run {paths[0]} -z {paths[1]} -t 0.8 -i "Once upon a time"')


if __name__ == "__main__":
    run_program(main)
