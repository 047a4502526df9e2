"""Make the items of the test of skills: 100 pairs of texts a skill, of which a model should prefer the right one.

An item is a context and two continuations.  Items come in twos, with the same two continuations and two contexts: what
is right after the one context is wrong after the other.

    The little dog  was happy. / were happy.
    The little dogs  were happy. / was happy.

So whoever ignores the context, or likes one word better than the other, has exactly one of the two right.

In reading order: `Item` and `Skill`; one short function a skill, which chooses the words; `SKILLS`; `items_of`.
The words and templates are in skill_words.py, the scoring is in skills.py.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from scoring.skill_words import (
    ACTIONS,
    ADJECTIVES,
    AFTER_A,
    AFTER_AN,
    ANIMALS,
    BOYS,
    CAUSES,
    COLOURS,
    CONTAINERS,
    GIRLS,
    NOT_OR_YES,
    NUMBERS,
    OPPOSITES,
    PAST_OR_PRESENT,
    PLACES,
    SMALL_THINGS,
    STORIES,
    TEMPLATES,
    THINGS,
    VERBS,
)

ITEMS_PER_SKILL = 100
SEEDS = {"public": 1, "second": 2}

Words = dict[str, str]  # what to fill in: {name in a template: words}
Sides = tuple[Words, Words]  # for an item and for its mirror image


@dataclass(frozen=True)
class Item:
    """One question of the test: after `context`, does a model find `right` more likely than `wrong`?"""

    skill: str
    context: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Skill:
    """A skill.  label: its name in the table; meaning: what a model can do that has it; choose: its words."""

    label: str
    meaning: str
    choose: Callable[[random.Random], Sides]


# Choosing words -------------------------------------------------------------------------------------------------------


def choose(rng: random.Random, choices: list):
    """Choose one.  Python guarantees that random() gives the same numbers in each version, but not choice()."""
    return choices[int(rng.random() * len(choices))]


def choose_two(rng: random.Random, choices: list) -> tuple:
    """Choose two different ones, in any order."""
    first = choose(rng, choices)
    others = [one for one in choices if one != first]
    return first, choose(rng, others)


def child(rng: random.Random) -> tuple[str, str]:
    """Choose a name; return it with its pronoun."""
    if rng.random() < 0.5:
        return choose(rng, GIRLS), "she"
    return choose(rng, BOYS), "he"


def setting(rng: random.Random) -> Words:
    """Choose what does not matter: who, where, and what else is there."""
    name, pronoun = child(rng)
    return {
        "name": name,
        "pronoun": pronoun,
        "place": choose(rng, PLACES),
        "thing": choose(rng, THINGS),
        "animal": choose(rng, ANIMALS),
        "adjective": choose(rng, ADJECTIVES),
        "colour": choose(rng, COLOURS),
    }


def mirrored(words: Words, said: tuple[str, str], wanted: tuple[str, str]) -> Sides:
    """Return the words of an item and of its mirror image; wanted: what fits to each of the two that are said."""
    one = words | {"said": said[0], "other": said[1], "wanted": wanted[0]}
    two = words | {"said": said[1], "other": said[0], "wanted": wanted[1]}
    return one, two


# The skills -----------------------------------------------------------------------------------------------------------


def agreement(rng: random.Random) -> Sides:
    noun = choose(rng, ANIMALS)
    verb, verb_of_many, rest = choose(rng, VERBS)
    return mirrored(setting(rng) | {"rest": rest}, (noun, f"{noun}s"), (verb, verb_of_many))


def he_she(rng: random.Random) -> Sides:
    return mirrored(setting(rng), (choose(rng, GIRLS), choose(rng, BOYS)), ("she", "he"))


def his_her(rng: random.Random) -> Sides:
    return mirrored(setting(rng), (choose(rng, GIRLS), choose(rng, BOYS)), ("her", "his"))


def tense(rng: random.Random) -> Sides:
    words = setting(rng)
    past, present = choose(rng, PAST_OR_PRESENT)
    verb, verb_now, rest = choose(rng, ACTIONS)
    words |= {"rest": rest, "Pronoun": words["pronoun"].capitalize()}
    return mirrored(words, (past.format(**words), present.format(**words)), (verb, verb_now))


def a_an(rng: random.Random) -> Sides:
    return mirrored(setting(rng), ("an", "a"), (choose(rng, AFTER_AN), choose(rng, AFTER_A)))


def plural(rng: random.Random) -> Sides:
    noun = choose(rng, ANIMALS + THINGS)
    return mirrored(setting(rng), ("one", choose(rng, NUMBERS[2:])), (noun, f"{noun}s"))


def hero_name(rng: random.Random) -> Sides:
    kind, names = choose(rng, [("girl", GIRLS), ("boy", BOYS)])
    words = setting(rng) | {"kind": kind}
    both = choose_two(rng, names)
    return mirrored(words, both, both)


def where(rng: random.Random) -> Sides:
    words = setting(rng) | {"thing": choose(rng, SMALL_THINGS)}
    both = choose_two(rng, CONTAINERS)
    return mirrored(words, both, both)


def who_has(rng: random.Random) -> Sides:
    both = choose_two(rng, GIRLS + BOYS)
    return mirrored(setting(rng), both, both)


def ending(rng: random.Random) -> Sides:
    words = setting(rng)
    (first, its_ending), (second, other_ending) = choose_two(rng, STORIES)
    said = (first.format(**words), second.format(**words))
    return mirrored(words, said, (its_ending, other_ending))


def cause(rng: random.Random) -> Sides:
    (first, its_effect), (second, other_effect) = choose_two(rng, CAUSES)
    return mirrored(setting(rng), (first, second), (its_effect, other_effect))


def opposites(rng: random.Random) -> Sides:
    things, first, second = choose(rng, OPPOSITES)
    name, friend = choose_two(rng, GIRLS + BOYS)
    words = setting(rng) | {"thing": choose(rng, things.split()), "name": name, "friend": friend}
    return mirrored(words, (first, second), (first, second))


def colours(rng: random.Random) -> Sides:
    first, second = choose_two(rng, THINGS)
    name, friend = choose_two(rng, GIRLS + BOYS)
    both = choose_two(rng, COLOURS)
    return mirrored(setting(rng) | {"first": first, "second": second, "name": name, "friend": friend}, both, both)


def counting(rng: random.Random) -> Sides:
    words = setting(rng)
    sides = []
    for number in choose_two(rng, [2, 3, 4, 5]):
        fewer = f"{NUMBERS[number - 1]} {words['thing']}"
        if number > 2:
            fewer += "s"
        numbers = {
            "wanted": NUMBERS[number],
            "fewer": fewer,
            "before": ", ".join(NUMBERS[1:number]).capitalize(),
            "count": ", ".join(NUMBERS[1 : number + 1]).capitalize(),
        }
        sides.append(words | numbers)
    return sides[0], sides[1]


def what_did_not_happen(rng: random.Random) -> Sides:
    words = setting(rng)
    did_not, did = choose(rng, NOT_OR_YES)
    return mirrored(words, (did_not.format(**words), did.format(**words)), ("sad", "happy"))


SKILLS = {
    "agreement": Skill("verb and noun", "the verb fits the noun before it: one or many", agreement),
    "he_she": Skill("he or she", "the pronoun fits the child's name", he_she),
    "his_her": Skill("his or her", "the same for what belongs to the child", his_her),
    "tense": Skill("past or present", "the verb has the tense of the sentence before it", tense),
    "a_an": Skill("a or an", "the word after `an` begins with a vowel, the word after `a` does not", a_an),
    "plural": Skill("one or many", "the noun after a number has its s, or has none after `one`", plural),
    "hero_name": Skill("name of the hero", "of two names, the one of the child that the story is about", hero_name),
    "where": Skill("where it was put", "a thing is where it was put last", where),
    "who_has": Skill("who was given it", "the one who got a thing has it, and says thank you", who_has),
    "ending": Skill("ending of the story", "the ending follows from this story, not from another one", ending),
    "cause": Skill("what follows from it", "after a cause comes its effect, not that of another cause", cause),
    "opposites": Skill("opposites", "what was called big is big, not small", opposites),
    "colours": Skill("colours", "what was called red is red, also beside something blue", colours),
    "counting": Skill("counting to five", "the number that comes next, or that was counted", counting),
    "not": Skill("not", "who did not get a cookie is sad; who got one is happy", what_did_not_happen),
}


# Making items ---------------------------------------------------------------------------------------------------------


def mirrored_items(skill: str, template: str, sides: Sides) -> list[Item]:
    """Return an item and its mirror image."""
    context, rest = template.split("{wanted}")
    one, two = sides
    items = []
    for words, other_words in ((one, two), (two, one)):
        after = rest.format(**words)
        right = words["wanted"] + after
        wrong = other_words["wanted"] + after
        items.append(Item(skill, context.format(**words), right, wrong))
    return items


def draw(skill: str, seed: int, known: set[Item]) -> list[Item]:
    """Draw the items of one skill, none of them in `known`; its templates take turns."""
    rng = random.Random(f"{seed} {skill}")
    templates = TEMPLATES[skill]
    items = []
    while len(items) < ITEMS_PER_SKILL:
        template = templates[len(items) // 2 % len(templates)]
        drawn = mirrored_items(skill, template, SKILLS[skill].choose(rng))
        if known.isdisjoint(drawn):
            known.update(drawn)
            items += drawn
    return items


def items_of(name: str) -> list[Item]:
    """Return the items of all skills: 100 each, always the same ones.

    name: "public" or "second".  No item of the second set is in the public one.
    """
    known = set()
    items = {}
    for set_name, seed in SEEDS.items():
        items[set_name] = [item for skill in SKILLS for item in draw(skill, seed, known)]
    return items[name]
