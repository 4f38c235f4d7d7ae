"""compare: rows of media, kept and gone on with, before and after repair; and train.only, distillation and energy as commands."""
import csv
import json

import pytest

MEDIA = """
[repair.data]
path = "stories:20KB"
[repair.train]
steps = 6
batch = 2
[repair.eval]
samples = 0

[[row]]
name = "3 levels"
kind = { kind = "optical", q_levels = 3 }
[[row]]
name = "fine"
kind = { kind = "optical", q_levels = 16, q_x_per = "token", q_w_per = "channel", q_out_per = "token" }
repair = false
[[row]]
name = "integers"
transform = [{ match = ".*_proj", kind = "integer", x_bits = 4, w_bits = 4 }]
calibrate_nothing = 1
"""
SETTINGS = ["data.context=16", "train.device=cpu"]


@pytest.fixture
def model(refract, recipe, tmp_path):
    refract("train", recipe, "train.steps=40", "optimizer.lr=3e-3")
    refract("export", "run", "--out", "model")
    return tmp_path / "model"


def compare(refract, *arguments, code=0):
    return refract("compare", "model", "--media", "media.toml", "--data", "stories:4KB", "--out", "out", *SETTINGS, *arguments, code=code)


def test_a_table_of_media_before_and_after_repair(refract, refract_json, model, tmp_path):
    (tmp_path / "media.toml").write_text(MEDIA)
    wrong = compare(refract, code=2).stderr
    assert "row 3: unknown key 'calibrate_nothing'" in wrong and "calibrate" in wrong
    (tmp_path / "media.toml").write_text(MEDIA.replace("calibrate_nothing = 1\n", ""))
    table = compare(refract).stdout
    assert [line.split("  ")[0] for line in table.splitlines()[2:]] == ["dense", "3 levels", "fine", "integers"]
    found = json.loads((tmp_path / "out/compare.json").read_text())
    assert found["complete"] and not found["failures"]
    rows = {row["name"]: row for row in found["rows"]}
    dense, plain, fine, integers = (rows[name] for name in ("dense", "3 levels", "fine", "integers"))
    losses = {name: row["before"]["texts"][0]["loss"] for name, row in rows.items()}
    assert losses["dense"] != losses["fine"] and losses["dense"] + 0.01 < losses["3 levels"]
    # The same figures as eval's.
    transform = 'transform=[{match=".*_proj", kind="integer", x_bits=4, w_bits=4}]'
    alone = refract_json("eval", "model", "--data", "stories:4KB", transform, *SETTINGS)
    assert losses["integers"] == pytest.approx(alone["loss"], abs=1e-9)
    assert dense["joules_per_token"] == dense["digital_joules_per_token"] == plain["digital_joules_per_token"]
    assert plain["joules_per_token"] < fine["joules_per_token"] and plain["beside_per_token"] == 0 < fine["beside_per_token"]
    assert integers["joules_per_token"] < dense["joules_per_token"] and not dense["culprits"] and len(plain["culprits"]) == 3
    assert "after" not in fine and all(row["after"]["texts"][0]["loss"] != row["before"]["texts"][0]["loss"]
                                       for row in (dense, plain, integers))
    lines = list(csv.DictReader((tmp_path / "out/compare.csv").open()))
    assert [line["row"] for line in lines] == ["dense", "3 levels", "fine", "integers"] and lines[2]["loss_after_repair"] == ""
    page = (tmp_path / "out/report.html").read_text()
    assert "Loss against energy" in page and "3 levels" in page
    # What is known is kept, and a lost row alone is measured again, to the same figures; rows may run side by side.
    (tmp_path / "out/rows/3-levels/row.json").unlink()
    (tmp_path / "out/rows/fine/row.json").unlink()
    again = compare(refract, "--jobs", "2")
    assert "2 of 4 rows are known already" in again.stderr
    now = {row["name"]: row for row in json.loads((tmp_path / "out/compare.json").read_text())["rows"]}
    for name, row in rows.items():
        assert ("after" in now[name]) == ("after" in row)
        for when in ("before", "after"):  # other numbers of threads may round otherwise
            if when in row:
                assert now[name][when]["texts"][0]["loss"] == pytest.approx(row[when]["texts"][0]["loss"], abs=1e-4)
    # Another number of tokens is another comparison.
    compare(refract, "--row", "dense", "--tokens", "64")
    assert json.loads((tmp_path / "out/rows/dense/row.json").read_text())["before"]["texts"][0]["tokens"] == 64


def test_ranges_are_calibrated_without_a_repair_too(refract, model, tmp_path):
    (tmp_path / "media.toml").write_text('[[row]]\nname = "raw"\nkind = "optical"\n[[row]]\nname = "set"\nkind = "optical"\ncalibrate = "mse"\n')
    compare(refract, "--tokens", "64")
    found = json.loads((tmp_path / "out/compare.json").read_text())
    raw, calibrated = (row["before"]["texts"][0]["loss"] for row in found["rows"] if row["name"] != "dense")
    assert found["complete"] and raw != calibrated
    assert (tmp_path / "out/rows/set/calibrated/model.safetensors").exists()


