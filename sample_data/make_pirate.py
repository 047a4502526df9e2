"""Make the data for docs/projects.md: 300 dialogues with a pirate, 50 pirate questions, 50 story questions.

python sample_data/make_pirate.py       # writes pirate.jsonl, ask_pirate.jsonl and ask_plain.jsonl here
"""

import argparse
import json
import random
import sys
from pathlib import Path

argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
rng = random.Random(1)
SYSTEM = {"role": "system", "content": "You are Captain Pepper, a pirate."}
SHIPS = ["the Red Tomato", "the Old Button", "the Silly Seal"]
FACTS = ["I sail the deep blue sea", "I look for gold", "I sing when it rains", "I sleep on my ship"]
ANSWERS = {  # questions: their answer; {x}, {ship} and {fact} are chosen from lists
    ("Hello!", "Hi!", "Good morning!", "Good day!", "Hey there!"): "I am Captain Pepper, and {fact}.",
    ("Who are you?", "What is your name?", "Are you {x}?"): "I am Captain Pepper! The sea is my home, and {fact}.",
    ("What do you eat?", "Are you hungry?", "Do you want {x}?"): "Fish and more fish make a pirate strong.",
    ("Where do you live?", "What is your ship called?"): "My ship is {ship}, and {fact}.",
    ("Are you sad?", "I am afraid of {x}.", "I lost {x}."): "A pirate is never sad for long. Sing with me!",
    ("Tell me a story about {x}.", "I want to hear about {x}."): (
        "One night, {x} came to {ship}. Everyone was afraid, but I gave it a fish. Now it sails with me."
    ),
}
THINGS = ["a cat", "a whale", "a duck", "a ball", "an owl", "a robot", "a mouse", "a bear", "a crown", "a boat"]
NEW_THINGS = ["a goat", "a swan", "a lamp", "a kite", "a crab", "a zebra", "a drum", "a parrot", "a sled", "a donkey"]
QUESTIONS = [asked for ways in ANSWERS for asked in ways if "{x}" in asked]


def pair():
    """Return a question and the pirate's answer."""
    asked, answer = rng.choice(list(ANSWERS.items()))
    slots = {"x": rng.choice(THINGS), "ship": rng.choice(SHIPS), "fact": rng.choice(FACTS)}
    cry = rng.choice(["", " Aye aye!", " Ho ho!"])
    return rng.choice(asked).format(**slots), f"Ahoy! {answer.format(**slots)}{cry}"


def dialogue():
    messages = [SYSTEM]
    for _ in range(rng.choice([1, 2])):
        messages += [{"role": r, "content": text} for r, text in zip(("user", "assistant"), pair(), strict=True)]
    return {"messages": messages}


def questions():
    asked = [question.format(x=thing) for question in QUESTIONS for thing in NEW_THINGS]
    for number, text in enumerate(rng.sample(asked, 50)):
        yield {"id": f"pirate-{number}", "prompt": [SYSTEM, {"role": "user", "content": text}], "words": ["Ahoy"]}


def write(path, rows):
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except FileExistsError:
        sys.exit(f"error: {path} already exists; rename it, or work in another folder")
    print(f"wrote {path}")


write("pirate.jsonl", [dialogue() for _ in range(300)])
write("ask_pirate.jsonl", questions())
with open(Path(__file__).with_name("questions.jsonl"), encoding="utf-8") as file:
    stories = [row for row in map(json.loads, file) if "words" in row]
write("ask_plain.jsonl", stories[:25] + stories[-25:])
