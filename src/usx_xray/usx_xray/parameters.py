"""Parameters of the X-ray node, and the settings that the rest of the package makes of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from usx_common.levels import LEVEL_NAMES
from usx_common.parameters import Parameter
from usx_xray.ct_bone import BoneSettings
from usx_xray.dicom_file import Limits
from usx_xray.geometry import GeometryOverrides
from usx_xray.refusal import Refused
from usx_xray.seeds import Seed, seeds_of_parameters
from usx_xray.storage import StorageSettings

TABLE = (
    Parameter("watch_folder", "", "folder in which DICOM X-rays arrive; empty = none", read_only=True),
    Parameter("cbct_folder", "", "folder in which a CT or CBCT series arrives; empty = none", read_only=True),
    Parameter("file_quiet_time", 1.0, "s that a file must stay unchanged before it is read", 0.0, 60.0, read_only=True),
    Parameter("series_quiet_time", 2.0, "s without a new file after which a CT series is taken as complete", 0.1, 600.0,
              read_only=True),
    Parameter("dicom_port", 0, "TCP port of the C-STORE listener; 0 = off", 0, 65535, read_only=True),
    Parameter("dicom_bind_address", "127.0.0.1", "IP address to listen on; another than loopback needs "
              "allowed_ae_titles", read_only=True),
    Parameter("ae_title", "USX", "AE title that senders must call", read_only=True),
    Parameter("allowed_ae_titles", [], "AE titles that may send; empty = any (loopback only)", element=str,
              read_only=True),
    Parameter("dicom_store_folder", "", "folder for received objects; empty = a temporary one", read_only=True),
    Parameter("max_associations", 4, "DICOM connections at one time", 1, 32, read_only=True),
    Parameter("max_object_mib", 256, "largest DICOM file or object, MiB", 1, 4096, read_only=True),
    Parameter("dicom_timeout", 30.0, "s after which a silent DICOM peer is cut off", 1.0, 600.0, read_only=True),
    Parameter("source_to_detector", 0.0, "source-detector distance (SID), mm; 0 = as the file says", 0.0, 10000.0),
    Parameter("source_to_midplane", 0.0, "distance from the source of the plane in which the bodies lie, mm; 0 = the "
              "source-object distance of the file", 0.0, 10000.0),
    Parameter("detector_spacing", [], "pixel spacing at the detector as [row, column], mm; empty = as the file says",
              length=2, minimum=1e-3, maximum=10.0),
    Parameter("principal_point", [], "where the principal ray meets the image as [column, row], pixels; empty = the "
              "middle", length=2),
    Parameter("seed_labels", [], "label of each seed, 20..24 for L1..L5", element=int, minimum=20, maximum=24),
    Parameter("seed_columns", [], "column of each seed, pixels of the DICOM image"),
    Parameter("seed_rows", [], "row of each seed, pixels of the DICOM image"),
    Parameter("click_labels", list(LEVEL_NAMES), "labels given to clicks in their order, cranial to caudal",
              minimum=20, maximum=24, check=lambda labels: "" if labels and len(set(labels)) == len(labels) else
              "one or more labels, none of them twice"),
    Parameter("minimum_confidence", 0.4, "least confidence of a body (0 = chance, 1 = bone all along the outline)",
              0.0, 1.0),
    Parameter("body_point_spacing", 1.0, "grid of the bodies' points, mm", 0.2, 5.0),
    Parameter("cbct_bone_threshold", 250.0, "value above which a CT voxel is bone, Hounsfield units", -500.0, 3000.0),
    Parameter("cbct_point_spacing", 1.0, "size of the voxels that thin the CT's bone surface, mm", 0.3, 10.0),
)


def limits(values: dict[str, Any]) -> Limits:
    """Limits on files."""
    largest = int(values["max_object_mib"]) * 2**20
    return Limits(file_bytes=largest, inflated_bytes=largest)


def overrides(values: dict[str, Any]) -> GeometryOverrides:
    """Geometry that the operator supplies."""
    return GeometryOverrides(values["source_to_detector"], values["source_to_midplane"],
                             tuple(values["detector_spacing"]), tuple(values["principal_point"]))


def seeds(values: dict[str, Any]) -> list[Seed]:
    """Seeds given as parameters. Raises Refused."""
    return seeds_of_parameters(values["seed_labels"], values["seed_columns"], values["seed_rows"])


def bone(values: dict[str, Any]) -> BoneSettings:
    """How bone is found in a CT."""
    return BoneSettings(threshold=values["cbct_bone_threshold"], point_spacing=values["cbct_point_spacing"])


def storage(values: dict[str, Any]) -> StorageSettings | None:
    """Settings of the C-STORE listener; None when it is off."""
    if not values["dicom_port"]:
        return None
    folder = values["dicom_store_folder"] or tempfile.mkdtemp(prefix="usx_dicom_")
    return StorageSettings(values["dicom_port"], Path(folder), values["dicom_bind_address"], values["ae_title"],
                           tuple(values["allowed_ae_titles"]), int(values["max_object_mib"]) * 2**20,
                           associations=values["max_associations"], idle_timeout=values["dicom_timeout"],
                           object_timeout=4.0 * values["dicom_timeout"])


def check_seed_lists(values: dict[str, Any]) -> str:
    """Why the three seed lists do not fit together; empty when they do."""
    try:
        seeds(values)
    except Refused as error:
        return str(error)
    return ""
