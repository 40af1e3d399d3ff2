"""The results of one sweep as they arrive, when they are complete, and their file."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_common.meshes import Mesh
from usx_common.transforms import parse_matrix

MM_PER_M = 1000.0
FRAMES_STREAM = "compounding_node: us/image_raw"
DATA, FACTS = "results.npz", "results.json"


@dataclass
class Results:
    """The newest of everything; complete when the answer to the sweep's last used frame is there."""

    frames: int
    last_stamp: int
    clouds: dict[str, dict[str, NDArray]] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    images: dict[str, NDArray] = field(default_factory=dict)
    meshes: dict[str, NDArray] = field(default_factory=dict)
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    transforms: dict[str, list[float]] = field(default_factory=dict)
    saved: dict[str, dict[str, Any]] = field(default_factory=dict)
    parents: dict[str, list[str]] = field(default_factory=dict)
    publishers: dict[str, list[str]] = field(default_factory=dict)
    newest: float = field(default_factory=time.monotonic)
    arrivals: dict[str, float] = field(default_factory=dict)

    def add_cloud(self, topic: str, fields: dict[str, NDArray], frame_id: str, stamp: int) -> None:
        """Keep a cloud's fields (SI) and its stamp, ns."""
        self.clouds[topic] = {name: np.array(values) for name, values in fields.items()}
        self.stamps[topic] = stamp
        self.newest = self.arrivals[topic] = time.monotonic()

    def add_image(self, topic: str, pixels: NDArray) -> None:
        """Keep an image."""
        self.images[topic] = pixels

    def clear_meshes(self) -> None:
        """Forget the vertebrae of earlier answers: the newest answer may leave a level out."""
        self.meshes.clear()

    def add_marker(self, namespace: str, number: int, points_m: list[tuple[float, float, float]]) -> None:
        """Keep a triangle list, m."""
        if points_m:
            self.meshes[f"{namespace}/{number}"] = np.array(points_m)

    def add_status(self, name: str, text: str, values: dict[str, str]) -> None:
        """Keep what a node says of itself."""
        self.statuses[name] = {"text": text, **values}

    def add_transform(self, parent: str, child: str, child_to_parent: NDArray) -> None:
        """Keep a transform, mm."""
        self.transforms[f"{child}_to_{parent}"] = child_to_parent.reshape(-1).tolist()

    def add_parent(self, child: str, parent: str) -> None:
        """Keep an edge of the TF tree; a frame with two parents shows as two entries."""
        known = self.parents.setdefault(child, [])
        if parent not in known:
            known.append(parent)

    def add_publishers(self, topic: str, nodes: list[str]) -> None:
        """Keep who publishes a topic: the longest list seen, since a player leaves when its bag ends."""
        if len(nodes) >= len(self.publishers.get(topic, [])):
            self.publishers[topic] = sorted(nodes)

    def add_saved(self, node: str, success: bool, text: str) -> None:
        """Keep a save service's answer."""
        self.saved[node] = {"success": success, "message": text}

    def account(self) -> dict[str, int]:
        """received, used, pending and rejected frames, as the compounding node last reported."""
        status = self.statuses.get(FRAMES_STREAM, {})
        rejected = sum(int(v) for k, v in status.items() if k.startswith("rejected."))
        return {key: int(status.get(key, 0)) for key in ("received", "used", "pending")} | {"rejected": rejected}

    def complete(self) -> bool:
        """Whether the completed spine answers the last frame, or the last that was used if the last was rejected."""
        answered = self.stamps.get("spine/completed")
        if answered is None:
            return False
        if answered == self.last_stamp:
            return True
        account = self.account()
        decided = account["received"] >= self.frames and account["pending"] == 0 and account["used"] < self.frames
        return decided and answered == self.stamps.get("us/bone")

    def settled(self, quiet_s: float, patience_s: float = 20.0) -> bool:
        """Whether the results are complete and no newer cloud came for ``quiet_s`` seconds.

        A partial cloud that came after the last answer is being fitted: that is waited for, up to ``patience_s``.
        """
        quiet = time.monotonic() - self.newest
        fitting = self.arrivals.get("spine/partial", 0.0) > self.arrivals.get("spine/completed", 0.0)
        return self.complete() and quiet >= (patience_s if fitting else quiet_s)

    def abandoned(self, quiet_s: float) -> bool:
        """Whether every frame is decided and yet no completed spine came, ``quiet_s`` seconds after the last news."""
        account = self.account()
        decided = account["received"] >= self.frames and account["pending"] == 0
        return decided and not self.complete() and time.monotonic() - self.newest >= quiet_s

    def stage(self) -> str:
        """What the chain is doing, in a few words."""
        account = self.account()
        if account["received"] == 0:
            return "starting the nodes"
        return "replaying" if account["received"] < self.frames else "completing"

    def what_is_missing(self) -> str:
        """One line for a user whose sweep got no complete answer, with each node's own words."""
        states = "; ".join(f"{name.split(':')[0]}: {status['text']}" for name, status in sorted(self.statuses.items())
                           if name.endswith(": state"))
        account = self.account()
        return (f"no completed spine for the last frame; {account['received']} of {self.frames} frames arrived, "
                f"{account['used']} used, {account['rejected']} rejected. The nodes say: {states or 'nothing'}")

    def matrix(self, child: str, parent: str) -> NDArray[np.float64] | None:
        """``child_to_parent`` (4, 4) in mm, None when it was never published."""
        numbers = self.transforms.get(f"{child}_to_{parent}")
        return None if numbers is None else parse_matrix(numbers, f"{child}_to_{parent}")

    def points_mm(self, topic: str) -> NDArray[np.float64]:
        """(N, 3) points of a cloud in mm; empty when it never came."""
        fields = self.clouds.get(topic)
        if fields is None:
            return np.empty((0, 3))
        return np.stack([fields["x"], fields["y"], fields["z"]], axis=1).astype(np.float64) * MM_PER_M

    def write(self, folder: Path) -> None:
        """Write results.npz and results.json."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {f"cloud|{topic}|{name}": values for topic, fields in self.clouds.items()
                  for name, values in fields.items()}
        arrays |= {f"image|{topic}": pixels for topic, pixels in self.images.items()}
        arrays |= {f"mesh|{name}": points for name, points in self.meshes.items()}
        np.savez_compressed(folder / DATA, **arrays)
        facts = {"frames": self.frames, "last_stamp": self.last_stamp, "stamps": self.stamps,
                 "statuses": self.statuses, "transforms": self.transforms, "saved": self.saved,
                 "parents": self.parents, "publishers": self.publishers}
        (folder / FACTS).write_text(json.dumps(facts, indent=1))


def read_results(folder: Path) -> Results:
    """Results written by ``Results.write``."""
    facts = json.loads((folder / FACTS).read_text())
    results = Results(**facts)
    with np.load(folder / DATA) as arrays:
        for key in arrays.files:
            kind, name, *rest = key.split("|")
            if kind == "cloud":
                results.clouds.setdefault(name, {})[rest[0]] = arrays[key]
            elif kind == "image":
                results.images[name] = arrays[key]
            else:
                results.meshes[name] = arrays[key]
    return results


def triangle_mesh(corners_m: NDArray) -> Mesh:
    """Mesh in mm of a marker's triangle list (3F, 3) in m; corners at the same place become one vertex."""
    vertices, index = np.unique(np.round(corners_m * MM_PER_M, 4), axis=0, return_inverse=True)
    return Mesh(vertices, index.reshape(-1, 3).astype(np.int32))
