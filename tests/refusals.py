"""How the code refuses: by a UserError of one line."""

import pytest

from common.errors import UserError


def one_line(error):
    """The message of a UserError, which must be one line."""
    message = str(error.value)
    assert message and "\n" not in message
    return message


def error_of(function, *args, **options):
    """The message of the UserError that function raises: one line, for what the user can fix."""
    with pytest.raises(UserError) as raised:
        function(*args, **options)
    assert raised.value.status == 2
    return one_line(raised)
