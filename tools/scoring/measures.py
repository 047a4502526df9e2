"""Measure texts: how varied they are, how often they repeat themselves, and how much they copied.

Pure functions from texts to numbers.  In reading order: `words`, which most others use; `distinct` and `repeated`;
`CopiedPassages`, which compares texts with a training set of any size; `words_come_back`; `names_in` and `hero_stays`;
`mean`.

An n-gram is n consecutive words of one text.  A measure is None, never 0, if there is nothing to measure.
"""

import re
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
STOP_WORDS = frozenset(  # with the words that ask for a story
    WORD.findall(
        "a about again all also am an and another any are as at away be because been but by can could did do does for"
        " from had has have he her here him his how i if in into is it its just let like me more my no not of on once"
        " one or our out please she so some story tell than that the their them then there they this time to too up"
        " upon us very was we went were what when where which who why will with would you your"
    )
)
CAPITALIZED = re.compile(r"\b[A-Z][a-z]+")
INSIDE_SENTENCE = re.compile(r"(?<=[\w,] )[A-Za-z][a-z]+")  # after a word or a comma, so not at the beginning
NAMED = re.compile(r"\bnamed ([A-Z][a-z]+)")
NOT_NAMES = frozenset(  # family, titles, days, months and the like: they have capitals, too
    WORD.findall(
        "Mom Mommy Mum Mummy Mama Mother Dad Daddy Papa Father Grandma Grandpa Granny Nana Grandmother Grandfather"
        " Sister Brother Aunt Auntie Uncle Mr Mrs Ms Miss Dr Doctor Sir King Queen Prince Princess Monday Tuesday"
        " Wednesday Thursday Friday Saturday Sunday January February March July September October November December"
        " Christmas Easter Halloween Thanksgiving Santa God Earth The End Ok"
    )
)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case: letters, digits and inner apostrophes, without punctuation."""
    return WORD.findall(text.lower())


def ngrams(text: list[str], n: int) -> list[tuple[str, ...]]:
    """Return all n-grams of a list of words."""
    return [tuple(text[start : start + n]) for start in range(len(text) - n + 1)]


def distinct(texts: list[list[str]], n: int) -> float | None:
    """Return distinct-n (Li et al. 2016): number of different n-grams in all texts / number of n-grams.

    texts: lists of words.  Longer or more texts lower it, so compare only on the same prompts.
    """
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def repeated(text: list[str], n: int = 4) -> float | None:
    """Return the share of a text's n-grams that repeat an earlier one: seq-rep-n of Welleck et al. 2020."""
    different = distinct([text], n)
    return None if different is None else 1 - different


# Copied passages ------------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class State:
    """A state of the automaton: the word sequences that end at the same positions of the texts.

    following: for each possible next word, the state of the sequences with that word added.
    link: the state of the longest suffix of these sequences that also ends at other positions.
    longest: length in words of the longest of these sequences.
    seen: length in words of the longest one that occurs in a compared text.
    """

    following: dict[object, "State"]
    link: "State | None"
    longest: int
    seen: int = 0


