"""Pictures for the documentation: what the simulated ultrasound, radiograph and CBCT of a phantom look like."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from rich.console import Console

from usx_common.errors import UsxError
from usx_common.transforms import make_transform
from usx_phantom import cbct, xray
from usx_phantom.checks import check_whole
from usx_phantom.mesh_import import AXES, read_spine
from usx_phantom.phantom_scene import body_centres, build_scene
from usx_phantom.scene import Scene
from usx_phantom.spine import sample_spine
from usx_phantom.sweep import SweepSettings, path_pose
from usx_phantom.ultrasound import ProbeGeometry, UltrasoundSimulator

DESCRIPTION = """Draw phantom_bmode.png, phantom_radiograph.png and phantom_cbct.png: simulated ultrasound frames, the
lateral radiograph and the cone-beam CT of one phantom. Not for medical use."""
EXAMPLES = """examples:
  imaging_pictures --out docs/images              the sampled spine of seed 0
  imaging_pictures --meshes DIR --out pictures    your own L1..L5 (.ply or .stl, mm)
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("imaging_pictures", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write the pictures to")
    p.add_argument("--seed", type=int, default=0, help="chooses the person and the noise (default 0)")
    p.add_argument("--meshes", type=Path, metavar="DIR", help="folder with L1..L5 (mm) instead of a sampled spine")
    p.add_argument("--axes", choices=sorted(AXES), default="RAS", help="axes of --meshes (default RAS)")
    return p


def draw(scene: Scene, folder: Path, seed: int) -> list[Path]:
    """Write the three pictures of a scene into `folder` (made when missing); returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [draw_bmode(scene, folder / "phantom_bmode.png", seed),
            draw_radiograph(scene, folder / "phantom_radiograph.png", seed),
            draw_cbct(scene, folder / "phantom_cbct.png", seed)]


def draw_bmode(scene: Scene, path: Path, seed: int) -> Path:
    """Six frames of L3 and its neighbours: three across the spine, three along it."""
    simulator = UltrasoundSimulator(scene, seed=seed)
    views = _across(scene, simulator)
    middle = float(scene.meshes["L3"].vertices[:, 2].mean())
    for title, beside in (("spinous processes", 0.0), ("laminae", 10.0), ("transverse processes", 27.0)):
        views[f"along, {beside:.0f} mm beside the midline: {title}"] = sagittal_pose(scene, middle, beside)
    figure, axes = plt.subplots(2, 3, figsize=(15, 8.2), facecolor="black")
    for number, (axis, (title, pose)) in enumerate(zip(axes.flat, views.items(), strict=True)):
        _show_frame(axis, simulator.frame(pose, number), simulator.geometry)
        axis.set_title(title, color="white", fontsize=11)
    return _save(figure, path, 66)  # speckle does not compress: smaller, to stay below 300 kB


def draw_radiograph(scene: Scene, path: Path, seed: int) -> Path:
    """The radiograph as stored, and the same with the true centres of the bodies projected into it."""
    radiograph = xray.simulate_lateral(scene, seed=seed)
    figure, axes = plt.subplots(1, 2, figsize=(11.5, 7.4), facecolor="black")
    for axis in axes:
        axis.imshow(radiograph.pixels, cmap="gray", interpolation="antialiased")
        axis.axis("off")
    for level, centre in body_centres(scene.labelmap).items():
        column, row = radiograph.project(centre[None])[0]
        axes[1].plot(column, row, "+", color="orange", markersize=12)
        axes[1].text(column + 22, row, level, color="orange", va="center")
    first, second = radiograph.patient_orientation
    axes[0].text(0.98, 0.5, first, color="white", transform=axes[0].transAxes, ha="right")
    axes[0].text(0.5, 0.02, second, color="white", transform=axes[0].transAxes)
    return _save(figure, path)


def draw_cbct(scene: Scene, path: Path, seed: int) -> Path:
    """Axial, sagittal and coronal planes through the body of L3, window -350 to 1150 HU."""
    volume = cbct.simulate(scene, seed=seed)
    centre = body_centres(scene.labelmap)["L3"]
    x, y, z = np.rint((centre - volume.grid.origin) / volume.grid.spacing).astype(int)
    planes = {"axial, L3": volume.values[z], "sagittal": volume.values[::-1, :, x], "coronal": volume.values[::-1, y]}
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.2), facecolor="black")
    for axis, (title, plane) in zip(axes, planes.items(), strict=True):
        axis.imshow(plane, cmap="gray", vmin=-350, vmax=1150, interpolation="antialiased")
        axis.set_title(title, color="white", fontsize=11)
        axis.axis("off")
    return _save(figure, path)


def _across(scene: Scene, simulator: UltrasoundSimulator) -> dict[str, np.ndarray]:
    """Poses of the default sweep over L3, by what they show: found by where the scan lines meet bone."""
    low, high = scene.meshes["L3"].vertices[:, 2].min(), scene.meshes["L3"].vertices[:, 2].max()
    poses = [path_pose(scene, SweepSettings(), float(fraction)) for fraction in np.linspace(0.0, 1.0, 300)]
    poses = [pose for pose in poses if low - 5.0 < pose[2, 3] < high]
    depths = np.array([simulator.bone_depths(pose) for pose in poses])
    lines = depths.shape[1]
    middle = depths[:, lines // 2 - 4:lines // 2 + 4]
    window = np.where(np.isfinite(middle).all(axis=1), middle.min(axis=1), 0.0)
    return {"across: spinous process and laminae": poses[int(middle.min(axis=1).argmin())],
            "across: transverse processes": poses[int(np.isfinite(depths).sum(axis=1).argmax())],
            "across: between the laminae": poses[int(window.argmax())]}


def sagittal_pose(scene: Scene, z: float, beside: float) -> np.ndarray:
    """us_probe -> cbct (4, 4) with the image along the spine, `beside` mm to the patient's left of the midline."""
    slope = float(scene.skin.slope(np.array(z)))
    beam = np.array([0.0, -1.0, slope]) / np.hypot(1.0, slope)
    along = np.cross(beam, [1.0, 0.0, 0.0])
    x = scene.skin.x0 + beside
    face = np.array([x, float(scene.skin.height(np.array(x), np.array(z))), z]) + 5.0 * beam
    return make_transform(np.column_stack([along, np.cross(beam, along), beam]), face)


def _show_frame(axis: Axes, frame: np.ndarray, geometry: ProbeGeometry) -> None:
    """A frame with ticks of depth every 2 cm."""
    axis.imshow(frame, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    row = geometry.apex[1]
    for depth in np.arange(0.0, geometry.depth + 1.0, 20.0):
        r = row + (geometry.radius + depth) / geometry.pixel
        axis.plot([geometry.columns - 12, geometry.columns - 2], [r, r], color="0.7", linewidth=1)
        if depth % 40 == 0:
            axis.text(geometry.columns - 16, r, f"{depth:.0f} mm", color="0.7", fontsize=7, ha="right", va="center")
    axis.axis("off")


def _save(figure: plt.Figure, path: Path, dpi: int = 80) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=dpi, facecolor=figure.get_facecolor())
    plt.close(figure)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 drawn, 2 bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    console = Console()
    try:
        seed = check_whole("--seed", options.seed)
        with console.status("making the phantom and its images"):
            bones = sample_spine(seed).meshes if options.meshes is None else read_spine(options.meshes, options.axes)
            paths = draw(build_scene(bones, seed), options.out, seed)
    except (UsxError, OSError) as error:
        print(f"imaging_pictures: {error}", file=sys.stderr)
        return 2
    for path in paths:
        console.print(str(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
