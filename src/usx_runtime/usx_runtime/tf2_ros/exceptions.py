"""The exception classes of tf2."""

from __future__ import annotations


class TransformException(Exception):
    """Base of everything a look-up can raise."""


class LookupException(TransformException):
    """A frame is unknown, or the tree has a loop."""


class ConnectivityException(TransformException):
    """Both frames are known but no chain of transforms joins them."""


class ExtrapolationException(TransformException):
    """The time asked for lies outside what the buffer holds."""


class InvalidArgumentException(TransformException):
    """A frame name is empty or starts with a slash."""


class TimeoutException(TransformException):
    """A time-out ran out."""
