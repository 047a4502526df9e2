"""What becomes a page, and the templates for it: the report of `tools/grade_runs.py`, the web demo, the model card."""

from pathlib import Path

import jinja2  # comes with torch

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(["html", "svg"]),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
