"""A language model as a teacher that grades texts, as in the TinyStories paper (Eldan & Li 2023, section 4.1).

The judge is asked at an OpenAI-compatible endpoint for chat completions, one request a text, for grades from 1 to 10
and for the age group of the writer.  Its answers are kept on disk, so that nothing is asked (and paid for) twice.  In
reading order: `Judge.grade`; `Judge.ask`, one request; `parse_grades`, what the answer must be.

The key is read from the environment.  It is sent to the endpoint alone, also where that points to another one, and
taken out of everything that the endpoint says.
"""

import hashlib
import http.client
import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from common.console import log
from common.errors import UserError, one_line
from common.files import write_json

GRADES = ("grammar", "creativity", "consistency")
AGE_GROUPS = {"A": "3 or under", "B": "4-5", "C": "6-7", "D": "8-9", "E": "10-12", "F": "13-16"}
WAITS = (1, 2, 4, 8, 16)  # seconds before a request is tried again
LONGEST_WAIT = 60  # seconds, whatever the endpoint asks for
TIMEOUT = 120  # seconds for an answer
LARGEST_ANSWER = 1 << 20  # bytes


class TryAgain(Exception):
    """A request that failed in a way that may pass; .wait: the seconds that the endpoint asks for, or None."""

    def __init__(self, reason, wait=None):
        super().__init__(reason)
        self.wait = wait


class NotFollowed(urllib.request.HTTPRedirectHandler):
    """urllib would send the key on to wherever an answer points."""

    def redirect_request(self, *_):
        return None


def endpoint(url):
    """The address to post to: the URL itself if it ends in /chat/completions, else with that added."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isascii()
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        raise UserError("--judge must be an address such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError("--judge: no password, ? or # in the address; the key belongs in the environment")
    url = url.rstrip("/")
    return url if url.endswith("/chat/completions") else f"{url}/chat/completions"


def key_from(variable):
    """The key in an environment variable, or None.  Raises UserError for one that cannot be sent."""
    key = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UserError(f"the environment variable {variable} holds no key: a key has no spaces and is plain ASCII")
    return key or None


def parse_grades(answer):
    """The grades in what a judge answered, or None if they are not all there.

    Words around the JSON are passed over.  {"grammar", "creativity", "consistency": 1 to 10, "age_group": A to F}.
    """
    for found in re.finditer(r"\{[^{}]*\}", answer):
        try:
            content = json.loads(found[0])
        except ValueError:
            continue
        if grades := checked_grades(content):
            return grades
    return None


def checked_grades(content):
    """The grades of a dict if they are whole and within their limits, else None."""
    if not isinstance(content, dict):
        return None
    grades = {name: content.get(name) for name in GRADES}
    if not all(type(grade) in (int, float) and 1 <= grade <= 10 for grade in grades.values()):
        return None
    age = str(content.get("age_group")).strip()[:1].upper()
    return grades | {"age_group": age} if age in AGE_GROUPS else None


@dataclass
class Judge:
    """url: see `endpoint`.  limit: requests at most, those that are tried again included.  The last four are counts."""

    url: str
    model: str
    rubric: str
    cache_dir: Path
    limit: int
    key: str | None = field(default=None, repr=False)
    key_variable: str = "OPENAI_API_KEY"
    requests: int = 0
    cached: int = 0  # texts whose grades were on disk
    unreadable: int = 0  # texts whose answer held no grades
    left_out: int = 0  # texts for which the limit left no request

    def grade(self, beginning, text):
        """The grades of a text that continues a beginning, from the disk or the judge; None if there are none.

        An answer without grades is not kept: the next evaluation asks again.  Raises UserError if the judge refuses,
        or does not answer however often it is asked.
        """
        asked = [self.url, self.model, self.rubric, beginning, text]
        path = self.cache_dir / (hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32] + ".json")
        if grades := read_grades(path):
            self.cached += 1
            return grades
        for wait in (*WAITS, None):
            if self.requests >= self.limit:
                self.left_out += 1
                return None
            self.requests += 1
            try:
                answer = self.ask(f"BEGINNING:\n{beginning}\n\nCONTINUATION:\n{text}")
                break
            except TryAgain as error:
                if wait is None:
                    tries = f"({error}), asked {len(WAITS) + 1} times"
                    advice = "grades given so far are kept: the same command goes on"
                    raise UserError(f"the judge {self.url} does not answer {tries}; {advice}", status=1) from None
                wait = min(LONGEST_WAIT, wait if error.wait is None else max(wait, error.wait))
                log.info(f"judge: {error}; asking again in {wait:g} s")
                time.sleep(wait)
        grades = parse_grades(answer)
        if grades:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, grades)
        else:
            self.unreadable += 1
        return grades

    def ask(self, question):
        """What the judge answers to one request.  Raises TryAgain, or UserError where trying again would not help."""
        messages = [{"role": "system", "content": self.rubric}, {"role": "user", "content": question}]
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        body = json.dumps({"model": self.model, "messages": messages}).encode()
        request = urllib.request.Request(self.url, body, headers)
        try:
            with urllib.request.build_opener(NotFollowed).open(request, timeout=TIMEOUT) as response:
                content = json.loads(response.read(LARGEST_ANSWER))
            answer = content["choices"][0]["message"]["content"]
            if not isinstance(answer, str):
                raise TypeError("no text")
            return answer
        except urllib.error.HTTPError as error:
            raise self.refusal(error) from None
        except (OSError, http.client.HTTPException) as error:  # no network, no server, no answer in time
            error = getattr(error, "reason", None) or error
            reason = getattr(error, "strerror", None) or error
            raise TryAgain(self.shown(reason) or type(error).__name__) from None
        except (ValueError, LookupError, TypeError, RecursionError):
            raise TryAgain("it is no chat completion that came back") from None

    def refusal(self, error):
        """The exception for an HTTP status that is not success."""
        status = f"{error.code} {self.shown(error.reason)}".strip()
        if error.code in (408, 409, 425, 429) or error.code >= 500:
            return TryAgain(status, seconds(error.headers.get("Retry-After")))
        if error.code in (401, 403):
            return UserError(f"the judge {self.url} wants another key ({status}); set {self.key_variable}")
        try:
            said = json.loads(error.read(LARGEST_ANSWER))["error"]["message"]
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError):
            said = ""
        reason = f"{status}: {self.shown(said)}" if said else status
        return UserError(f"the judge refuses ({reason}); check --judge {self.url} and --judge_model {self.model}")

    def shown(self, text):
        """What the endpoint said, for a message of one line, without the key."""
        return one_line(str(text).replace(self.key, "***") if self.key else str(text))

    def summary(self):
        """One line about what was asked."""
        parts = [f"requests: {self.requests:,}", f"grades already in {self.cache_dir}: {self.cached:,}"]
        if self.unreadable:
            parts.append(f"answers without grades: {self.unreadable:,}")
        if self.left_out:
            parts.append(f"texts left out by --judge_limit: {self.left_out:,} (the same command goes on)")
        return f"judge: {'; '.join(parts)}"


def seconds(retry_after):
    """The seconds in a Retry-After header, or None."""
    try:
        wait = float(retry_after)
    except (TypeError, ValueError):  # there is none, or it is a date
        return None
    return wait if 0 <= wait < math.inf else None


def read_grades(path):
    """The grades in a file of the cache, or None if it is not there or not whole."""
    try:
        return checked_grades(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
