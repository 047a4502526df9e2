"""Make the prompts for docs/rewards.md: requests for a story about two things, with the words that must occur in it.

    python sample_data/make_requests.py runs/requests

train.jsonl: 640 requests, `{"id": ..., "prompt": ..., "words": [..., ...]}`, about things from the training dialogues.
test.jsonl: 128 other requests.  In half of them (`known-...`) both things are from the dialogues, but their pair is not
in train.jsonl; in the other half (`new-...`) both are in no dialogue.
"""

import argparse
import json
import random
from pathlib import Path

from make_sample_data import cast, make_turns
from texts import ANIMALS, HELD_OUT_SUBJECTS, THINGS

TRAIN = 640
TEST = 64  # of each kind


def make_requests(rng, kind, count, subjects, used):
    """Return requests about pairs of subjects that are not in `used`, which grows."""
    rows = []
    while len(rows) < count:
        pair = rng.sample(subjects, 2)
        if frozenset(pair) in used:
            continue
        used.add(frozenset(pair))
        slots, other = (cast(rng, subject, in_story=False) for subject in pair)
        slots["a_hero"] += f" and {other['a_hero']}"
        asked, _ = make_turns(rng, "[request]", "", slots)
        rows.append({"id": f"{kind}-{len(rows) + 1}", "prompt": asked, "words": pair})
    return rows


def main():
    parser = argparse.ArgumentParser(description="make requests for stories about two things")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random("requests")
    known = [subject for subject in (*ANIMALS, *THINGS) if subject not in HELD_OUT_SUBJECTS]
    used = set()
    test = make_requests(rng, "known", TEST, known, used) + make_requests(rng, "new", TEST, HELD_OUT_SUBJECTS, used)
    for name, rows in (("test", test), ("train", make_requests(rng, "train", TRAIN, known, used))):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
