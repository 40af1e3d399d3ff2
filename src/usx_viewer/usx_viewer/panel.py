"""The panel beside the scene: what each node says, what is shown, from where it is looked at."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from usx_viewer.colours import LEVEL_COLOURS
from usx_viewer.scene import Scene

SWITCHES = {"Bone surface (ultrasound)": ("bone", True), "Live frame": ("slice", True), "X-ray": ("xray", True),
            "CBCT bone": ("cbct", False), "Partial clouds": ("partial", False), "Uncertainty": ("sigma", False)}
LIGHTS = {0: "#4caf50", 1: "#ffb300", 2: "#f44336", 3: "#9e9e9e"}
DISTANCE_M = 0.32
SILENT, SILENT_AFTER_S = 3, 3.5  # nodes report once a second
FIRST_VIEW = "oblique"


@dataclass(frozen=True)
class Status:
    """One node's state: level 0 = well, 1 = warning, 2 = error, 3 = silent; a sentence; lines about its streams."""

    level: int
    text: str
    streams: tuple[str, ...] = ()


class Panel:
    """Switches, views and states; what it needs of the scene it is given."""

    def __init__(self, server: viser.ViserServer, scene: Scene) -> None:
        self._server, self._scene = server, scene
        self._lock = threading.Lock()
        self._states: dict[str, Status] = {}
        self._heard: dict[str, float] = {}
        self._target = np.zeros(3)
        self._directions = {"behind": (np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])),
                            "left": (np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])),
                            "above": (np.array([0.0, 1.0, 0.3]), np.array([0.0, 0.0, 1.0])),
                            FIRST_VIEW: (np.array([0.7, 0.3, 0.8]), np.array([0.0, 1.0, 0.0]))}
        server.gui.configure_theme(dark_mode=True, control_layout="collapsible", show_logo=False)
        server.gui.add_markdown("**usx** · research use only, not a medical device")
        self._add_views()
        self._add_switches()
        with server.gui.add_folder("Nodes"):
            self._text = server.gui.add_html(_html({}))
        server.on_client_connect(lambda client: self.look(client, FIRST_VIEW))

    def _add_views(self) -> None:
        buttons = self._server.gui.add_button_group("Look from", tuple(self._directions))

        @buttons.on_click
        def _(event: Any) -> None:
            if event.client is not None:
                self.look(event.client, buttons.value)

    def _add_switches(self) -> None:
        with self._server.gui.add_folder("Show"):
            for title, (prefix, initial) in SWITCHES.items():
                self._add_switch(title, prefix, initial)
            for level in LEVEL_COLOURS:
                self._add_switch(f"{level} completed", f"completed/{level}", True)
            frames = self._server.gui.add_checkbox("Frames", False)
            frames.on_update(lambda _: self._scene.show_frames(frames.value))

    def _add_switch(self, title: str, prefix: str, initial: bool) -> None:
        box = self._server.gui.add_checkbox(title, initial)
        self._scene.show(prefix, initial)
        box.on_update(lambda _: self._scene.show(prefix, box.value))

    def set_state(self, node: str, status: Status) -> None:
        """Show what a node says of itself."""
        with self._lock:
            self._states[node] = status
            self._heard[node] = time.monotonic()
            self._text.content = _html(self._states)

    def mark_silent(self, now: float) -> None:
        """Grey out the nodes that said nothing for SILENT_AFTER_S: what they last said may no longer hold."""
        with self._lock:
            silent = [name for name, state in self._states.items()
                      if now - self._heard[name] > SILENT_AFTER_S and state.level != SILENT]
            for name in silent:
                self._states[name] = Status(SILENT, f"silent; it last said: {self._states[name].text}")
            if silent:
                self._text.content = _html(self._states)

    def set_patient(self, spine_to_root: NDArray[np.float64]) -> None:
        """Aim the views at the spine: (4, 4) mm; columns are left, posterior, cranial in the root frame."""
        left, posterior, cranial = spine_to_root[:3, 0], spine_to_root[:3, 1], spine_to_root[:3, 2]
        with self._lock:
            first = not self._target.any()
            self._target = spine_to_root[:3, 3] / 1000.0
            self._directions = {"behind": (posterior, cranial), "left": (left, cranial),
                                "above": (cranial + 0.3 * posterior, posterior),
                                FIRST_VIEW: (posterior + 0.9 * left + 0.35 * cranial, cranial)}
        if first:
            for client in self._server.get_clients().values():
                self.look(client, FIRST_VIEW)

    def look(self, client: viser.ClientHandle, name: str) -> None:
        """Move one client's camera to a named view."""
        with self._lock:
            direction, up = self._directions[name]
            target = self._target
        with client.atomic():
            client.camera.up_direction = up
            client.camera.position = target + direction / np.linalg.norm(direction) * DISTANCE_M
            client.camera.look_at = target


def _html(states: dict[str, Status]) -> str:
    """A coloured dot, the node's name and sentence, and its streams in small print."""
    if not states:
        return "<p style='margin:0.6em'>waiting for the nodes</p>"
    rows = []
    for name, state in sorted(states.items()):
        light = LIGHTS.get(state.level, LIGHTS[SILENT])
        rows.append(f"<p style='margin:0.5em 0.6em 0.1em;font-size:90%'><span style='color:{light}'>&#9679;</span> "
                    f"<b>{escape(name)}</b>: {escape(state.text)}</p>")
        rows += [f"<p style='margin:0 1.9em;font-size:80%;opacity:0.7'>{escape(line)}</p>" for line in state.streams]
    return "".join(rows)
