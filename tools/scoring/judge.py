"""Let a language model grade texts like a teacher, as in the TinyStories paper (Eldan & Li 2023, section 4.1).

The judge is an OpenAI-compatible endpoint for chat completions.  One request per text asks for grades from 1 to 10 and
for the age group of the writer.  The grades are saved on disk, so no text is graded (and paid for) twice.  In reading
order: `endpoint` and `key_from`, which check the user's settings; `find_grades`, which reads an answer; `Judge.grade`,
one text; `Judge.answer`, which tries until there is an answer; `Judge.ask`, one request.

The key is read from the environment.  It is sent only to the endpoint, not to an address to which the endpoint
redirects, and it is removed from messages of the endpoint before they are shown.
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
MAY_PASS = (408, 409, 425, 429)  # HTTP statuses after which a request is tried again, as after 500 and above


class TryAgain(Exception):
    """A request failed, but trying again may help.  wait: seconds that the endpoint asks for."""

    def __init__(self, reason: str, wait: float = 0):
        super().__init__(reason)
        self.wait = wait


class AsItIs(urllib.request.HTTPErrorProcessor):
    """Return every answer, whatever its status; by default, urllib sends the key to any address of a redirect."""

    def http_response(self, request: urllib.request.Request, response: http.client.HTTPResponse):
        return response

    https_response = http_response


def endpoint(url: str) -> str:
    """Return the address for requests: the URL, with /chat/completions added if it is not there."""
    if not ADDRESS.fullmatch(url):
        raise UserError(
            "--judge must be an address like http://localhost:8000/v1, without a password, ? or #; "
            "put the key in the environment (--judge_key_variable)"
        )
    url = url.rstrip("/")
    return url if url.endswith("/chat/completions") else f"{url}/chat/completions"


def key_from(variable: str) -> str | None:
    """Return the key in an environment variable, or None.  Raises UserError if it cannot be sent."""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch("[!-~]*", key):
        raise UserError(f"the environment variable {variable} has no valid key: a key is plain ASCII without spaces")
    return key or None


def find_grades(answer: str) -> dict | None:
    """Return {"grammar", "creativity", "consistency": 1 to 10, "age_group": A to F} from an answer of the judge.

    Text around the JSON is skipped.  Returns None if a grade is missing or out of range.
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
    """A judge.  url: from `endpoint`; limit: on requests, with repeated ones; the last four fields are counts."""

    url: str
    model: str
    rubric: str
    cache_dir: Path
    limit: int
    key: str | None = field(default=None, repr=False)
    key_variable: str = "OPENAI_API_KEY"
    requests: int = 0
    cached: int = 0  # texts with grades on disk
    unreadable: int = 0  # texts with an answer without grades
    left_out: int = 0  # texts that were not sent because of the limit

    def grade(self, beginning: str, text: str) -> dict | None:
        """Return the grades of a text that continues a beginning, from disk or from the judge; None if there are none.

        An answer without grades is not saved: the next evaluation asks again.  Raises UserError if the judge refuses,
        or if it does not answer after all tries.
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
        """Ask the judge, and try again with growing waits if it fails; return None if the limit is reached."""
        for wait in (*WAITS, None):
            if self.requests >= self.limit:
                return None
            self.requests += 1
            try:
                return self.ask(question)
            except TryAgain as error:
                if wait is None:
                    raise UserError(
                        f"the judge {self.url} does not answer ({error}) after {len(WAITS) + 1} tries; "
                        "the grades so far are saved: run the same command again to continue",
                        status=1,
                    ) from None
                wait = min(LONGEST_WAIT, max(wait, error.wait))
                log.info(f"judge: {error}; next try in {wait:g} s")
                time.sleep(wait)

    def ask(self, question: str) -> str:
        """Send one request; return the answer.  Raises TryAgain, or UserError if trying again would not help."""
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
            raise TryAgain(self.without_key(status), float(wait) if wait.isdecimal() else 0)  # it may be a date
        if response.status != 200:
            reason = self.without_key(f"{status}: {content.decode(errors='replace')}")
            checked = f"--judge {self.url}, --judge_model {self.model} and the key in {self.key_variable}"
            raise UserError(f"the judge refused the request ({reason}); check {checked}")
        try:
            return str(json.loads(content)["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise TryAgain("the answer is not a chat completion") from None

    def without_key(self, text: str) -> str:
        """Return a message of the endpoint as one line, without the key."""
        if self.key:
            text = text.replace(self.key, "***")
        return one_line(text, LONGEST_REASON)

    def summary(self) -> str:
        """Return one line with the counts."""
        return (
            f"judge: requests: {self.requests:,}; grades already in {self.cache_dir}: {self.cached:,}; "
            f"answers without grades: {self.unreadable:,}; texts left out by --judge_limit: {self.left_out:,}; "
            "to get missing grades, run the same command again"
        )
