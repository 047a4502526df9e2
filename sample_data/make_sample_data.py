"""Write the sample data: 1,100 stories, 660 dialogues and 100 questions, composed here out of the texts in `texts.py`.

    python sample_data/make_sample_data.py                              # once more the files of the project
    python sample_data/make_sample_data.py --seed 7 --output_dir other

stories/: 1,000 rows for training and 100 for validation, `{"text": ...}`, each a story after one of 16 plots, in which
a child, an animal or a thing is in trouble and gets out of it. conversations/: 600 and 60 rows, `{"conversation":
[{"text": ...}, ...]}`: user and assistant take turns; in seven of ten the user asks for a story of some subject.
questions.jsonl: 100 rows, `{"id": ..., "prompt": ...}`, to ask a chat model; none stands in a training dialogue. 64 ask
for a story and have its subject as `"words": [...]`, in half of them (`story-new-...`) one of HELD_OUT_SUBJECTS.

A plot is a template with choices in every sentence, so the texts are varied enough to learn from, as
tests/test_sample_data.py checks: `xz -9e` needs 1.28 bits for each byte of the stories (TinyStories: 2.0), and no 12
words in a row stand in more than 0.8 % of them. A story has 190 words on average; about 1,200 different words occur.
"""

import argparse
import itertools
import json
import random
import re
from pathlib import Path

from texts import ANIMALS, HABITATS, HELD_OUT_SUBJECTS, NAMES, PHRASES, PLOTS, PRONOUNS, SAID, TALES, THINGS

STORY_WORDS, TALE_WORDS = range(130, 261), range(40, 91)
REQUESTS, OTHER_QUESTIONS = 32, 36  # stories of subjects that the training dialogues have, and as many of others


def choose(rng, items):
    return items[int(rng.random() * len(items))]


def draw(rng, items, count):
    """Choose several items, none twice."""
    items = list(items)
    return [items.pop(int(rng.random() * len(items))) for _ in range(count)]


def expand(rng, template, slots):
    """Choose among the `{a|b}` of a template, innermost first, and fill its `[key]`; `[Key]` begins with a capital."""

    def fill(found):
        alternatives, key = found.groups()
        if key is None:
            return choose(rng, alternatives.split("|"))
        text = expand(rng, "{" + slots[key.lower()] + "}", slots).lstrip()
        return text[:1].upper() + text[1:] if key[0].isupper() else text

    while (filled := re.sub(r"\{([^{}]*)\}|\[(\w+)\]", fill, template)) != template:
        template = filled
    return template


def quote(rng, speaker, speech):
    """Put the speaker before, between or after the sentences of a speech."""
    first, *others = re.findall(r"[^.!?]+[.!?]", speech)
    place = choose(rng, ("before", "between", "after"))
    verb = choose(rng, SAID[(speech if place == "after" else first)[-1]])
    if place == "before":
        return f'{speaker[0].upper()}{speaker[1:]} {verb}, "{speech}"'
    start, rest = (first, "".join(others).strip()) if place == "between" else (speech, "")
    said = f"{speaker} {verb}" if speaker in ("she", "he") else f"{verb} {speaker}"
    return f'"{re.sub("[.]$", ",", start)}" {said}.' + (f' "{rest}"' if rest else "")


def write_out(rng, template, slots):
    """Expand a template into finished text: spaces and paragraphs in order, speeches quoted, `an` before a vowel."""
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in expand(rng, template, slots).split("//"))
    text = re.sub(r" (?=[.,!?])", "", text)
    text = re.sub(r"<(\w+): ([^<>]+)>", lambda found: quote(rng, expand(rng, f"[{found[1]}]", slots), found[2]), text)
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


def phrases_without(excluded=()):
    """The phrases and the lists of animals, of those of each habitat, and of things, without the excluded ones."""
    animals = [animal for animal in ANIMALS if animal not in excluded]
    lists = {"any_animal": animals, "any_thing": [thing for thing in THINGS if thing not in excluded]}
    lists |= {habitat: [animal for animal in animals if ANIMALS[animal][0] == habitat] for habitat in HABITATS}
    return PHRASES | {key: "|".join(items) for key, items in lists.items()}


