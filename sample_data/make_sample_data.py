"""Write the sample data: stories, dialogues, questions and heroes, composed from `texts.py` and `plots.txt`.

    python sample_data/make_sample_data.py                              # the files of the project again
    python sample_data/make_sample_data.py --stories 6000 --dialogues 3000 --output_dir more     # the same, and more
    python sample_data/make_sample_data.py --seed 7 --output_dir other                           # other texts

stories/: rows for training and 100 for validation, `{"text": ...}`. Each story follows one of the plots, in which a
child, an animal or a thing has a problem and solves it. conversations/: rows for training and 60 for validation,
`{"conversation": [{"text": ...}, ...]}`: user and assistant take turns; in seven of ten the user asks for a story.
questions.jsonl: 100 rows, `{"id": ..., "prompt": ...}`, to ask a chat model; none is in a training dialogue. 64 ask for
a story and have its subject as `"words": [...]`; in half of them (`story-new-...`) it is one of HELD_OUT_SUBJECTS.
heroes.jsonl: 200 rows, `{"id": ..., "prompt": ...}`, beginnings of stories with a named hero, the same with every seed.

The same seed with larger numbers writes the same rows first, and the same validation files.
"""

import argparse
import itertools
import json
import random
import re
from pathlib import Path

from texts import ANIMALS, ELDERS, HABITATS, HELD_OUT_SUBJECTS, NAMES, PHRASES, PLOTS, PRONOUNS, SAID, THINGS

HEROES = ("child", "child", "animal", "animal", "thing")
NAMED_ANIMALS = 0.7  # share of the animals in the stories that have a name
LONGEST_TALE = 180  # words of a story in a dialogue: about 260 tokens; a chat model writes at most 300 by default
REQUESTS, OTHER_QUESTIONS = 32, 36  # 32 stories about subjects from the training dialogues, and 32 about others
HERO_NAMES = (
    [("girl", name) for name in ("Lily", "Mia", "Sue", "Anna", "Sara", "Emma", "Lucy", "Amy", "Jane", "Mary")]
    + [("boy", name) for name in ("Tim", "Tom", "Ben", "Max", "Jack", "Sam", "Billy", "Joe", "John", "Bob")]
)  # fmt: skip
HERO_TRAITS = ("little", "young", "happy", "kind", "funny", "brave", "clever", "curious", "shy", "quiet")


# The template language ------------------------------------------------------------------------------------------------


def choose(rng, items):
    return items[int(rng.random() * len(items))]


def expand(rng, template, slots):
    """Choose from each `{a|b}` of a template, innermost first, and fill in each `[key]`; `[Key]` gets a capital."""

    def fill(found):
        alternatives, key = found.groups()
        if key is None:
            return choose(rng, alternatives.split("|"))
        text = expand(rng, "{" + slots[key.lower()] + "}", slots).lstrip()
        return text[:1].upper() + text[1:] if key[0].isupper() else text

    while (filled := re.sub(r"\{([^{}]*)\}|\[(\w+)\]", fill, template)) != template:
        template = filled
    return template


def settle(rng, choices, slots):
    """Choose the values of some keys for the whole text: {"x~y": "a ~ b|c ~ d"} is x = a, y = b or x = c, y = d."""
    slots = dict(slots)
    for keys, template in choices.items():
        chosen = expand(rng, "{" + template + "}", slots).split("~")
        for key, text in zip(keys.split("~"), chosen, strict=True):
            slots[key] = " ".join(text.split())
    return slots


def quote(rng, speaker, speech):
    """Put the speaker before, between or after the sentences of a speech."""
    first, *others = re.findall(r"[^.!?]+[.!?]", speech)
    place = choose(rng, ("before", "between", "after"))
    verb = choose(rng, SAID[(speech if place == "after" else first)[-1]])
    if place == "before":
        return f'{speaker[0].upper()}{speaker[1:]} {verb}, "{speech}"'
    if place == "after":
        first, others = speech, []
    first = re.sub("[.]$", ",", first)
    rest = "".join(others).strip()
    return f'"{first}" {verb} {speaker}.' + (f' "{rest}"' if rest else "")


def write_out(rng, template, slots):
    """Expand a template into finished text: clean spaces and paragraphs, quoted speech, `an` before a vowel."""
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in expand(rng, template, slots).split("//"))
    text = re.sub(r" (?=[.,!?])", "", text)
    text = re.sub(r"<(\w+): ([^<>]+)>", lambda found: quote(rng, expand(rng, f"[{found[1]}]", slots), found[2]), text)
    return re.sub(r"\b([Aa]) (?=[aeiouAEIO])", r"\1n ", text)


# Who a text is about --------------------------------------------------------------------------------------------------