@pytest.mark.parametrize("text, words", [
    ("", "there is no row"),
    ('[[row]]\nkind = "optical"', "row 1: 'name' is missing"),
    ('[[row]]\nname = "a"\nkind = "optcal"', 'did you mean "optical"'),
    ('[[row]]\nname = "a b"\n[[row]]\nname = "a-b"', "row 2: another row is called 'a-b'"),
    ('[[row]]\nname = "a"\nkind = "optical"\nrules = "x"', "exclude each other"),
    ('[[row]]\nname = "a"\ncalibrate = "mse"', "no medium to calibrate"),
    ('[[row]]\nname = "a"\nkind = "optical"\ncalibrate = "ms"', "row 1: 'calibrate': --method ms is not one of"),
    ('[[row]]\nname = "a"\ntransform = 3', "row 1: 'transform' is an array of tables"),
    ('[[row]]\nname = "a"\ntransform = [3]', "row 1"),
    (f'[[row]]\nname = "{"a" * 101}"\nkind = "optical"', "row 1: 'name' has 101 bytes"),
    ('[[row]]\nname = "a"\nrepair = { train = { steps = 1 } }', "needs data.path"),
    ('[[row]]\nname = "a"\nrepair = { data = { path = "x" }, train = { stps = 1 } }', "needs train.steps"),
    ('[[row]]\nname = "a"\nrepair = { data = { path = "x" }, train = { steps = 1, bach = 2 } }', "train.bach"),
    ('[[row]]\nname = "a"\nrepair = { init = { from = "x" } }', "a repair can't set 'init'"),
])
def test_a_wrong_file_is_one_line(refract, tmp_path, text, words):
    (tmp_path / "media.toml").write_text(text)
    done = refract("compare", "model", "--media", "media.toml", "--data", "x", code=2)
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "comparison").exists()


def test_train_only_says_how_much_it_trains(refract, refract_json, recipe, tmp_path):
    whole = refract_json("inspect", recipe)
    norms = refract_json("inspect", recipe, "train.only=.*norm.*")
    assert norms["parameters"] == whole["parameters"] and 0 < norms["trainable_parameters"] < 0.05 * whole["parameters"]
    assert norms["state_bytes"] < 0.5 * whole["state_bytes"] and norms["training_flops_per_token"] < whole["training_flops_per_token"]
    assert f"{norms['trainable_parameters']:,}" in refract("inspect", recipe, "train.only=.*norm.*").stdout
    error = refract("train", recipe, "train.only=.*nrm.*", code=2).stderr
    assert "train.only = '.*nrm.*' matches no parameter" in error and not (tmp_path / "run").exists()
    refract("train", recipe, "train.only=.*norm.*", "train.steps=4")
    refused = refract("train", "run", "--resume", "train.only=.*bias", code=2).stderr
    assert "train.only" in refused and "what it trains" in refused


def test_a_run_learns_from_the_model_that_it_starts_from(refract, recipe, model, tmp_path):
    settings = ["init.from=model", "distill.weight=0.5", "distill.temperature=2", "run.dir=student", "train.steps=6", *SETTINGS,
                'transform=[{match=".*_proj", kind="lora", over="optical"}]']
    started = refract("train", recipe, *settings).stderr
    assert "teacher: 'model', 0 parameters of its own" in started
    record = json.loads((tmp_path / "student/teacher.json").read_text())
    assert record["own_parameters"] == 0
    energy = json.loads((tmp_path / "student/energy.json").read_text())
    assert energy["joules_per_token"] > energy["beside_per_token"] > 0  # the adapters are digital
    refract("train", "student", "--resume", "train.steps=8")
    record["weights"] = "0" * 16
    (tmp_path / "student/teacher.json").write_text(json.dumps(record))
    assert "has other weights than when the run" in refract("train", "student", "--resume", "train.steps=9", code=2).stderr
    assert "set distill.teacher, or init.from" in refract("train", recipe, "distill.weight=0.5", code=2).stderr


def test_inspect_shows_energy_by_module_and_medium(refract, refract_json, recipe, tmp_path):
    rule = 'transform=[{match=".*down_proj", kind="conditioned", over="optical"}]'
    energy = refract_json("inspect", recipe, rule)["energy"]
    media = {row["module"]: row["medium"] for row in energy["modules"]}
    assert media["model.layers.1.mlp.down_proj"] == "conditioned over optical" and media["lm_head"] == "digital"
    assert energy["joules_per_token"] == pytest.approx(sum(row["product"] + row["beside"] for row in energy["modules"]))
    assert "conditioned over optical" in refract("inspect", recipe, rule).stdout
    (tmp_path / "own.toml").write_text("[digital]\nmac_system = 600e-15\n")
    own = refract_json("inspect", recipe, rule, "--energy", "own.toml")["energy"]
    assert own["digital_joules_per_token"] == pytest.approx(2 * energy["digital_joules_per_token"])
    (tmp_path / "own.toml").write_text("[digital]\nmac = 1\n")
    assert "own.toml" in refract("inspect", recipe, rule, "--energy", "own.toml", code=2).stderr
