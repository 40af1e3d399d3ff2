"""What may go wrong in an operating room, as options of a phantom: the settings, their words, their limits."""

from __future__ import annotations

from dataclasses import dataclass, fields

from usx_common.errors import UsxError

HELP = """trouble (all off unless given; the truth stays true, and truth/trouble.yaml says which frames it hit):
  drop=SHARE             of the frames never arrives
  duplicate=SHARE        arrives twice, 2 ms apart
  late=SHARE             arrives 0.3 s late, with its own stamp
  reorder=SHARE          is overtaken by the next frame
  pose_gap=S             the robot says nothing for S seconds in mid-sweep
  time_offset=S          frames are stamped S seconds too late (negative: too early)
  lift_off=SHARE         of the sweep the probe is off the skin
  calibration=MM[:DEG]   params.yaml's image_to_probe is shifted by MM and turned by DEG
  motion=DEG[:MM]        before X-ray and CBCT L1 turns by DEG against L5, discs in between share it, and the patient
                         moves by MM (truth/xray has the bones as they are then)
"""


class BadTrouble(UsxError):
    """Trouble that does not exist or goes too far."""


@dataclass(frozen=True)
class Trouble:
    """How much of each trouble; 0 is none. `HELP` says what they mean; angles in degrees, lengths in mm, times in s."""

    drop: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    reorder: float = 0.0
    pose_gap: float = 0.0
    time_offset: float = 0.0
    lift_off: float = 0.0
    calibration: float = 0.0
    calibration_turn: float = 0.0
    motion: float = 0.0
    motion_shift: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high, unit = LIMITS[field.name]
            value = getattr(self, field.name)
            if not low <= value <= high:
                raise BadTrouble(f"trouble {field.name} = {value:g}{unit}: must be {low:g} to {high:g}")
        total = self.drop + self.duplicate + self.late + 2.0 * self.reorder
        if total > 0.9:
            raise BadTrouble(f"trouble drop, duplicate, late and twice reorder take {total:.0%} of the frames; "
                             "leave 10 % alone")

    @property
    def any(self) -> bool:
        """Whether there is any trouble."""
        return any(getattr(self, field.name) != 0.0 for field in fields(self))

    def as_dict(self) -> dict[str, float]:
        """Those that are on."""
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) != 0.0}


LIMITS = {
    "drop": (0.0, 0.9, ""), "duplicate": (0.0, 0.9, ""), "late": (0.0, 0.9, ""), "reorder": (0.0, 0.4, ""),
    "pose_gap": (0.0, 10.0, " s"), "time_offset": (-0.5, 0.5, " s"), "lift_off": (0.0, 0.8, ""),
    "calibration": (0.0, 30.0, " mm"), "calibration_turn": (0.0, 20.0, " degrees"), "motion": (0.0, 30.0, " degrees"),
    "motion_shift": (0.0, 60.0, " mm"),
}
# Words with a second number, and the setting that it is.
SECOND = {"calibration": "calibration_turn", "motion": "motion_shift"}


def parse_trouble(text: str) -> Trouble:
    """Trouble of words such as ``drop=0.1,pose_gap=0.4,calibration=2:1``; the empty text is none.

    Raises BadTrouble naming the word that is unknown, twice there, no number or out of its range.
    """
    known = [name for name in LIMITS if name not in SECOND.values()]
    values: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, amount = (part.strip() for part in word.partition("="))
        if name not in known:
            raise BadTrouble(f"--trouble {name!r} is unknown; known are {', '.join(known)}")
        if name in values:
            raise BadTrouble(f"--trouble names {name} twice: keep one")
        numbers = amount.split(":") if equals else []
        if not 1 <= len(numbers) <= (2 if name in SECOND else 1):
            raise BadTrouble(f"--trouble {word!r}: write {name}=NUMBER{'[:NUMBER]' if name in SECOND else ''}")
        for key, number in zip((name, SECOND.get(name, "")), numbers, strict=False):
            try:
                values[key] = float(number)
            except ValueError:
                raise BadTrouble(f"--trouble {word!r}: {number!r} is no number") from None
    return Trouble(**values)
