"""Command line: training examples of the completion network as the suite's own nodes see spines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from usx_bringup.dry_run import CBCT_POINTS, NODES, examine
from usx_completion.correction.examples import Example, example_of
from usx_completion.correction.make_pool import Counts, make
from usx_completion.correction.pool import SOURCES, Recipe, names_of
from usx_completion.correction.pool_identity import PoolIdentity
from usx_completion.data.spine_source import SPINES_PER_SEED, SourceChoice, open_source
from usx_completion.observation import observe
from usx_completion.shape_model import ShapeModel
from usx_phantom.acquisition import (
    CLICK_ERROR_MM,
    DEVICE_ERROR_DEG,
    DEVICE_ERROR_MM,
    IMAGES,
    AcquisitionSettings,
)
from usx_phantom.sweep import PATTERNS

DESCRIPTION = """Make training examples of the project's own network from whole acquisitions: of each spine a sweep, an
X-ray and the errors of an operator are simulated, and compounding, segmentation and registration do with them what the
nodes do. In --out: train/ and val/ as of make_pool. The same options and seed give the same files, whatever --jobs.
A stopped run goes on where it was; a folder that was made with other options is refused."""
EXAMPLES = """examples:
  make_acquired_pool --out out/acquired                  35 minutes on two quiet cores
  train --config usx --data out/pool out/acquired --out out/usx --processes 2 --threads 1
"""
STRIDE = 3  # of 30 frames/s: 1.7 mm apart, twice as far where the sweep goes up and down: sparser than the nodes' own
USUAL = AcquisitionSettings()
USUAL_COUNTS = Counts(600, 40, 200, least=1)  # seed 0 would bring the errors of demonstrations
VARIANT = "acquisition 1"  # raised when the chain makes something else of the same acquisition


class AcquiredMaker:
    """Examples by number: each source in turn, every other round with the other pattern of the sweep."""

    def __init__(self, model: ShapeModel, identity: PoolIdentity) -> None:
        self._model, self._identity = model, identity
        self._spines = {name: open_source(SourceChoice(name, identity.seed)) for name in set(identity.sources)}

    def example(self, number: int) -> Example:
        """Example ``number``. Raises UsxError where the chain refuses it."""
        sources = self._identity.sources
        spine = self._spines[sources[number % len(sources)]].sample(number)
        pattern = PATTERNS[number // len(sources) % len(PATTERNS)]
        settings = replace(USUAL, seed=self._identity.seed * SPINES_PER_SEED + number,
                           sweep=replace(USUAL.sweep, pattern=pattern))
        found = examine(spine.meshes, settings, STRIDE)
        partial = found.partial
        truth = {level: mesh.transformed(found.cbct_to_spine) for level, mesh in spine.meshes.items()}
        return example_of(self._model, observe(partial.points, partial.labels, partial.sources), truth)


def acquired_recipe() -> Recipe:
    """Acquisitions of the spines that `make_pool` takes."""
    nodes = {parameter.name: parameter.default for table in NODES for parameter in table}
    held = {"acquisition": USUAL.as_dict(), "nodes": nodes, "stride": STRIDE, "images": IMAGES, "cbct": CBCT_POINTS,
            "device": (DEVICE_ERROR_MM, DEVICE_ERROR_DEG), "clicks": CLICK_ERROR_MM}
    return Recipe((VARIANT,), SOURCES, (json.dumps(held, sort_keys=True), *names_of(SOURCES)), AcquiredMaker)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, or 2 for bad input (one line on stderr)."""
    parser = argparse.ArgumentParser("make_acquired_pool", description=DESCRIPTION, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    return make(parser, USUAL_COUNTS, arguments, acquired_recipe)


if __name__ == "__main__":
    sys.exit(main())
