"""Check refusals: each is a UserError with a message of one line."""

import pytest

from common.errors import UserError


def one_line(error):
    """Return the message of a UserError, which must be one line."""
    message = str(error.value)
    assert message and "\n" not in message
    return message


def error_of(function, *args, **options):
    """Call a function that must raise a UserError of status 2, and return its one-line message."""
    with pytest.raises(UserError) as raised:
        function(*args, **options)
    assert raised.value.status == 2
    return one_line(raised)
