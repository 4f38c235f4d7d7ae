"""refract bench: small sizes on the CPU, so that every table and key is real."""
import re
import tomllib

import pytest

QUICK = ["--seconds", "0.01", "train.device=cpu"]
RULE = 'transform=[{match=\'.*mlp.*\',kind="low_rank",rank=16}]'


@pytest.mark.parametrize("command", ["kernel", "mlp", "train", "decode", "premerge"])
def test_help_has_an_example(refract, command):
    assert re.search(rf"Example:\n  \S*refract bench {command}", refract("bench", command, "--help").stdout)


def test_mlp_times_every_kind_against_dense(refract_json):
    out = refract_json("bench", "mlp", "--widths", "128", "--tokens", "4,32", *QUICK)
    rows = out["rows"]
    assert out["bench"] == "mlp" and {row["tokens"] for row in rows} == {4, 32}
    kinds = {row["kind"].split()[0] for row in rows}
    linear = {entry["kind"] for entry in refract_json("kinds")["kinds"] if "linear layers" in entry["stands_for"]}
    assert kinds == {"dense"} | linear - {"none"}
    for row in rows:
        assert row["forward_ms"] > 0 and row["training_ms"] > 0  # their ratio is the machine's affair
        dense = next(d for d in rows if d["kind"] == "dense" and d["tokens"] == row["tokens"])
        for what in ("forward", "training"):  # over the row that is shown, and no other measurement
            assert row[f"{what}_gain"] == pytest.approx(dense[f"{what}_ms"] / row[f"{what}_ms"], rel=1e-12)
        if row["kind"] == "dense":
            assert row["share"] == 1 and row["forward_gain"] == 1
    share = {row["kind"]: row["share"] for row in rows}
    assert 0.6 < share["low_rank rank=64"] < 0.66 and 0.3 < share["low_rank rank=32"] < 0.34
    assert 0.6 < share["block_shuffle blocks=2"] < 0.66 and 0.3 < share["block_shuffle blocks=4"] < 0.34


def test_kernel_takes_the_references_shapes(refract, refract_json):
    rows = refract_json("bench", "kernel", "--tokens", "8", "--kinds", "low_rank", *QUICK)["rows"]
    assert [(row["in"], row["out"], row["kind"]) for row in rows] == [(2048, 2048, "dense"), (2048, 2048, "low_rank rank=1536")]
    assert rows[1]["forward_gain"] == pytest.approx(rows[0]["forward_ms"] / rows[1]["forward_ms"], rel=1e-12)
    assert "forward_gain" in refract("bench", "kernel", "--tokens", "8", "--kinds", "low_rank", *QUICK).stdout


def test_train_and_decode_time_a_recipe(refract_json, recipe):
    row = refract_json("bench", "train", recipe, "--batches", "2", "--contexts", "16", "--steps", "3", *QUICK)["rows"][0]
    assert (row["batch"], row["context"]) == (2, 16)
    assert row["tokens_per_s"] == pytest.approx(2 * 16 / row["step_ms"] * 1e3, rel=0.01)
    out = refract_json("bench", "decode", recipe, RULE, "--batches", "1,4", "--generate", "8", "--repeats", "1", *QUICK)
    assert [row["batch"] for row in out["rows"]] == [1, 4]
    for row in out["rows"]:
        assert row["tokens_per_s"] == pytest.approx(row["batch"] * 8 / row["seconds"], rel=0.01)
        assert row["graph"] == "no"


def test_premerge_keeps_its_threshold_in_the_run(refract, refract_json, recipe, tmp_path):
    refract("train", recipe, RULE, "train.steps=4")
    before = refract_json("eval", "run")["loss"]
    out = refract_json("bench", "premerge", "run", "--most", "4", *QUICK)
    table = tomllib.loads((tmp_path / "run" / "premerge.toml").read_text())["threshold"]
    assert len(table) == len(out["thresholds"]) == 2  # up and down
    for kept, shown in zip(table, out["thresholds"]):
        assert kept["kinds"] == "low_rank" and kept["tokens"] == shown["tokens"]
    text = (tmp_path / "run" / "premerge.toml").read_text().replace("tokens = ", "tokens = 9999 # ")
    (tmp_path / "run" / "premerge.toml").write_text(text)
    merged = refract_json("inspect", "run")["premerge_bytes"]
    assert merged == sum(4 * t["in_features"] * t["out_features"] for t in table) * 2  # layers
    for mode in ("auto", "on", "off"):
        assert refract_json("eval", "run", f"decode.premerge={mode}")["loss"] == pytest.approx(before, rel=1e-5)
    assert refract_json("inspect", "run", "decode.premerge=off")["premerge_bytes"] == 0


def test_refusals_say_what_to_do(refract, recipe):
    assert "--widths" in refract("bench", "mlp", "--widths", "0,x", *QUICK, code=2).stderr
    assert "low_rank" in refract("bench", "mlp", "--kinds", "lowrank", *QUICK, code=2).stderr
    assert "GPU" in refract("bench", "decode", recipe, "--batches", "max", *QUICK, code=2).stderr
    assert "merged form" in refract("bench", "premerge", recipe, *QUICK, code=2).stderr
