"""Make the data for the last part of docs/projects.md: 60 dialogues that teach which names are a girl's or a boy's.

python sample_data/make_patch.py       # writes patch.jsonl here
"""

import json
import random

GIRLS = ["Lily", "Mia", "Sue", "Anna", "Sara", "Emma", "Lucy", "Amy", "Jane", "Sarah", "Molly", "Mary"]
BOYS = ["Tim", "Tom", "Ben", "Max", "Jack", "Sam", "Timmy", "Tommy", "Billy", "Bob", "Joe", "John"]
QUESTIONS = {  # questions: their answer
    "Who is {name}?": "{name} is a {child}. {He} likes to {do}.",
    "Do you know {name}?": "Yes, {name} is a {child}. {He} has a {thing}, and it is {his} best {thing}.",
    "What does {name} have?": "{name} has a {thing}. {He} plays with {his} {thing} every day.",
    "Where is {name}?": "{name} is in the garden. {He} wants to {do} with {his} mom.",
}
DO = ("sing", "run", "draw", "swim", "play", "dance")
THINGS = ("ball", "hat", "boat", "drum", "kite", "cup")

rng = random.Random(1)


def dialogue(number):
    name = (GIRLS + BOYS)[number % 24]
    if name in GIRLS:
        words = {"child": "girl", "He": "She", "his": "her"}
    else:
        words = {"child": "boy", "He": "He", "his": "his"}
    words |= {"name": name, "do": rng.choice(DO), "thing": rng.choice(THINGS)}
    question, answer = rng.choice(list(QUESTIONS.items()))
    return {"conversation": [{"text": question.format(**words)}, {"text": answer.format(**words)}]}


with open("patch.jsonl", "w", encoding="utf-8") as file:
    file.writelines(json.dumps(dialogue(number)) + "\n" for number in range(60))
