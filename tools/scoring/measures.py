"""Numbers of texts: how varied they are, how often they repeat themselves, and what they copied.

Pure functions, from texts to numbers.  In reading order: `words`, on which all others stand; `distinct` and `repeated`;
`CopiedPassages`, which compares texts with a training set of any size; `words_come_back`; `mean`.

An n-gram is n words in a row within one text.  A measure of texts that have none to measure is None, never 0.
"""

import re
import statistics

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
STOP_WORDS = frozenset(  # and those by which one asks for a story
    WORD.findall(
        "a about again all also am an and another any are as at away be because been but by can could did do does for"
        " from had has have he her here him his how i if in into is it its just let like me more my no not of on once"
        " one or our out please she so some story tell than that the their them then there they this time to too up"
        " upon us very was we went were what when where which who why will with would you your"
    )
)


def words(text):
    """A text's words in lower case: runs of letters and digits, apostrophes inside; punctuation is none."""
    return WORD.findall(text.lower())


def ngrams(text, n):
    """All runs of n words of a list of words, as tuples."""
    return list(zip(*(text[start:] for start in range(n)), strict=False))


def distinct(texts, n):
    """distinct-n (Li et al. 2016): the different n-grams of all texts together, over all their n-grams.

    texts: lists of words.  It falls as texts grow longer or more, so compare on the same prompts only.
    """
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def repeated(text, n=4):
    """The share of a text's n-grams that occurred before in it: seq-rep-n of Welleck et al. 2020."""
    grams = ngrams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


class CopiedPassages:
    """Finds the runs of words that texts share with other texts, which pass by once, one after the other.

    A suffix automaton (Blumer et al. 1985) of the texts: a state stands for runs of words that occur at the same
    places, and leads with each word that can come next to another state.  Memory grows with the texts, some 400
    bytes a word, and not with what they are compared with; time grows with the words of both.
    """

    def __init__(self, texts):
        """texts: lists of words."""
        self.following = [{}]  # of each state: {word: the state that it leads to}; state 0 is the empty run
        self.link = [-1]  # the state of the longest suffix that also occurs elsewhere
        self.longest = [0]  # words in the state's longest run
        self.seen = [0]  # words in its longest run that occurred in what passed by
        self.states = []  # of each text: the state after each of its words
        last = 0
        for number, text in enumerate(texts):
            states = []
            for word in (*text, number):  # the number, which is no word, keeps a run from crossing into the next text
                last = self.extend(last, word)
                states.append(last)
            self.states.append(states[:-1])

    def new_state(self, following, link, longest):
        self.following.append(following)
        self.link.append(link)
        self.longest.append(longest)
        self.seen.append(0)
        return len(self.longest) - 1

    def extend(self, last, word):
        """Add a word after the state of all words so far; returns the new state."""
        state = self.new_state({}, 0, self.longest[last] + 1)
        while last >= 0 and word not in self.following[last]:
            self.following[last][word] = state
            last = self.link[last]
        if last < 0:
            return state
        known = self.following[last][word]
        if self.longest[known] > self.longest[last] + 1:  # its shorter runs now occur here too: a state of their own
            split = self.new_state(self.following[known].copy(), self.link[known], self.longest[last] + 1)
            while last >= 0 and self.following[last].get(word) == known:
                self.following[last][word] = split
                last = self.link[last]
            self.link[known] = known = split
        self.link[state] = known
        return state

    def compare(self, text):
        """Let one other text, a list of words, pass by."""
        following, link, longest, seen = self.following, self.link, self.longest, self.seen
        state = length = 0
        for word in text:
            while state and word not in following[state]:
                state = link[state]
                length = longest[state]
            if word in following[state]:
                state = following[state][word]
                length += 1
                if length > seen[state]:
                    seen[state] = length

    def matches(self):
        """For each text a list: for each word, how long the longest run is that ends there and has passed by."""
        seen, by_length = self.seen.copy(), sorted(range(1, len(self.link)), key=self.longest.__getitem__)
        for state in reversed(by_length):  # with a run, its suffixes have passed by
            if seen[state]:
                seen[self.link[state]] = self.longest[self.link[state]]
        for state in by_length:
            seen[state] = seen[state] or seen[self.link[state]]
        return [[seen[state] for state in states] for states in self.states]


def longest_passage(text, matches):
    """The longest run of words that was copied, as a list of words; the first of several."""
    length = max(matches, default=0)
    end = matches.index(length) + 1 if length else 0
    return text[end - length : end]


def copied_ngrams(matches, n=5):
    """(n-grams that occurred in the training set, all n-grams) of a text's matches."""
    return sum(length >= n for length in matches), max(0, len(matches) - n + 1)


def words_come_back(wanted, text):
    """Whether all wanted words or phrases occur in a list of words, whole, in lower case; a plural s is allowed."""
    joined = f" {' '.join(text)} "
    phrases = [" ".join(words(phrase)) for phrase in wanted]
    phrases = [phrase for phrase in phrases if phrase]
    return all(f" {phrase} " in joined or f" {phrase}s " in joined for phrase in phrases)


def content_words_come_back(prompt, text):
    """The share of a prompt's different words, but for `STOP_WORDS`, that occur in a list of words."""
    wanted = sorted(set(words(prompt)) - STOP_WORDS)
    return mean(words_come_back([word], text) for word in wanted)


def mean(values):
    """The mean of the values that are not None; None if there is none."""
    values = [value for value in values if value is not None]
    return statistics.fmean(values) if values else None
