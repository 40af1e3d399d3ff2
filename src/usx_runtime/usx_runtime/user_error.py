"""Errors that a user of the command line can put right."""

from __future__ import annotations


class UserError(Exception):
    """Says in one line what was wrong, with which value, and what to do. Commands exit with code 2 for it."""