class CopiedPassages:
    """Find the word sequences that texts share with other texts, such as a training set, which is read only once.

    It is a suffix automaton (Blumer et al. 1985) of the texts.  Memory grows only with these texts, by about 400 bytes
    per word; time grows with the words of both.  Call `compare` with each text of the training set, then `finish`, then
    `matches` with each of the first texts.
    """

    def __init__(self, texts: list[list[str]]):
        """texts: lists of words."""
        self.start = State({}, None, 0)  # the empty sequence
        self.states = []  # all others
        last = self.start
        for number, text in enumerate(texts):
            for word in (*text, number):  # the number is not a word, so no sequence crosses into the next text
                last = self.extend(last, word)

    def extend(self, last: State, word: object) -> State:
        """Add a word after the state of all words so far; return the new state."""
        state = State({}, self.start, last.longest + 1)
        self.states.append(state)
        while last is not None and word not in last.following:
            last.following[word] = state
            last = last.link
        if last is None:
            return state
        known = last.following[word]
        if known.longest > last.longest + 1:  # its shorter sequences now end here too: they get their own state
            shorter = State(known.following.copy(), known.link, last.longest + 1)
            self.states.append(shorter)
            known.link = shorter
            while last is not None and last.following.get(word) is known:
                last.following[word] = shorter
                last = last.link
            known = shorter
        state.link = known
        return state

    def compare(self, text: list[str]) -> None:
        """Compare with one text of the training set, a list of words."""
        state = self.start
        length = 0  # words in the sequence that ends here
        for word in text:
            while word not in state.following and state.link is not None:
                state = state.link
                length = state.longest
            if word in state.following:
                state = state.following[word]
                length += 1
                state.seen = max(state.seen, length)

    def finish(self) -> None:
        """Complete `seen` in all states: if a sequence was seen, so were its suffixes."""
        by_length = sorted(self.states, key=lambda state: state.longest)
        for state in reversed(by_length):
            if state.seen:  # then its suffixes were seen too
                state.link.seen = state.link.longest
        for state in by_length:
            if not state.seen:
                state.seen = state.link.seen

    def matches(self, text: list[str]) -> list[int]:
        """Return for each word of one of the texts: the length of the longest copied sequence that ends there."""
        state = self.start
        lengths = []
        for word in text:
            state = state.following[word]
            lengths.append(state.seen)
        return lengths


def longest_passage(text: list[str], matches: list[int]) -> list[str]:
    """Return the longest copied word sequence; the first one if there are several."""
    length = max(matches, default=0)
    end = matches.index(length) + 1 if length else 0
    return text[end - length : end]


def copied_ngrams(matches: list[int], n: int = 5) -> tuple[int, int]:
    """Return (number of n-grams that are in the training set, number of all n-grams) from a text's matches."""
    return sum(length >= n for length in matches), max(0, len(matches) - n + 1)


# Words and names that come back, and means ----------------------------------------------------------------------------


def words_come_back(wanted: list[str], text: list[str]) -> bool:
    """Return whether all wanted words or phrases are in a list of lower-case words; a plural s is allowed."""
    joined = f" {' '.join(text)} "
    phrases = [" ".join(words(phrase)) for phrase in wanted]
    return all(f" {phrase} " in joined or f" {phrase}s " in joined for phrase in phrases if phrase)


def content_words_come_back(prompt: str, text: list[str]) -> float | None:
    """Return the share of a prompt's different words, without `STOP_WORDS`, that are in a list of words."""
    wanted = set(words(prompt)) - STOP_WORDS
    return mean(words_come_back([word], text) for word in wanted)


def names_in(texts: Iterable[str]) -> set[str]:
    """Return the words that are names in these texts.

    Inside sentences a name has a capital more often than not.  Words at the beginning of a sentence or of direct speech
    tell nothing, and `NOT_NAMES` are left out: "Mom" is in most stories, whoever their hero is.
    """
    capital = Counter()
    small = Counter()
    for text in texts:
        for word in INSIDE_SENTENCE.findall(text):
            if word[0].isupper():
                capital[word] += 1
            else:
                small[word] += 1
    return {word for word, count in capital.items() if count > small[word.lower()]} - NOT_NAMES


def hero_of(prompt: str) -> str | None:
    """Return the name of the hero in the beginning of a story: the first NAME in `named NAME`."""
    found = NAMED.search(prompt)
    return found[1] if found else None


def hero_stays(hero: str, names: set[str], text: str) -> bool:
    """Return whether the hero's name comes back in a text, and no other of the names comes more often."""
    counts = Counter(word for word in CAPITALIZED.findall(text) if word in names or word == hero)
    return counts[hero] > 0 and counts[hero] == max(counts.values())


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
