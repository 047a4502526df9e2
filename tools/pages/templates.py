"""The templates of the pages, which escape text for HTML, and the scripts and styles in them."""

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import jinja2  # comes with torch

HERE = Path(__file__).parent
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=jinja2.select_autoescape(["html", "svg"]),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def joined(names: Iterable[str]) -> str:
    """Return the files with these names in this folder, scripts or styles, as one text."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def hash_of(script: str) -> str:
    """Return the hash that allows a page to run this script, and no other: see head.html."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def as_json(data: dict) -> str:
    """Return data as JSON that cannot end the <script> element around it."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
