"""Text from files that others made, ready for a message, a terminal or UTF-8."""


def clean(text):
    """Lone surrogates, which UTF-8 cannot write, become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def shortened(text, length=100):
    """What a file holds, for a message of one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[:length] + "..."


CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text):
    """Text that a model wrote, without the control characters with which it could garble a terminal or a log."""
    return text.translate(CONTROLS)


def printed(value):
    """What a stranger's file holds, short and on one line."""
    if not isinstance(value, (str, int, float, type(None))):
        return "?"
    return "".join(c if c.isprintable() else "?" for c in str(value)[:60])
