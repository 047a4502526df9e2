"""A language model as a teacher that grades texts, as in the TinyStories paper (Eldan & Li 2023, section 4.1).

The judge is asked at an OpenAI-compatible endpoint for chat completions, one request a text, for grades from 1 to 10
and for the age group of the writer.  Its answers are kept on disk, so that nothing is asked (and paid for) twice.  In
reading order: `endpoint` and `key_from`, what the user gives; `find_grades`, what an answer must hold; `Judge.grade`,
`Judge.answer`, which asks until there is an answer, and `Judge.ask`, one request.

The key is read from the environment.  It is sent to the endpoint alone, also where that points to another one, and
taken out of everything that the endpoint says.
"""

import hashlib
import http.client
import json
import os
import re
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from common.console import log
from common.errors import UserError, one_line, reason_of
from common.files import write_json
from common.numbers import finite_number

GRADES = ("grammar", "creativity", "consistency")
AGE_GROUPS = {"A": "3 or under", "B": "4-5", "C": "6-7", "D": "8-9", "E": "10-12", "F": "13-16"}
ADDRESS = re.compile(r"https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?(/[\w.~%+:=/-]*)?", re.ASCII)
WAITS = (1, 2, 4, 8, 16)  # seconds before a request is tried again
LONGEST_WAIT = 60  # seconds, whatever the endpoint asks for
TIMEOUT = 120  # seconds for an answer
LARGEST_ANSWER = 1 << 20  # bytes
LONGEST_REASON = 300  # characters of a refusal that are shown
MAY_PASS = (408, 409, 425, 429)  # HTTP statuses after which a request is tried again; and those from 500 on


class TryAgain(Exception):
    """A request that failed in a way that may pass.  wait: seconds that the endpoint asks for."""

    def __init__(self, reason: str, wait: float = 0):
        super().__init__(reason)
        self.wait = wait


class AsItIs(urllib.request.HTTPErrorProcessor):
    """Returns every answer, whatever its status; urllib would send the key on to wherever an answer points."""

    def http_response(self, request: urllib.request.Request, response: http.client.HTTPResponse):
        return response

    https_response = http_response


def endpoint(url: str) -> str:
    """The address to post to: the URL itself if it ends in /chat/completions, else with that added."""
    if not ADDRESS.fullmatch(url):
        raise UserError(
            "--judge must be an address such as http://localhost:8000/v1, without a password, ? or #; "
            "the key belongs in the environment"
        )
    url = url.rstrip("/")
    return url if url.endswith("/chat/completions") else f"{url}/chat/completions"


def key_from(variable: str) -> str | None:
    """The key in an environment variable.  Raises UserError for one that cannot be sent."""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch("[!-~]*", key):
        raise UserError(f"the environment variable {variable} holds no key: a key has no spaces and is plain ASCII")
    return key or None


def find_grades(answer: str) -> dict | None:
    """{"grammar", "creativity", "consistency": 1 to 10, "age_group": A to F} in what a judge answered.

    Words around the JSON are skipped.  None if the grades are not all there, or beyond their limits.
    """
    for text in re.findall(r"\{[^{}]*\}", answer):
        try:
            content = json.loads(text)
        except ValueError:
            continue
        grades = {name: finite_number(content.get(name)) for name in GRADES}
        age = str(content.get("age_group")).strip()[:1].upper()
        if all(grade is not None and 1 <= grade <= 10 for grade in grades.values()) and age in AGE_GROUPS:
            return grades | {"age_group": age}
    return None


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

    def grade(self, beginning: str, text: str) -> dict | None:
        """The grades of a text that continues a beginning, from the disk or the judge; None if there are none.

        An answer without grades is not kept: the next evaluation asks again.  Raises UserError if the judge refuses,
        or does not answer however often it is asked.
        """
        asked = json.dumps([self.url, self.model, self.rubric, beginning, text])
        path = self.cache_dir / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"
        grades = find_grades(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
        if grades:
            self.cached += 1
            return grades
        answer = self.answer(f"BEGINNING:\n{beginning}\n\nCONTINUATION:\n{text}")
        if answer is None:
            self.left_out += 1
            return None
        grades = find_grades(answer)
        if grades:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, grades)
        else:
            self.unreadable += 1
        return grades

    def answer(self, question: str) -> str | None:
        """What the judge answers, asked again with growing waits where it fails; None if the limit is reached."""
        for wait in (*WAITS, None):
            if self.requests >= self.limit:
                return None
            self.requests += 1
            try:
                return self.ask(question)
            except TryAgain as error:
                if wait is None:
                    raise UserError(
                        f"the judge {self.url} does not answer ({error}), asked {len(WAITS) + 1} times; "
                        "grades given so far are kept: the same command goes on",
                        status=1,
                    ) from None
                wait = min(LONGEST_WAIT, max(wait, error.wait))
                log.info(f"judge: {error}; asking again in {wait:g} s")
                time.sleep(wait)

    def ask(self, question: str) -> str:
        """What the judge answers to one request.  Raises TryAgain, or UserError where trying again would not help."""
        messages = [{"role": "system", "content": self.rubric}, {"role": "user", "content": question}]
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        body = json.dumps({"model": self.model, "messages": messages}).encode()
        request = urllib.request.Request(self.url, body, headers)
        try:
            with urllib.request.build_opener(AsItIs).open(request, timeout=TIMEOUT) as response:
                content = response.read(LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:  # no network, no server, no answer in time
            reason = getattr(error, "reason", error)
            raise TryAgain(self.without_key(reason_of(reason))) from None
        status = f"{response.status} {response.reason}"
        if response.status in MAY_PASS or response.status >= 500:
            wait = response.headers.get("Retry-After", "")
            raise TryAgain(self.without_key(status), float(wait) if wait.isdecimal() else 0)  # it may be a date, too
        if response.status != 200:
            reason = self.without_key(f"{status}: {content.decode(errors='replace')}")
            checked = f"--judge {self.url}, --judge_model {self.model} and the key in {self.key_variable}"
            raise UserError(f"the judge refuses ({reason}); check {checked}")
        try:
            return str(json.loads(content)["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise TryAgain("it is no chat completion that came back") from None

    def without_key(self, text: str) -> str:
        """What the endpoint said, for a message of one line."""
        if self.key:
            text = text.replace(self.key, "***")
        return one_line(text, LONGEST_REASON)

    def summary(self) -> str:
        """One line about what was asked."""
        return (
            f"judge: requests: {self.requests:,}; grades already in {self.cache_dir}: {self.cached:,}; "
            f"answers without grades: {self.unreadable:,}; texts left out by --judge_limit: {self.left_out:,}; "
            "the same command asks for what is missing"
        )
