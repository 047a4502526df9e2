"""The templates of the pages; they escape text for HTML."""

from pathlib import Path

import jinja2  # comes with torch

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(["html", "svg"]),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
