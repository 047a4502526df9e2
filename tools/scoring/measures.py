"""Numbers of texts: how varied they are, how often they repeat themselves, and what they copied.

Pure functions, from texts to numbers.  In reading order: `words`, on which all others stand; `distinct` and `repeated`;
`CopiedPassages`, which compares texts with a training set of any size; `words_come_back`; `mean`.

An n-gram is n words in a row within one text.  A measure of texts that have none to measure is None, never 0.
"""

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
STOP_WORDS = frozenset(  # and those by which one asks for a story
    WORD.findall(
        "a about again all also am an and another any are as at away be because been but by can could did do does for"
        " from had has have he her here him his how i if in into is it its just let like me more my no not of on once"
        " one or our out please she so some story tell than that the their them then there they this time to too up"
        " upon us very was we went were what when where which who why will with would you your"
    )
)


def words(text: str) -> list[str]:
    """A text's words in lower case: runs of letters and digits, apostrophes inside; punctuation is none."""
    return WORD.findall(text.lower())


def ngrams(text: list[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words of a list of words."""
    return [tuple(text[start : start + n]) for start in range(len(text) - n + 1)]


def distinct(texts: list[list[str]], n: int) -> float | None:
    """distinct-n (Li et al. 2016): the different n-grams of all texts together, over all their n-grams.

    texts: lists of words.  It falls as texts grow longer or more, so compare on the same prompts only.
    """
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def repeated(text: list[str], n: int = 4) -> float | None:
    """The share of a text's n-grams that occurred before in it: seq-rep-n of Welleck et al. 2020."""
    different = distinct([text], n)
    return None if different is None else 1 - different


# Copied passages ------------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class State:
    """The runs of words that end at the same places of the texts.

    following: for each word that can come next, the state of the runs that it makes longer.
    link: the state of the longest shorter run at the end of these, which ends at other places, too.
    longest: words in the longest of these runs.  seen: words in the longest one that occurred in what passed by.
    """

    following: dict[object, "State"]
    link: "State | None"
    longest: int
    seen: int = 0


class CopiedPassages:
    """Finds the runs of words that texts share with other texts, which pass by once, one after the other.

    It is a suffix automaton (Blumer et al. 1985) of the texts.  Memory grows with the texts, some 400 bytes a word, and
    not with what they are compared with; time grows with the words of both.  Call `compare` with each other text, then
    `finish`, then `matches` with each of the texts.
    """

    def __init__(self, texts: list[list[str]]):
        """texts: lists of words."""
        self.start = State({}, None, 0)  # of the empty run
        self.states = []  # all others
        last = self.start
        for number, text in enumerate(texts):
            for word in (*text, number):  # the number, which is no word, keeps runs from crossing into the next text
                last = self.extend(last, word)

    def extend(self, last: State, word: object) -> State:
        """Add a word after the state of all words so far; returns the new state."""
        state = State({}, self.start, last.longest + 1)
        self.states.append(state)
        while last is not None and word not in last.following:
            last.following[word] = state
            last = last.link
        if last is None:
            return state
        known = last.following[word]
        if known.longest > last.longest + 1:  # its shorter runs now end here, too: they get a state of their own
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
        """Let one other text, a list of words, pass by."""
        state = self.start
        length = 0  # words of the run that ends here
        for word in text:
            while word not in state.following and state.link is not None:
                state = state.link
                length = state.longest
            if word in state.following:
                state = state.following[word]
                length += 1
                state.seen = max(state.seen, length)

    def finish(self) -> None:
        """Note in all states what has passed by together with the runs that did."""
        by_length = sorted(self.states, key=lambda state: state.longest)
        for state in reversed(by_length):
            if state.seen:  # with a run, its end has passed by
                state.link.seen = state.link.longest
        for state in by_length:
            if not state.seen:
                state.seen = state.link.seen

    def matches(self, text: list[str]) -> list[int]:
        """For each word of one of the texts: how long the longest run is that ends there and has passed by."""
        state = self.start
        lengths = []
        for word in text:
            state = state.following[word]
            lengths.append(state.seen)
        return lengths


def longest_passage(text: list[str], matches: list[int]) -> list[str]:
    """The longest run of words that was copied; the first of several."""
    length = max(matches, default=0)
    end = matches.index(length) + 1 if length else 0
    return text[end - length : end]


def copied_ngrams(matches: list[int], n: int = 5) -> tuple[int, int]:
    """(n-grams that occurred in the training set, all n-grams) of a text's matches."""
    return sum(length >= n for length in matches), max(0, len(matches) - n + 1)


# Words that come back, and means --------------------------------------------------------------------------------------


def words_come_back(wanted: list[str], text: list[str]) -> bool:
    """Whether all wanted words or phrases occur in a list of words, whole, in lower case; a plural s is allowed."""
    joined = f" {' '.join(text)} "
    phrases = [" ".join(words(phrase)) for phrase in wanted]
    return all(f" {phrase} " in joined or f" {phrase}s " in joined for phrase in phrases if phrase)


def content_words_come_back(prompt: str, text: list[str]) -> float | None:
    """The share of a prompt's different words, but for `STOP_WORDS`, that occur in a list of words."""
    wanted = set(words(prompt)) - STOP_WORDS
    return mean(words_come_back([word], text) for word in wanted)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
