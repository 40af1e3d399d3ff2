"""Data set files: the authors' keys, shapes and types both ways; refusals with a reason; splits by subject."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.transforms import apply
from usx_completion.data.dataset import from_samples
from usx_completion.data.examination import examine, level_samples
from usx_completion.data.presets import PAPER, SampleSettings
from usx_completion.data.splits import (
    FIXED_TEST,
    Fractions,
    check_no_straddling,
    parse_fractions,
    split_in_turn,
    split_subjects,
)
from usx_completion.data.storage import (
    BadDataset,
    DatasetWriter,
    copy_split,
    read_dataset,
    write_authors_layout,
    write_dataset,
)
from usx_completion.data.xray_cloud import CloudSizes

AUTHORS_KEYS = {"incomplete_pcds", "complete_pcds", "labelmaps", "labels", "number_per_class", "datasets_ids"}


@pytest.fixture(scope="module")
def samples(data_spine, data_chain):
    sampling = SampleSettings(PAPER, 300, CloudSizes(200, 48))
    return level_samples(examine(data_spine, sampling, 2), data_spine, sampling, data_chain, 2)


@pytest.fixture(scope="module")
def data(samples, shape_model):
    return replace(from_samples(samples, [7] * 5, ["val"] * 5, shape_model.faces), attributes={"preset": "paper"})


@pytest.fixture
def stored(data, tmp_path):
    write_dataset(tmp_path / "set.h5", data)
    return tmp_path / "set.h5"


def test_a_file_has_the_authors_keys_shapes_and_types(stored, data):
    with h5py.File(stored) as file:
        assert set(file) == AUTHORS_KEYS | {"usx"}
        for key, points in (("incomplete_pcds", 300), ("complete_pcds", 300), ("labelmaps", 200)):
            assert file[key].shape == (5, points, 3) and file[key].dtype == np.float64
            assert file[key].chunks == (1, points, 3) and file[key].compression == "gzip"
        assert file["labels"][:].tolist() == [0, 1, 2, 3, 4] and file["labels"].dtype == np.int64
        assert file["number_per_class"][:].tolist() == [1] * 5 and file["number_per_class"].dtype == np.int64
        first = file["datasets_ids"][0]
        assert isinstance(first, bytes) and first == b"model-3000001_L1_deformation0"


def test_headers_and_texts_are_guarded_by_checksums(stored):
    """Damage there goes unnoticed or hangs HDF5 otherwise: old headers and texts of any length have no checksum."""
    with h5py.File(stored) as file:
        assert stored.read_bytes()[8] >= 2  # version of the superblock
        for key in ("datasets_ids", "usx/subjects", "usx/splits"):
            assert h5py.check_string_dtype(file[key].dtype).length is not None and file[key].compression == "gzip"
        assert all(file.attrs.get_id(name).dtype.kind == "S" for name in file.attrs)


def test_names_beyond_ascii_come_back_and_endless_ones_are_refused(data, tmp_path):
    named = replace(data, extras=replace(data.extras, subjects=np.array(["Ärztin-β"] * 5)))
    write_dataset(tmp_path / "named.h5", named)
    assert read_dataset(tmp_path / "named.h5").extras.subjects[0] == "Ärztin-β"
    with pytest.raises(UsxError, match="400 bytes"):
        write_dataset(tmp_path / "long.h5", replace(data, ids=np.array(["x" * 400] * 5)))


def test_what_is_read_is_what_was_written(stored, data):
    again = read_dataset(stored)
    for name in ("incomplete", "complete", "labelmaps", "labels", "ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name))
    for name, value in vars(data.extras).items():
        np.testing.assert_array_equal(getattr(again.extras, name), value)
        assert getattr(again.extras, name).dtype.kind == value.dtype.kind
    assert again.attributes["preset"] == "paper" and again.attributes["units"].startswith("mm")


def test_stored_samples_go_back_to_millimetres(stored, samples, data_spine):
    again = read_dataset(stored)
    for index, sample in enumerate(samples):
        frame = again.extras.normalised_to_spine[index]
        true = sample.input.normalisation.invert(sample.input.partial)
        assert np.abs(apply(frame, again.incomplete[index]) - true).max() < 1e-4
        assert again.extras.scale[index] == sample.input.normalisation.scale
        vertices = data_spine.meshes[sample.level].vertices
        assert np.abs(again.extras.vertices[index] - vertices).max() < 1e-4
        np.testing.assert_array_equal(again.extras.level_to_spine[index], data_spine.level_to_spine[sample.level])


def test_a_file_of_the_authors_layout_loads(tmp_path):
    """Made by hand as their loader expects it: no extras, ids as fixed-length bytes, uncompressed."""
    random = np.random.default_rng(0)
    clouds = {key: random.uniform(-0.5, 0.5, (3, 64, 3)) for key in ("incomplete_pcds", "complete_pcds", "labelmaps")}
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        for key, cloud in clouds.items():
            file[key] = cloud
        file["labels"] = np.array([1, 2, 1], np.int32)
        file["number_per_class"] = np.array([0, 2, 1, 0, 0])
        file["datasets_ids"] = np.array([b"verse835_verLev21_forces0", b"verse835_verLev22", b"x"])
    data = read_dataset(tmp_path / "theirs.h5")
    assert data.extras is None and data.ids[0] == "verse835_verLev21_forces0" and len(data) == 3
    np.testing.assert_array_equal(data.labelmaps, clouds["labelmaps"])
    with pytest.raises(BadDataset, match="authors' layout"):
        read_dataset(tmp_path / "theirs.h5", "train")


def test_the_authors_layout_is_written_without_extras(data, tmp_path):
    write_authors_layout(tmp_path / "plain.h5", data)
    with h5py.File(tmp_path / "plain.h5") as file:
        assert set(file) == AUTHORS_KEYS
    again = read_dataset(tmp_path / "plain.h5")
    np.testing.assert_array_equal(again.incomplete, data.incomplete)


def test_one_split_is_copied_to_the_authors_layout_without_reading_the_rest(data, mixed, tmp_path, monkeypatch):
    read = []
    getitem = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda stored, rows: read.append((stored.name, rows)) or
                        getitem(stored, rows))
    copy_split(mixed, "train", tmp_path / "part.h5")
    monkeypatch.undo()
    assert [int(rows) for name, rows in read if name == "/complete_pcds"] == [0, 2, 4]
    part = read_dataset(tmp_path / "part.h5")
    for name in ("incomplete", "complete", "labelmaps", "labels", "ids"):
        np.testing.assert_array_equal(getattr(part, name), getattr(data, name)[[0, 2, 4]])
    assert part.extras is None and part.number_per_class.tolist() == [1, 0, 1, 0, 1]
    with pytest.raises(UsxError, match="no sample"):
        copy_split(mixed, "none", tmp_path / "nothing.h5")
    assert not (tmp_path / "nothing.h5").exists()


def _delete(key):
    return lambda file: file.__delitem__(key)


def _set(key, index, value):
    def change(file):
        file[key][index] = value
    return change


def _replace(key, value):
    def change(file):
        del file[key]
        file[key] = value
    return change


def _group(key):
    def change(file):
        del file[key]
        file.create_group(key)
    return change


def _sheared(file):
    """Of the same determinant, so the scale alone does not tell."""
    file["usx/normalised_to_spine"][0] = file["usx/normalised_to_spine"][0] @ np.array(
        [[1.0, 0.3, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


DAMAGE = {
    "lacks labelmaps": _delete("labelmaps"),
    "incomplete_pcds holds numbers": _set("incomplete_pcds", (0, 0, 0), np.nan),
    "labels hold": _set("labels", 0, 9),
    "number_per_class does not agree": _set("number_per_class", 0, 3),
    "complete_pcds has shape .2, 300": _replace("complete_pcds", np.zeros((2, 300, 3))),
    "labelmaps has shape": _replace("labelmaps", np.zeros((5, 8, 2))),
    "must be floats": _replace("labelmaps", np.zeros((5, 8, 3), np.int64)),
    "must be whole numbers": _replace("labels", np.zeros(5)),
    "datasets_ids has shape": _replace("datasets_ids", np.array([b"a"])),
    r"datasets_ids is object of shape \(\)": _replace("datasets_ids", "one"),
    "datasets_ids is int64": _replace("datasets_ids", np.arange(5)),
    "complete_pcds has shape": _replace("complete_pcds", np.zeros((5, 299, 3))),
    "labels is no array": _group("labels"),
    "labelmaps is no array": _group("labelmaps"),
    "usx is no group": _replace("usx", np.zeros(5)),
    "labels is int64 of shape None": _replace("labels", h5py.Empty(np.int64)),
    "no sample": _replace("labelmaps", np.zeros((5, 0, 3))),
    "has the format None": lambda file: file.attrs.__delitem__("format"),
    "lacks usx/scale": _delete("usx/scale"),
    "usx/scale does not agree": _set("usx/scale", 0, 0.5),
    "usx/scale holds -0.01": _set("usx/scale", 0, -0.01),
    "usx/scale is float64 of shape": _replace("usx/scale", np.ones((5, 2))),
    "usx/scale is object": _replace("usx/scale", [b"a"] * 5),
    "usx/normalised_to_spine": _sheared,
    "usx/level_to_spine holds": _set("usx/level_to_spine", (0, 0, 1), 0.5),
    "usx/owners has shape": _replace("usx/owners", np.full((5, 200), 20, np.uint8)),
    "usx/owners is float64": _replace("usx/owners", np.full((5, 300), -1.0)),
    "usx/owners holds 7": _set("usx/owners", (1, 2), 7),
    "usx/faces names": _set("usx/faces", (0, 0), 100_000),
    "usx/faces names .*-1": _set("usx/faces", (0, 0), -1),
    "usx/faces is object": _replace("usx/faces", [b"a"] * 5),
    "usx/vertices is float64 of shape": _replace("usx/vertices", np.zeros(5)),
    "only one of": _delete("usx/faces"),
    "usx/splits names 'foo'": _set("usx/splits", slice(None), "foo"),
    "is in val and in train": _set("usx/splits", 2, "train"),
    "usx/subjects has shape": _replace("usx/subjects", np.array([b"a"])),
    "usx/level_to_spine has shape": _replace("usx/level_to_spine", np.zeros((5, 3, 4))),
    "usx/outlines holds": _set("usx/outlines", (0, 0, 0), np.inf),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_file_is_refused_with_the_reason(stored, reason):
    with h5py.File(stored, "a") as file:
        DAMAGE[reason](file)
    with pytest.raises(BadDataset, match=reason) as refusal:
        read_dataset(stored)
    assert str(stored) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_foreign_files_and_missing_files_are_refused(stored, share):
    content = stored.read_bytes()
    stored.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadDataset, match="cannot be read"):
        read_dataset(stored)
    stored.write_text("not HDF5 at all")
    with pytest.raises(BadDataset, match="cannot be read"):
        read_dataset(stored)
    with pytest.raises(BadDataset, match="does not exist"):
        read_dataset(stored.with_name("none.h5"))


def test_a_flipped_byte_in_a_compressed_chunk_is_refused(stored):
    content = bytearray(stored.read_bytes())
    with h5py.File(stored) as file:
        where = file["complete_pcds"].id.get_chunk_info(2)
    content[where.byte_offset + where.size // 2] ^= 0xFF
    stored.write_bytes(content)
    with pytest.raises(BadDataset):
        read_dataset(stored)


def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(stored, data):
    before = stored.read_bytes()
    with pytest.raises(RuntimeError, match="power"), DatasetWriter(stored, {}) as writer:
        writer.append(data)
        raise RuntimeError("power cut")
    assert stored.read_bytes() == before and [p.name for p in stored.parent.iterdir()] == [stored.name]
    with pytest.raises(UsxError, match="no sample"), DatasetWriter(stored.with_name("empty.h5"), {}):
        pass
    assert [p.name for p in stored.parent.iterdir()] == [stored.name]


def test_parts_of_other_sizes_do_not_fit(stored, data):
    other = replace(data, labelmaps=data.labelmaps[:, :100])
    with pytest.raises(UsxError, match="labelmaps"), DatasetWriter(stored.with_name("b.h5"), {}) as writer:
        writer.append(data)
        writer.append(other)
    with pytest.raises(UsxError, match="write_authors_layout"):
        write_dataset(stored.with_name("c.h5"), replace(data, extras=None))


def test_parts_written_one_by_one_are_the_whole(data, tmp_path):
    with DatasetWriter(tmp_path / "parts.h5", data.attributes) as writer:
        for rows in ([0, 1], [2], [3, 4]):
            writer.append(data.chosen(np.array(rows)))
    again = read_dataset(tmp_path / "parts.h5")
    np.testing.assert_array_equal(again.complete, data.complete)
    np.testing.assert_array_equal(again.extras.faces, data.extras.faces)


@pytest.fixture
def mixed(data, tmp_path):
    splits = np.array(["train", "test", "train", "val", "train"])
    extras = replace(data.extras, splits=splits, subjects=np.array(["a", "b", "c", "d", "e"]))
    write_dataset(tmp_path / "mixed.h5", replace(data, extras=extras))
    return tmp_path / "mixed.h5"


def test_a_file_larger_than_memory_is_refused_before_it_is_read(mixed, monkeypatch):
    """Under the same limit the whole is refused, with no cloud read, and a split of a fifth of it is not."""
    from usx_completion.data import reading

    monkeypatch.setattr(reading, "free_memory_bytes", lambda: 200_000)
    assert len(read_dataset(mixed, "val")) == 1
    monkeypatch.setattr(reading, "_numbers", _not_clouds(reading._numbers))
    with pytest.raises(BadDataset, match="memory"):
        read_dataset(mixed)


def _not_clouds(numbers):
    def read(path, arrays, key, rows=None):
        assert key in ("labels", "number_per_class"), f"{key} was read"
        return numbers(path, arrays, key, rows)
    return read


def test_memory_that_the_page_cache_holds_counts_as_free(tmp_path, monkeypatch):
    from usx_completion.data import free_memory

    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 999 kB\nMemFree: 12 kB\nMemAvailable:      345 kB\n")
    monkeypatch.setattr(free_memory, "MEMINFO", told)
    assert free_memory.free_memory_bytes() == 345 * 1024
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(free_memory.os, "sysconf", {"SC_AVPHYS_PAGES": 7, "SC_PAGE_SIZE": 4096}.get)
    assert free_memory.free_memory_bytes() == 7 * 4096


def test_one_split_is_read_alone(data, mixed, tmp_path):
    part = read_dataset(mixed, "train")
    np.testing.assert_array_equal(part.complete, data.complete[[0, 2, 4]])
    np.testing.assert_array_equal(part.extras.owners, data.extras.owners[[0, 2, 4]])
    np.testing.assert_array_equal(part.extras.faces, data.extras.faces)
    assert part.ids.tolist() == data.ids[[0, 2, 4]].tolist() and part.extras.subjects.tolist() == ["a", "c", "e"]
    assert read_dataset(tmp_path / "mixed.h5", "train").labels.tolist() == [0, 2, 4]
    with pytest.raises(BadDataset, match="'nonsense' has no sample"):
        read_dataset(tmp_path / "mixed.h5", "nonsense")
    assert LEVELS[int(read_dataset(tmp_path / "mixed.h5", "val").labels[0])] == "L4"


names = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=1, max_size=60)


@given(names, st.integers(0, 1000), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_no_subject_straddles_splits_however_often_it_comes(subjects, seed, times):
    splits = split_subjects(subjects * times, Fractions(), seed)
    assert splits == split_subjects(sorted(subjects, reverse=True), Fractions(), seed)
    check_no_straddling(subjects * times, [splits[subject] for subject in subjects * times])
    count = len(set(subjects))
    for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert abs(sum(split == name for split in splits.values()) - share * count) <= 1.5


@pytest.mark.parametrize("shares", ["100/0/0", "60/20/20", "0/100/0"])
def test_the_fixed_test_people_are_always_test(shares):
    people = ["verse004", "verse008", "verse009", "verse010"]
    splits = split_subjects(people, parse_fractions(shares))
    assert {"verse008", "verse009"} == FIXED_TEST and all(splits[name] == "test" for name in FIXED_TEST)
    if shares != "60/20/20":
        assert splits["verse004"] == splits["verse010"] == ("train" if shares == "100/0/0" else "val")


def test_people_of_another_spelling_are_the_same_people():
    people = ["sub-verse008", "VERSE009", "verse004", "sub-verse004"]
    splits = split_subjects(people, parse_fractions("100/0/0"))
    assert splits == dict(zip(people, ["test", "test", "train", "train"], strict=True))
    with pytest.raises(UsxError, match="sub-verse004 is in train and in test"):
        check_no_straddling(["verse004", "sub-verse004"], ["train", "test"])


@given(st.integers(1, 80), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_longer_sequence_leaves_people_in_their_split(count, seed):
    people = [f"model-{number}" for number in range(200)]
    everyone, some = (split_in_turn(people[:number], Fractions(), seed) for number in (200, count))
    assert some == {name: everyone[name] for name in people[:count]}
    for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert abs(sum(split == name for split in some.values()) - share * count) <= 2.5
    assert set(split_in_turn(people, Fractions(0.7, 0.3, 0.0), seed).values()) == {"train", "val"}


def test_a_straddling_subject_is_named():
    with pytest.raises(UsxError, match="anna is in train and in test"):
        check_no_straddling(["anna", "bert", "anna"], ["train", "val", "test"])


@pytest.mark.parametrize("text", ["60/40", "a/b/c", "60/20/30", "-20/60/60", ""])
def test_impossible_shares_are_refused(text):
    with pytest.raises(UsxError, match="split"):
        parse_fractions(text)
