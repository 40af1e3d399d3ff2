"""The one kind of error of this package: something was refused, for a named reason."""

from __future__ import annotations

from usx_common.errors import UsxError


class Refused(UsxError):
    """Input that is not used.

    ``reason`` is a short snake_case name for counters; the message says what was wrong, with which value, and what
    to do. Messages name DICOM attributes but never quote a patient's.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
