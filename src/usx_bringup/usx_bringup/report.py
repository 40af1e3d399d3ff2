"""The report of a sweep: metrics against the truth, meshes, pictures, and what each node said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from usx_bringup import pictures
from usx_bringup.acquisition import Truth
from usx_bringup.results import Results, triangle_mesh
from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import LEVELS, SOURCE_ULTRASOUND, label_of_level
from usx_common.meshes import Mesh, write_mesh
from usx_common.volumes import read_volume
from usx_completion.completion import place_mean
from usx_completion.metrics import level_rows, unit_of_partial, write_metrics_csv
from usx_completion.shape_model import load_shape_model

MESH_COMMENT = "mm, frame spine (LPS: x left, y posterior, z cranial)"
ROW_TITLES = {"assd_mm": "surface distance, mm", "hd95_mm": "95 % Hausdorff, mm", "cd_t_e4": "CD-T x1e4", "f1": "F1",
              "emd_e4": "EMD x1e4", "placed_mean_assd_mm": "mean shape placed, mm"}
Row = dict[str, object]


def completed_meshes(results: Results) -> dict[str, Mesh]:
    """The completed vertebrae by level, mm, frame spine."""
    found = {}
    for name, corners in results.meshes.items():
        level = next((level for level in LEVELS if level in name or str(label_of_level(level)) in name), None)
        if level is not None:
            found[level] = triangle_mesh(corners)
    return {level: found[level] for level in LEVELS if level in found}


def truth_in_spine(results: Results, truth: Truth) -> dict[str, Mesh]:
    """The true vertebrae in frame spine, through the transforms that the nodes published.

    Raises UsxError when the chain world - us_volume - spine was never complete.
    """
    volume_to_world, spine_to_volume = results.matrix("us_volume", "world"), results.matrix("spine", "us_volume")
    if volume_to_world is None or spine_to_volume is None:
        raise UsxError("the nodes published no transform from world to spine; the truth cannot be compared")
    cbct_to_spine = transforms.invert(volume_to_world @ spine_to_volume) @ truth.cbct_to_world
    return {level: mesh.transformed(cbct_to_spine) for level, mesh in truth.meshes.items()}


def partial_of_level(results: Results, level: str) -> NDArray[np.float64]:
    """Ultrasound points (N, 3) of one level, mm, frame spine."""
    fields = results.clouds.get("spine/partial")
    if fields is None:
        return np.empty((0, 3))
    keep = (np.round(fields["label"]) == label_of_level(level)) & (np.round(fields["source"]) == SOURCE_ULTRASOUND)
    return results.points_mm("spine/partial")[keep]


def score(results: Results, completed: dict[str, Mesh], truth: dict[str, Mesh]) -> list[Row]:
    """The rows of metrics.csv for every level that was completed and whose truth is known."""
    placed = _placed_means(results)
    rows: list[Row] = []
    for level, mesh in completed.items():
        if level in truth and level in placed:
            unit = unit_of_partial(partial_of_level(results, level))
            rows += level_rows(level, truth[level], mesh, placed[level], unit)
    return rows


def _placed_means(results: Results) -> dict[str, Mesh]:
    """The mean vertebrae merely placed on the same partial cloud: the baseline that a fit must beat."""
    fields = results.clouds.get("spine/partial")
    if fields is None:
        return {}
    model, _ = load_shape_model()
    placed = place_mean(model, results.points_mm("spine/partial"), fields["label"], fields["source"])
    return {level: completed.mesh for level, completed in placed.levels.items()}


def write_report(out: Path, results: Results, truth: Truth | None) -> Table | str:
    """Write meshes/, metrics.csv, volume.nrrd, the pictures and report.md; returns the table for the terminal."""
    completed = completed_meshes(results)
    (out / "meshes").mkdir(parents=True, exist_ok=True)
    for level, mesh in completed.items():
        write_mesh(out / "meshes" / f"{level}.ply", mesh, MESH_COMMENT)
    truth_meshes = truth_in_spine(results, truth) if truth is not None and completed else {}
    rows = score(results, completed, truth_meshes)
    if rows:
        write_metrics_csv(out / "metrics.csv", rows)
    names = _draw(out, results, completed, truth_meshes)
    (out / "report.md").write_text(_markdown(results, rows, names, completed))
    return _table(rows)


def _draw(out: Path, results: Results, completed: dict[str, Mesh], truth: dict[str, Mesh]) -> dict[str, str]:
    """Draw what can be drawn; file name -> caption."""
    names = {}
    volume_file = _saved_volume(out)
    if volume_file is not None:
        volume_to_world = results.matrix("us_volume", "world")
        bone = transforms.apply(np.eye(4) if volume_to_world is None else volume_to_world, results.points_mm("us/bone"))
        pictures.draw_volume(out / "volume.png", read_volume(volume_file), bone)
        names["volume.png"] = "Compounded volume: three sections, bone surface in orange"
    if "xray/image" in results.images:
        pictures.draw_xray(out / "xray.png", results.images["xray/image"], results.images.get("xray/labels"))
        names["xray.png"] = "Lateral X-ray with the segmented vertebral bodies"
    if completed:
        partial = results.points_mm("spine/partial"), results.clouds["spine/partial"]["source"]
        pictures.draw_spine(out / "spine.png", partial, completed, truth)
        names["spine.png"] = "What was seen, the completed vertebrae, and the truth, from the left and from behind"
    return names


def _saved_volume(out: Path) -> Path | None:
    """Bring the volume that the compounding node saved to OUT/volume.nrrd."""
    found = sorted((out / "saved").rglob("*.nrrd"), key=lambda path: path.stat().st_mtime)
    if not found:
        return None
    return Path(shutil.copyfile(found[-1], out / "volume.nrrd"))


def _markdown(results: Results, rows: list[Row], names: dict[str, str], completed: dict[str, Mesh]) -> str:
    account = results.account()
    lines = ["# usx report", "", "Research use only; not a medical device.", "",
             f"Frames: {results.frames} recorded, {account['received']} received, {account['used']} used, "
             f"{account['rejected']} rejected. Completed levels: {', '.join(completed) or 'none'}.", ""]
    if not completed:
        lines += [f"**{results.what_is_missing()}**", ""]
    if rows:
        lines += ["## Errors against the truth", "",
                  "Whole vertebra, arch (behind the mean y of the truth) and body. One unit of CD-T, F1 and EMD is the "
                  "left-right extent of the level's partial cloud + 30 mm.", "", *_metric_table(rows), ""]
    for name, caption in names.items():
        lines += [f"## {caption}", "", f"![{caption}]({name})", ""]
    lines += ["## What the nodes say", "", *[f"* {name}: {status['text']}" for name, status in
                                            sorted(results.statuses.items())], ""]
    return "\n".join(lines)


def _metric_table(rows: list[Row]) -> list[str]:
    head = ["level", "part", *ROW_TITLES.values()]
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [str(row["level"]), str(row["part"]), *(_number(row[key]) for key in ROW_TITLES)]
        table.append("| " + " | ".join(cells) + " |")
    return table


def _number(value: Any) -> str:
    return f"{value:.2f}"


def _table(rows: list[Row]) -> Table | str:
    if not rows:
        return "no truth to compare with"
    table = Table(title="errors against the truth (whole vertebrae)")
    for title in ("level", *ROW_TITLES.values()):
        table.add_column(title, justify="right")
    for row in rows:
        if row["part"] == "whole":
            table.add_row(str(row["level"]), *(_number(row[key]) for key in ROW_TITLES))
    return table
