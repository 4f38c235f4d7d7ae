"""chips: a model on memory devices of several ages and chips, and the same figures from eval; analog ranges that are calibrated."""
import csv
import json
import math
import statistics

import pytest

SETTINGS = ["data.context=16", "train.device=cpu", "train.batch=4"]
DATA = ["--data", "stories:6KB"]
PCM = "{kind = 'analog', preset = 'pcm', tile_rows = 16}"


@pytest.fixture
def model(refract, recipe, tmp_path):
    refract("train", recipe, "train.steps=60", "optimizer.lr=3e-3")
    refract("export", "run", "--out", "model")
    return "model"


def test_the_same_chips_age(refract, refract_json, model, tmp_path):
    found = refract_json("chips", model, *SETTINGS, *DATA, "--kind", PCM, "--chips", 12, "--first", 5, "--times", "0,1h,1y", "--tokens", 256)
    assert [row["time"] for row in found["rows"]] == ["0", "1h", "1y"] and [row["seconds"] for row in found["rows"]] == [0, 3600, 31536000]
    for row in found["rows"]:
        assert len(set(row["losses"])) == 12, "as many chips"
        assert row["loss"] == pytest.approx(statistics.mean(row["losses"])) and row["deviation"] == pytest.approx(statistics.stdev(row["losses"]))
    now, hour, year = (row["deviation"] for row in found["rows"])
    assert now < hour < year and year > 1.3 * now and found["tokens"] == 256
    # eval with the rule's own chip and time gives the same figure; without devices, that of ideal ones.
    alone = {}
    for preset in ("pcm", "ideal"):
        rule = f"[{{match='.*_proj', kind='analog', preset='{preset}', tile_rows=16, chip=6, time=3600}}]"
        alone[preset] = refract_json("eval", model, *DATA, *SETTINGS, "--batches", 4, f"transform={rule}")["loss"]
    assert alone["pcm"] == pytest.approx(found["rows"][1]["losses"][1], abs=1e-6)
    assert alone["ideal"] == pytest.approx(found["ideal"], abs=1e-6)
    rows = list(csv.DictReader((tmp_path / "chips/chips.csv").open()))
    assert len(rows) == 36 and {int(row["chip"]) for row in rows} == set(range(5, 17))
    assert float(rows[0]["perplexity"]) == pytest.approx(math.exp(float(rows[0]["loss"])))
    assert json.loads((tmp_path / "chips/chips.json").read_text())["rows"] == found["rows"]
    assert "ideal devices" in (tmp_path / "chips/report.html").read_text()
    table = refract("chips", model, *SETTINGS, *DATA, "--kind", PCM, "--chips", 1, "--times", "1d", "--tokens", 64, "--out", "one").stdout
    assert table.splitlines()[2].startswith("1d ") and " - " in table, "one chip has no deviation"


def test_mistakes_are_named(refract, model, tmp_path):
    def error(*arguments):
        return refract("chips", model, *SETTINGS, *DATA, *arguments, code=2).stderr

    assert "no analog layers with devices" in error()
    assert "no analog layers with devices" in error("--kind", "analog")
    assert not (tmp_path / "chips").exists(), "a mistake leaves no folder"
    assert "'1week' is no time" in error("--kind", PCM, "--times", "1d,1week")
    assert "--chips 0" in error("--kind", PCM, "--chips", 0)


def test_running_input_ranges_are_calibrated(refract_json, model):
    done = refract_json("calibrate", model, *SETTINGS, *DATA, "--kind", "{kind = 'analog', x_range = 'ema', tile_rows = 16}",
                        "--method", "minmax", "--tokens", 512, "--out", "calibrated")
    assert {row["role"] for row in done["ranges"]} == {"x"}
    down = next(row for row in done["ranges"] if row["module"] == "model.layers.0.mlp.down_proj")
    assert down["rows"] > 1 and down["lo"] < 0 < down["hi"]
    assert refract_json("eval", "calibrated", *DATA, *SETTINGS)["loss"] > 0