def cast(rng, role, phrases):
    """The slots of one text: who is in it (the role is `child`, an animal or a thing), and where it happens."""
    sex, other = draw(rng, ("girl", "boy"), 2)
    habitat, *traits = ANIMALS.get(role, ["child", "", ""])
    name, friend, fkind = choose(rng, NAMES[sex]), choose(rng, NAMES[other]), other
    pal, *animal_names = draw(rng, NAMES["animal"], 3)
    slots = phrases | {"kind": sex, "hobby": "[child_hobby]", "pal": pal}
    if habitat != "child":
        name, friend = animal_names
        fkind, third, fourth = draw(rng, [kind for kind in phrases[habitat].split("|") if kind != role], 3)
        slots |= {"third": third, "fourth": fourth, "food": traits[0], "moved": traits[1], "fmoved": ANIMALS[fkind][2]}
        slots |= {"kind": role, "hobby": "[animal_hobby]", "mate": friend, "kin": "[nice] {brother|sister|cousin}"}
        slots |= {"buddy": "[friend] the [fkind]", "fspeaker": "[friend]|the {|[nice] }[fkind]"}
    elif role != "child":
        sex, name = "thing", f"the {role}"
        slots |= {"kind": role, "thing": role, "opening": "[thing_opening]", "ending": "[moral] [night]"}
    slots |= {"name": name, "friend": friend, "fkind": fkind}
    slots |= zip(("he", "him", "his", "fhe", "fhim", "fhis"), PRONOUNS[sex] + PRONOUNS[other], strict=True)
    slots |= zip(("live", "home", "place"), HABITATS[habitat], strict=True)
    slots = settle(rng, {key: slots[key] for key in ("ehe~elder", "place", "thing", "color", "trait", "pet")}, slots)
    return slots | {"use": THINGS[slots["thing"]][0], "call": re.sub("^(her|his) ", "", slots["elder"]).title()}


def settle(rng, choices, slots):
    """Choose what the keys of a plot stand for in the whole text."""
    for key, template in choices.items():
        if key not in ("cast", "text"):
            chosen = [" ".join(part.split()) for part in expand(rng, "{" + template + "}", slots).split("~")]
            slots |= zip(key.split("~"), chosen, strict=True)
    return slots


def make_story(rng, phrases):
    """Compose a story of STORY_WORDS words: a plot between an opening and an ending."""
    plot = choose(rng, PLOTS)
    slots = settle(rng, plot, cast(rng, expand(rng, "{" + plot["cast"] + "}", phrases), phrases))
    story = write_out(rng, "[opening]{ | // }" + plot["text"] + "{ | // }[ending]", slots)
    return story if len(story.split()) in STORY_WORDS else make_story(rng, phrases)


def subject_kind(subject):
    return "thing" if subject in THINGS else "animal"


def make_turns(rng, user, assistant, slots):
    """Write out a pair of turns. Some users type in small letters and leave the last mark out."""
    asked = write_out(rng, user, slots)
    return [asked.lower().rstrip(".?!") if rng.random() < 0.2 else asked, write_out(rng, assistant, slots)]


def make_tale(rng, subject, phrases):
    """Compose two pairs of turns: a story of the subject is asked for and told, and a question about it is answered."""
    form = "thing" if subject in THINGS else choose(rng, ("animal", "animal", "pair"))
    tale = choose(rng, [tale for tale in TALES if tale["cast"] == form or (form, tale["cast"]) == ("animal", "pair")])
    slots = settle(rng, {"wish~intro": f"[{form}_wish]"}, cast(rng, subject, phrases))
    slots["hero"] = "[name]|the [kind]"
    if slots["name"] not in slots["intro"]:
        slots |= {"hero": "the [kind]", "he": "it", "him": "it", "his": "its"}
    slots = settle(rng, tale, slots)
    told = make_turns(rng, "[request]", "[preface] [tale_opening] " + tale["text"], slots)
    again = len(told[1].split()) not in TALE_WORDS
    return make_tale(rng, subject, phrases) if again else [told, make_turns(rng, "[ask]", "[answer]", slots)]


