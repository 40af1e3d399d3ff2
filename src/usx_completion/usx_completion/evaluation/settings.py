"""Which spines are examined how, and how many: the fixed splits of configs/evaluation.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from usx_common.errors import UsxError
from usx_completion.data.presets import PRESETS
from usx_completion.data.spine_source import FIRST_TEST_SEED, KEPT

PACKAGED_SETTINGS = Path(__file__).parents[1] / "configs" / "evaluation.yaml"


@dataclass(frozen=True)
class DatasetSettings:
    """``spines`` examined spines (``quick_spines`` with --quick) with one preset; ``seed`` chooses people and errors.

    ``people``: names of real people in the folder of meshes, in turn, each round in another posture; none: the shape
    model of real people is sampled.
    """

    preset: str
    seed: int
    spines: int
    quick_spines: int
    people: tuple[str, ...] = ()


@dataclass(frozen=True)
class RobustnessSettings:
    """The first ``spines`` (``quick_spines``) of one ``dataset`` whose input is made worse."""

    dataset: str
    spines: int
    quick_spines: int


@dataclass(frozen=True)
class EvaluationSettings:
    """The datasets by name, and what the robustness is measured on. ``mesh_postures``: of people of --meshes."""

    datasets: dict[str, DatasetSettings]
    robustness: RobustnessSettings
    mesh_postures: int
    quick_mesh_postures: int


def read_settings(path: Path = PACKAGED_SETTINGS) -> EvaluationSettings:
    """The settings of a YAML file. Raises UsxError that names the key and the value that are wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsxError(f"evaluation settings {path} cannot be read: {error}") from error
    top = _table(content, {"datasets", "robustness", "meshes"}, str(path))
    datasets = {str(name): _dataset(values, f"datasets.{name}")
                for name, values in _table(top["datasets"], None, "datasets").items()}
    robustness = _table(top["robustness"], {"dataset", "spines", "quick_spines"}, "robustness")
    if robustness["dataset"] not in datasets:
        raise UsxError(f"robustness.dataset {robustness['dataset']!r} is none of {', '.join(datasets)}")
    meshes = _table(top["meshes"], {"postures", "quick_postures"}, "meshes")
    return EvaluationSettings(datasets, RobustnessSettings(robustness["dataset"], *_counts(robustness, "robustness",
                                                           ("spines", "quick_spines"))),
                              *_counts(meshes, "meshes", ("postures", "quick_postures")))


def _dataset(values: Any, where: str) -> DatasetSettings:
    keys = {"preset", "seed", "spines", "quick_spines"}
    table = _table(values, keys, where, optional={"people"})
    if table["preset"] not in PRESETS:
        raise UsxError(f"{where}.preset {table['preset']!r} is unknown; known are {', '.join(PRESETS)}")
    seed = table["seed"]
    if not isinstance(seed, int) or not FIRST_TEST_SEED <= seed < 2000:
        raise UsxError(f"{where}.seed {seed!r} must be {KEPT}")
    people = table.get("people", [])
    if not isinstance(people, list) or not all(isinstance(name, str) for name in people):
        raise UsxError(f"{where}.people {people!r} must be a list of names")
    return DatasetSettings(table["preset"], seed, *_counts(table, where, ("spines", "quick_spines")), tuple(people))


def _table(value: Any, keys: set[str] | None, where: str, optional: frozenset[str] | set[str] = frozenset()
           ) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise UsxError(f"{where} must be a table of keys and values, not {value!r}")
    if keys is not None:
        unknown, missing = sorted(set(map(str, value)) - keys - optional), sorted(keys - set(value))
        if unknown or missing:
            raise UsxError(f"{where} has the wrong keys: unknown {unknown}, missing {missing}")
    return value


def _counts(table: dict[str, Any], where: str, keys: tuple[str, str]) -> tuple[int, int]:
    first, second = (table[key] for key in keys)
    for key, value in zip(keys, (first, second), strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10_000:
            raise UsxError(f"{where}.{key} {value!r} must be a whole number, 1 .. 10000")
    return first, second