def cast(rng, role, in_story):
    """Choose the slots of one text; the role of its hero is `child`, an animal or a thing."""
    sex = choose(rng, ("girl", "boy"))
    friend_sex = choose(rng, ("girl", "boy"))
    name = choose(rng, NAMES[sex])
    child = choose(rng, [other for other in NAMES[friend_sex] if other != name])
    a_child = f"a {{|little |[trait] }}{friend_sex} named {child}"
    slots = PHRASES | {"kind": role, "friend": child, "friend_call": child, "a_friend": a_child, "who": ""}
    elder, ehe, ehim = choose(rng, ELDERS["child" if role == "child" else "animal"])

    if role == "child":
        slots |= {"kind": sex, "hero": name, "call": name, "a_hero": f"a {{|little |[trait] }}{sex} named {name}"}
    elif role in THINGS:
        sex = "thing"
        slots |= {"hero": f"the {role}", "call": role, "a_hero": f"a {{|little |[color] }}{role}"}
        slots |= {"use": THINGS[role][0], "friend_kind": friend_sex, "likes": "", "ending": ""}
    else:
        kinds = set(ANIMALS) - {role} - (set() if in_story else set(HELD_OUT_SUBJECTS))
        habitat, eats = ANIMALS[role]
        slots |= {"food": eats, "live": HABITATS[habitat], "likes": "[animal_likes]", "who": PHRASES["who"]}
        friend_kind = choose(rng, sorted(kinds))
        slots |= {"hero": f"the {role}", "call": role, "a_hero": f"a {{|little |[trait] }}{role}"}
        slots |= {"friend": f"the {friend_kind}", "friend_call": friend_kind}
        slots["a_friend"] = f"a {{|little |[trait] }}{friend_kind}"
        if in_story and rng.random() < NAMED_ANIMALS:
            name = expand(rng, "[pet_name]", slots)
            friend = expand(rng, "[pet_name]", slots)
            slots |= {"hero": name, "call": name, "a_hero": f"{slots['a_hero']} named {name}"}
            slots |= {"friend": friend, "friend_call": friend, "a_friend": f"{slots['a_friend']} named {friend}"}

    slots |= zip(("he", "him", "his"), PRONOUNS[sex], strict=True)
    slots |= zip(("fhe", "fhim", "fhis"), PRONOUNS[friend_sex], strict=True)
    slots |= {"elder": f"{slots['his']} {elder}", "ehe": ehe, "ehim": ehim}
    others = "|".join(animal for animal in slots["animal"].split("|") if animal != role)
    once = {"animal": others, "color": slots["color"], "food": slots["food"], "hobby": slots["hobby"]}
    once |= {"at_place~to_place~place": slots["at_place~to_place~place"], "a_hero": slots["a_hero"]}
    return settle(rng, once, slots)


def plots_for(role):
    """Return the plots whose hero can have this role."""
    if role in THINGS:
        return [plot for plot in PLOTS if plot.cast == "thing"]
    return [plot for plot in PLOTS if plot.cast == "any" or plot.cast == role]


# Stories and dialogues ------------------------------------------------------------------------------------------------


def make_story(rng):
    role = choose(rng, HEROES)
    if role == "animal":
        role = choose(rng, list(ANIMALS))
    elif role == "thing":
        role = choose(rng, list(THINGS))
    plot = choose(rng, plots_for(role))
    slots = settle(rng, plot.settled, cast(rng, role, in_story=True))
    return write_out(rng, f"[opening] [likes] {plot.text} [ending]", slots)


def make_turns(rng, user, assistant, slots):
    """Write out a pair of turns. Some users type in small letters and omit the last punctuation mark."""
    asked = write_out(rng, user, slots)
    if rng.random() < 0.2:
        asked = asked.lower().rstrip(".?!")
    return [asked, write_out(rng, assistant, slots)]


def make_tale(rng, role):
    """Compose two pairs of turns: a story is asked for and told, and a question about it is answered."""
    plot = choose(rng, plots_for(role))
    slots = settle(rng, plot.settled, cast(rng, role, in_story=False))
    told = make_turns(rng, "[request]", f"[preface] [beginning] {plot.text}", slots)
    if len(told[1].split()) > LONGEST_TALE:
        return make_tale(rng, role)
    question, answer = choose(rng, plot.questions)
    return [told, make_turns(rng, question, answer, slots)]


def subject_kind(subject):
    return "thing" if subject in THINGS else "animal"


def small_talk(rng, kind, subject):
    """Compose a pair of turns of a kind in PHRASES: greetings, questions about a subject, feelings."""
    slots = settle(rng, {"feeling~help": "[feelings]"}, cast(rng, subject, in_story=False))
    slots = settle(rng, {"user~assistant": f"[{kind}]"}, slots)
    return make_turns(rng, "[user]", "[assistant]", slots)


