"""From rows to tables: means, who is left out, paired tests; settings and names that make no sense are refused."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import norm

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_completion.evaluation import pictures
from usx_completion.evaluation.datasets import Wanted, plan_datasets
from usx_completion.evaluation.methods import FACTORIES, MissingWeights, chosen_names, open_methods
from usx_completion.evaluation.robustness import curve_points
from usx_completion.evaluation.scoring import LEFT_OUT, VertebraRow
from usx_completion.evaluation.settings import PACKAGED_SETTINGS, read_settings
from usx_completion.evaluation.significance import compare_methods
from usx_completion.evaluation.summary import TABLE_COLUMNS, best_method, by_level, summarise, write_csv
from usx_completion.evaluation.tables import (
    level_table,
    main_table,
    robustness_table,
    significance_table,
    terminal_tables,
)
from usx_completion.metrics import PARTS, PartMetrics
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model


def row(method, case, level, assd, part="whole", note=""):
    metrics = PartMetrics(assd, 3 * assd, 4 * assd, 60.0, 0.5, 200 + assd, 0.3, 0.9) if not note else LEFT_OUT
    return VertebraRow("real-paper", case, f"person{case}", 0, level, method, part, 120.0, metrics, note)


def table(values, method):
    """One row for each value: cases of five levels, all parts alike."""
    return [row(method, index // 5, LEVELS[index % 5], value, part) for index, value in enumerate(values)
            for part in PARTS]


@pytest.fixture(scope="module")
def rows():
    values = np.random.default_rng(0).uniform(1.0, 2.0, 10)
    worse = table(values + np.linspace(0.1, 0.4, 10), "worse")
    lost = [row("worse", 0, "L5", 0.0, part, "the cloud is empty") for part in PARTS]
    return [*table(values, "better"), *[one for one in worse if (one.case, one.level) != (0, "L5")], *lost]


def test_means_and_population_deviations(rows):
    found = {(one.method, one.part): one for one in summarise(rows)}
    values = [one.metrics.assd_mm for one in rows if (one.method, one.part) == ("better", "body")]
    mine = found["better", "body"]
    assert (mine.n, mine.left_out) == (10, 0)
    assert mine.mean["assd_mm"] == pytest.approx(sum(values) / 10)
    assert mine.sd["assd_mm"] == pytest.approx((sum(v * v for v in values) / 10 - (sum(values) / 10) ** 2) ** 0.5)


def test_what_a_method_leaves_out_is_counted_and_shown(rows):
    mine = next(one for one in summarise(rows) if (one.method, one.part) == ("worse", "whole"))
    assert (mine.n, mine.left_out) == (9, 1)
    assert any("| 9 (-1) |" in line for line in main_table([mine]))


def test_table_csv_has_exactly_the_promised_columns(rows, tmp_path):
    write_csv(tmp_path / "table.csv", TABLE_COLUMNS, (one.flat() for one in summarise(rows)))
    with (tmp_path / "table.csv").open() as file:
        read = list(csv.DictReader(file))
    assert ",".join(read[0]).startswith("dataset,method,part,n,cd_t_e4,f1,emd_e4,assd_mm,hd95_mm,"
                                        "cd_t_e4_sd,f1_sd,emd_e4_sd,assd_mm_sd,hd95_mm_sd,")
    assert [one["part"] for one in read] == ["whole", "arch", "body"] * 2
    assert float(read[0]["hd95_mm"]) == pytest.approx(3 * float(read[0]["assd_mm"]), abs=2e-4)


def test_the_best_method_is_told_on_vertebrae_that_all_completed():
    hard = [row("careful", 0, level, 1.0) for level in LEVELS] + [row("careful", 1, "L1", 9.0)]
    easy = [row("lazy", 0, level, 1.1) for level in LEVELS] + [row("lazy", 1, "L1", 0.0, note="left out")]
    assert np.mean([one.metrics.assd_mm for one in hard]) > 1.1
    assert best_method([*hard, *easy], "real-paper") == "careful"


def test_differences_are_paired_and_have_the_exact_p_value(rows):
    found = {(one.part, one.metric): one for one in compare_methods(rows)}
    mine = found["whole", "assd_mm"]
    assert (mine.reference, mine.method, mine.pairs) == ("better", "worse", 9)
    steps = np.delete(np.linspace(0.1, 0.4, 10), 4)
    assert mine.difference == pytest.approx(steps.mean())
    assert mine.wilcoxon_p == pytest.approx(2 / 2**9)  # all nine differences have one sign
    assert found["whole", "f1"].wilcoxon_p == 1.0 and np.isnan(found["whole", "f1"].shapiro_p)
    assert "< 0.01" not in "".join(significance_table([mine])) and "0.004" in "".join(significance_table([mine]))


def test_shapiro_tells_a_lump_from_a_bell():
    bell = 0.3 + 0.1 * norm.ppf((np.arange(30) + 0.5) / 30)
    lump = np.where(np.arange(30) < 28, 0.1, 5.0) + 0.001 * np.arange(30)
    p_values = []
    for difference in (bell, lump):
        both = [*table(np.ones(30), "a"), *table(1.0 + difference, "b")]
        p_values.append(next(one for one in compare_methods(both, "a") if one.metric == "assd_mm").shapiro_p)
    assert p_values[0] > 0.05 > 0.001 > p_values[1]


def test_few_pairs_and_unknown_references_are_not_tested():
    few = [*table([1.0] * 5, "a"), *table([2.0] * 5, "b")]
    assert all(np.isnan(one.wilcoxon_p) for one in compare_methods(few, "a"))
    with pytest.raises(UsxError, match="reference 'c'"):
        compare_methods(few, "c")


def test_levels_have_their_own_means(rows):
    found = {(one.method, one.level): one for one in by_level(rows)}
    expected = np.mean([one.metrics.assd_mm for one in rows
                        if (one.method, one.level, one.part) == ("better", "L3", "whole")])
    assert found["better", "L3"].mean["assd_mm"] == pytest.approx(expected)
    assert (found["worse", "L5"].n, found["worse", "L4"].n) == (1, 2)
    assert len(level_table(by_level(rows))) == 4


def test_the_terminal_tables_fit_100_columns(rows):
    console = Console(width=100, record=True, file=io.StringIO())
    wide = [row("US-only", case, level, 11.0, part) for case in range(40) for level in LEVELS for part in PARTS]
    for one in terminal_tables(summarise([*rows, *wide])):
        console.print(one)
    text = console.export_text()
    assert "…" not in text and "whole" in text and max(map(len, text.splitlines())) <= 100


def test_robustness_compares_the_same_bones():
    clean = table([1.0, 2.0, 3.0, 4.0, 5.0], "a")
    shifted = table([2.0, 4.0, 6.0, 8.0], "a")
    renamed = table([2.0, 3.0, 4.0, 5.0], "a")  # L1 .. L4 are the bones L2 .. L5
    lost = [row("a", 0, "L5", 0.0, note="too few points")]
    points = {one.condition: one for one in curve_points(
        {"clean": clean, "X-ray 5 mm off": [*shifted, *lost], "levels off by one": renamed})}
    moved = points["X-ray 5 mm off"]
    assert (moved.n, moved.left_out, moved.amount) == (4, 1, 5.0)
    assert moved.assd_mm == 5.0 and moved.assd_change == pytest.approx(1.0)
    assert points["levels off by one"].assd_change == pytest.approx(0.0)
    assert "1 left out" in robustness_table(list(points.values()))[3]


def test_pictures_are_drawn(rows, tmp_path):
    clean = table([1.0, 2.0], "a")
    pictures.plt.switch_backend("Agg")
    pictures.draw_boxes(tmp_path / "boxes.png", rows)
    pictures.draw_robustness(tmp_path / "curves.png", curve_points(
        {"clean": clean, "X-ray 5 mm off": clean, "noise 1 mm": clean, "no X-ray": clean}))
    for name in ("boxes.png", "curves.png"):
        shape = pictures.plt.imread(tmp_path / name).shape
        assert min(shape[:2]) > 300 and (tmp_path / name).stat().st_size < 300_000


def test_the_packaged_settings_keep_real_people_and_seeds_apart_from_training():
    settings = read_settings()
    assert list(settings.datasets) == ["synthetic-paper", "synthetic-realistic", "real-paper", "real-realistic"]
    for name, dataset in settings.datasets.items():
        assert dataset.preset == name.split("-")[1] and 1900 <= dataset.seed < 2000
        assert set(dataset.people) == ({"verse008", "verse009"} if name.startswith("real") else set())
    metadata = load_shape_model(PACKAGED_REAL)[1]
    assert {"verse008", "verse009"} <= set(metadata["left_out"].split())
    assert not {"verse008", "verse009"} & set(metadata["subjects"].split())


@pytest.mark.parametrize("old, new, message", [
    ("seed: 1900", "seed: 5", "seed 5 must be 1900"),
    ("preset: paper", "preset: papre", "preset 'papre' is unknown"),
    ("quick_spines: 1", "quick_spines: 0", "quick_spines 0 must be"),
    ("postures:", "poses:", "unknown"),
    ("dataset: real-paper", "dataset: real", "'real' is none of"),
    ("people: [verse008, verse009]", "people: 8", "people 8 must be a list"),
])
def test_settings_that_make_no_sense_are_refused_by_name(tmp_path, old, new, message):
    text = PACKAGED_SETTINGS.read_text()
    assert old in text
    (tmp_path / "bad.yaml").write_text(text.replace(old, new))
    with pytest.raises(UsxError, match=message):
        read_settings(tmp_path / "bad.yaml")


def test_datasets_that_cannot_be_made_are_named(monkeypatch):
    monkeypatch.delenv("USX_DATA", raising=False)
    plans, notes = plan_datasets(read_settings(), Wanted(quick=True))
    assert [plan.name for plan in plans] == ["synthetic-paper", "synthetic-realistic"]
    assert [note.split()[0] for note in notes] == ["real-paper", "real-realistic", "acquisition"]
    assert "USX_DATA" in notes[0]
    with pytest.raises(UsxError, match="nothing to evaluate: real-paper"):
        plan_datasets(read_settings(), Wanted(["real-paper"]))
    with pytest.raises(UsxError, match="dataset 'real' is unknown; known are synthetic-paper"):
        plan_datasets(read_settings(), Wanted(["real"]))


def test_methods_are_chosen_by_name_and_left_out_without_weights(monkeypatch):
    assert list(FACTORIES) == ["mean", "SSM", "SSM+GP", "US-only", "EF", "LF", "EF+LF", "usx"]
    assert chosen_names(["ssm+gp", "MEAN"]) == ["mean", "SSM+GP"]
    with pytest.raises(UsxError, match="method 'SMM' is unknown; known are mean, SSM"):
        chosen_names(["SMM"])

    def missing(options):
        raise MissingWeights("usx is left out: train it")

    monkeypatch.setitem(FACTORIES, "usx", missing)
    methods, notes = open_methods(["mean", "usx"])
    assert [method.name for method in methods] == ["mean"] and notes == ["usx is left out: train it"]