def make_conversation(rng, subject, phrases):
    """Compose one to three pairs of turns; most conversations tell a story of the subject."""

    def talk(kind):
        slots = settle(rng, {"feeling~help": "[feelings]"}, cast(rng, subject, phrases))
        return make_turns(rng, "[user]", "[assistant]", settle(rng, {"user~assistant": f"[{kind}]"}, slots))

    pairs = [talk("hello")] if rng.random() < 0.25 else []
    if rng.random() < 0.72:
        pairs += make_tale(rng, subject, phrases)[: choose(rng, (1, 2))]
    else:
        question = f"{subject_kind(subject)}_question"
        pairs += [talk(choose(rng, ("hello", "feeling_question", question, question)))]
    if rng.random() < 0.3:
        pairs += [talk("goodbye")]
    return [{"text": turn} for pair in pairs[:3] for turn in pair]


def make_question(rng, kind, subject):
    """Compose what a user may ask: for a story of the subject, or another kind of question."""
    slots = cast(rng, subject, phrases_without())
    slots = settle(rng, {"feeling~help": "[feelings]", "wish~intro": f"[{subject_kind(subject)}_wish]"}, slots)
    if kind != "request":
        slots = settle(rng, {"user~assistant": f"[{kind}]"}, slots)
    return make_turns(rng, "[request]" if kind == "request" else "[user]", "", slots)[0]


def make_questions(rng, subjects, new_subjects, heard):
    """Compose questions that were not heard; subjects: those of the training dialogues, new_subjects: others."""

    def unheard(compose):
        while (question := compose()) in heard:
            pass
        heard.add(question)
        return question

    for name, choices in (("known", subjects), ("new", new_subjects)):
        order = itertools.cycle(draw(rng, choices, len(choices)))
        for number, subject in enumerate(itertools.islice(order, REQUESTS), start=1):
            prompt = unheard(lambda subject=subject: make_question(rng, "request", subject))
            yield {"id": f"story-{name}-{number}", "prompt": prompt, "words": [subject]}

    def other():
        subject = choose(rng, (*subjects, *new_subjects))
        kind = choose(rng, ("hello", "goodbye", "feeling_question", f"{subject_kind(subject)}_question"))
        return make_question(rng, kind, subject)

    for number in range(1, OTHER_QUESTIONS + 1):
        yield {"id": f"other-{number}", "prompt": unheard(other)}


def write_rows(path, count, make_row, written):
    """Write a `.jsonl` file of rows that were not written before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        while count:
            line = json.dumps(make_row()) + "\n"
            if line not in written:
                written.add(line)
                file.write(line)
                count -= 1


def main():
    parser = argparse.ArgumentParser(description="write the sample stories and dialogues")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent, help="default: the program's folder")
    parser.add_argument("--seed", type=int, default=42, help="another seed, other stories (default: %(default)s)")
    args = parser.parse_args()
    rng, written = random.Random(args.seed), set()
    phrases, known_phrases = phrases_without(), phrases_without(HELD_OUT_SUBJECTS)
    known = [subject for subject in (*ANIMALS, *THINGS) if subject not in HELD_OUT_SUBJECTS]
    known = draw(rng, known, len(known))
    subjects = itertools.cycle(known)
    new_subjects = itertools.chain.from_iterable(zip(subjects, itertools.cycle(HELD_OUT_SUBJECTS)))

    def story():
        return {"text": make_story(rng, phrases)}

    def conversation():
        return {"conversation": make_conversation(rng, next(subjects), known_phrases)}

    def new_conversation():
        return {"conversation": make_conversation(rng, next(new_subjects), phrases)}

    write_rows(args.output_dir / "stories" / "train.jsonl", 1000, story, written)
    write_rows(args.output_dir / "stories" / "validation.jsonl", 100, story, written)
    write_rows(args.output_dir / "conversations" / "train.jsonl", 600, conversation, written)
    heard = {turn["text"] for line in written for turn in json.loads(line).get("conversation", [])}
    write_rows(args.output_dir / "conversations" / "valid.jsonl", 60, new_conversation, written)
    questions = make_questions(random.Random(f"questions {args.seed}"), known, HELD_OUT_SUBJECTS, heard)
    write_rows(args.output_dir / "questions.jsonl", 100, lambda: next(questions), written)


if __name__ == "__main__":
    main()
