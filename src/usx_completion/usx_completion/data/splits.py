"""Train, validation and test by subject: a person and all deformations of that person are in one split alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from usx_common.errors import UsxError

NAMES = ("train", "val", "test")
# People that no model of the project learns from: their figures are what is reported for real anatomy.
FIXED_TEST = frozenset({"verse008", "verse009"})
GOLDEN = 0.5 * (5.0**0.5 - 1.0)


@dataclass(frozen=True)
class Fractions:
    """Shares of the subjects; they must add up to 1."""

    train: float = 0.6
    val: float = 0.2
    test: float = 0.2

    def __post_init__(self) -> None:
        values = (self.train, self.val, self.test)
        if min(values) < 0.0 or not abs(sum(values) - 1.0) < 1e-9:
            raise UsxError(f"split {values} is impossible: shares must be 0 or more and add up to 1")


def parse_fractions(text: str) -> Fractions:
    """Shares from "60/20/20" or "0.6/0.2/0.2". Raises UsxError for another form or sum."""
    try:
        values = [float(part) for part in text.split("/")]
        train, val, test = values
    except ValueError as error:
        raise UsxError(f"split {text!r} is not of the form TRAIN/VAL/TEST, such as 60/20/20") from error
    whole = 100.0 if sum(values) > 1.5 else 1.0
    return Fractions(train / whole, val / whole, test / whole)


def known_as(name: str) -> str:
    """A subject's name without what data sets put around it: "sub-verse008" and "Verse008" are verse008."""
    return name.strip().lower().removeprefix("sub-")


def split_subjects(subjects: Iterable[str], fractions: Fractions, seed: int = 0) -> dict[str, str]:
    """Subject -> split. Depends on the set of names, the shares and the seed, not on the order or on repeats.

    Names that `known_as` finds equal are one subject. Those of `FIXED_TEST` are always in "test" and count towards its
    share. Others are put in the order of a hash of seed and name and cut to the shares, rounded to whole subjects.
    """
    subjects = list(subjects)
    names = sorted({known_as(name) for name in subjects})
    free = sorted((name for name in names if name not in FIXED_TEST), key=lambda name: _rank(name, seed))
    fixed = len(names) - len(free)
    test = max(round(fractions.test * len(names)) - fixed, 0)
    val = min(round(fractions.val * len(names)), len(free) - test) if fractions.train > 0 else len(free) - test
    result = {name: "test" for name in names if name in FIXED_TEST}
    for index, name in enumerate(free):
        result[name] = "test" if index < test else "val" if index < test + val else "train"
    return {name: result[known_as(name)] for name in subjects}


def split_in_turn(subjects: Iterable[str], fractions: Fractions, seed: int = 0) -> dict[str, str]:
    """Subject -> split for subjects that come in a sequence without end: where one goes depends on the shares, the seed
    and its number in the sequence alone, so a longer sequence leaves it there.

    Multiples of the golden ratio, modulo 1, fill the shares evenly at any length (Kuipers and Niederreiter, "Uniform
    Distribution of Sequences", 1974).
    """
    start = seed * 2.0**0.5
    result = {}
    for number, name in enumerate(dict.fromkeys(subjects)):
        place = (start + number * GOLDEN) % 1.0
        result[name] = ("train" if place < fractions.train else
                        "val" if place < fractions.train + fractions.val or fractions.test == 0.0 else "test")
    return result


def check_no_straddling(subjects: Sequence[str], splits: Sequence[str]) -> None:
    """Raise UsxError when a subject is in more than one split."""
    where: dict[str, str] = {}
    for subject, split in zip(subjects, splits, strict=True):
        first = where.setdefault(known_as(subject), split)
        if first != split:
            raise UsxError(f"subject {subject} is in {first} and in {split}: people must not straddle splits")


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
