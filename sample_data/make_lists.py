"""Make the data for lab 19 in docs/labs.md: lists of 20 random words, in one folder each list twice, in the other once.

python sample_data/make_lists.py runs       # writes runs/lists_twice and runs/lists_once
"""

import argparse
import json
import random
from pathlib import Path

STORIES = Path(__file__).with_name("stories") / "train.jsonl"
WORDS, LENGTH = 500, 20
COUNTS = {"train": 20_000, "validation": 100}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("folder", type=Path)
args = parser.parse_args()
rng = random.Random(1)
stories = [json.loads(line)["text"] for line in STORIES.read_text(encoding="utf-8").splitlines()]
words = [word for word in dict.fromkeys(" ".join(stories).split()) if word.isalpha()][:WORDS]
for name, count in COUNTS.items():
    lists = [rng.sample(words, LENGTH) for _ in range(count)]
    for folder, times in (("lists_twice", 2), ("lists_once", 1)):
        path = args.folder / folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": " ".join(times * one)}) + "\n" for one in lists)
