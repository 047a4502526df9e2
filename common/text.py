"""Text that others made, ready for UTF-8, for a terminal, or for a message of one line."""

import json

CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot write, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def without_controls(text: str) -> str:
    """Replace control characters, which could garble a terminal or a log, by U+FFFD; line breaks and tabs stay."""
    return text.translate(CONTROLS)


def one_line(value: object, length: int = 100) -> str:
    """Show what a file of somebody else holds in a message: at most so many characters, on one line.

    Only texts, numbers and None are shown: lists in lists can be endless.
    """
    if not isinstance(value, (str, int, float, type(None))):
        return "?"
    text = " ".join(str(value).split())
    shown = text if len(text) <= length else text[:length] + "..."
    return "".join(character if character.isprintable() else "?" for character in shown)


def one_line_json(value: object) -> str:
    """Show a value of a JSON file, lists and objects too."""
    return one_line(json.dumps(value, default=str), 60)
