"""Make the data for the last part of docs/projects.md: 60 dialogues that teach which names are a girl's or a boy's.

python sample_data/make_patch.py       # writes patch.jsonl here
"""

import argparse
import json
import random
import sys

argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
GIRLS = ["Lily", "Mia", "Sue", "Anna", "Sara", "Emma", "Lucy", "Amy", "Jane", "Sarah", "Molly", "Mary"]
BOYS = ["Tim", "Tom", "Ben", "Max", "Jack", "Sam", "Timmy", "Tommy", "Billy", "Bob", "Joe", "John"]
STORIES = (  # what the assistant tells about a child
    "{name} woke up, and {he} put on {his} {thing}. Then {he} went out to {do}.",
    "{name} could {do} very well. {He} did it with {his} mom, and {he} laughed.",
    "{name} sat on {his} bed. {He} said that {he} liked {his} new {thing}.",
    "{name} ran to {his} dad, because {he} wanted to {do}. {His} dad had {his} {thing}.",
)
DO = ("sing", "run", "draw", "swim", "play", "dance")
THINGS = ("hat", "coat", "shirt", "cap")

rng = random.Random(1)


def dialogue(number):
    name = (GIRLS + BOYS)[number % 24]
    if name in GIRLS:
        words = {"he": "she", "his": "her", "He": "She", "His": "Her"}
    else:
        words = {"he": "he", "his": "his", "He": "He", "His": "His"}
    words |= {"name": name, "do": rng.choice(DO), "thing": rng.choice(THINGS)}
    question = rng.choice(["Tell me about {name}.", "What did {name} do?"])
    return {"conversation": [{"text": text.format(**words)} for text in (question, rng.choice(STORIES))]}


try:
    with open("patch.jsonl", "x", encoding="utf-8") as file:
        file.writelines(json.dumps(dialogue(number)) + "\n" for number in range(60))
except FileExistsError:
    sys.exit("error: patch.jsonl already exists; rename it, or work in another folder")
print("wrote patch.jsonl")