def make_conversation(rng, subject):
    """Compose one to five pairs of turns; most conversations tell a story, about the subject or a child."""
    pairs = []
    if rng.random() < 0.2:
        pairs.append(small_talk(rng, "hello", subject))
    if rng.random() < 0.7:
        role = "child" if rng.random() < 0.15 else subject
        pairs += make_tale(rng, role)[: choose(rng, (1, 2))]
    else:
        question = f"{subject_kind(subject)}_question"
        kinds = ("hello", "feeling_question", question, question)
        pairs += [small_talk(rng, kind, subject) for kind in rng.sample(kinds, choose(rng, (1, 2, 3)))]
    if rng.random() < 0.25:
        pairs.append(small_talk(rng, "goodbye", subject))
    return [{"text": turn} for pair in pairs for turn in pair]


def request_for(rng, subject):
    """Compose a user's request for a story about the subject."""
    return make_turns(rng, "[request]", "", cast(rng, subject, in_story=False))[0]


def make_questions(rng, subjects, new_subjects, heard):
    """Yield questions that are not in `heard`; subjects: those of the training dialogues, new_subjects: others."""
    heard = set(heard)

    def unheard(compose):
        while (question := compose()) in heard:
            pass
        heard.add(question)
        return question

    def other():
        subject = choose(rng, (*subjects, *new_subjects))
        kind = choose(rng, ("hello", "goodbye", "feeling_question", f"{subject_kind(subject)}_question"))
        return small_talk(rng, kind, subject)[0]

    for name, choices in (("known", subjects), ("new", new_subjects)):
        order = itertools.cycle(rng.sample(choices, len(choices)))
        for number, subject in enumerate(itertools.islice(order, REQUESTS), start=1):
            prompt = unheard(lambda subject=subject: request_for(rng, subject))
            yield {"id": f"story-{name}-{number}", "prompt": prompt, "words": [subject]}
    for number in range(1, OTHER_QUESTIONS + 1):
        yield {"id": f"other-{number}", "prompt": unheard(other)}


def make_heroes():
    """Yield beginnings of stories: each hero with each trait."""
    for sex, name in HERO_NAMES:
        for trait in HERO_TRAITS:
            prompt = f"Once upon a time, there was a {trait} {sex} named {name}."
            yield {"id": f"{name}-{trait}", "prompt": prompt}


# Files ----------------------------------------------------------------------------------------------------------------


def write_rows(path, count, make_row, written):
    """Write a `.jsonl` file of new rows, none of them in `written`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        while count:
            line = json.dumps(make_row()) + "\n"
            if line not in written:
                written.add(line)
                file.write(line)
                count -= 1


def write_stories(folder, seed, count):
    written = set()
    for name, rows in (("validation", 100), ("train", count)):
        rng = random.Random(f"{seed} stories {name}")
        write_rows(folder / f"{name}.jsonl", rows, lambda rng=rng: {"text": make_story(rng)}, written)


def write_conversations(folder, seed, count, subjects):
    """Write the dialogues; in validation, known and new subjects alternate."""
    written = set()
    both = itertools.chain.from_iterable(zip(subjects, itertools.cycle(HELD_OUT_SUBJECTS)))
    for name, rows, order in (("valid", 60, both), ("train", count, subjects)):
        rng = random.Random(f"{seed} conversations {name}")
        endless = itertools.cycle(order)

        def make_row(rng=rng, endless=endless):
            return {"conversation": make_conversation(rng, next(endless))}

        write_rows(folder / f"{name}.jsonl", rows, make_row, written)


def read_turns(path):
    """Return the texts of all turns in a file of dialogues."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [turn["text"] for row in rows for turn in row["conversation"]]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description="write the sample stories and dialogues")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent, help="default: the program's folder")
    parser.add_argument("--stories", type=int, default=1000, help="for training (default: %(default)s)")
    parser.add_argument("--dialogues", type=int, default=600, help="for training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="another seed, other texts (default: %(default)s)")
    args = parser.parse_args(argv)
    if min(args.stories, args.dialogues) < 1:
        parser.error("--stories and --dialogues must be at least 1")
    return args


def main():
    args = parse_args()
    subjects = [subject for subject in (*ANIMALS, *THINGS) if subject not in HELD_OUT_SUBJECTS]
    random.Random(args.seed).shuffle(subjects)
    write_stories(args.output_dir / "stories", args.seed, args.stories)
    write_conversations(args.output_dir / "conversations", args.seed, args.dialogues, subjects)
    heard = read_turns(args.output_dir / "conversations" / "train.jsonl")
    questions = make_questions(random.Random(f"{args.seed} questions"), subjects, HELD_OUT_SUBJECTS, heard)
    write_rows(args.output_dir / "questions.jsonl", 100, lambda: next(questions), set())
    heroes = make_heroes()
    write_rows(args.output_dir / "heroes.jsonl", len(HERO_NAMES) * len(HERO_TRAITS), lambda: next(heroes), set())


if __name__ == "__main__":
    main()
