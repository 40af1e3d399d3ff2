"""The one base class of errors that a user may see."""

from __future__ import annotations


class UsxError(ValueError):
    """A problem with input, a file or a parameter, told in one line: what was wrong, with which value, what to do."""
