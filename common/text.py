"""Text from others, made safe for UTF-8 or for a terminal; for messages see `errors.one_line`."""

CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def without_controls(text: str) -> str:
    """Replace control characters, which could garble a terminal or a log, by U+FFFD; keep line breaks and tabs."""
    return text.translate(CONTROLS)
