"""spikes: a run with spiking layers, and a dense model, over time steps; and the kind's modes in other commands."""
import csv
import json

import pytest

RULES = 'transform=[{match=".*_proj", kind="spiking", levels=16}, {match=".*self_attn", kind="spiking", levels=16}]'
MODES = ["transform.0.mode=spikes", "transform.1.mode=spikes"]


@pytest.fixture
def run(refract, recipe, tmp_path):
    refract("train", recipe, RULES, "train.steps=40", "optimizer.lr=3e-3")
    return tmp_path / "run"


def test_the_spiking_model_comes_to_the_quantized_one(refract, refract_json, run, tmp_path):
    found = refract_json("spikes", "run", "--data", "stories:2KB", "--tokens", "512")
    steps, last = found["steps"], found["steps"][-1]
    assert found["settled"] and found["tokens"] == 512
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert last["loss"] == pytest.approx(found["quantized"]["loss"], abs=1e-9)
    assert last["accuracy"] == found["quantized"]["accuracy"]
    assert steps[0]["loss"] > 1.01 * found["quantized"]["loss"]
    near = found["steps_to_one_percent"]
    assert 1 < near <= len(steps)
    bound = 0.01 * found["quantized"]["loss"]
    assert all(abs(step["loss"] - found["quantized"]["loss"]) <= bound for step in steps[near - 1:])
    assert abs(steps[near - 2]["loss"] - found["quantized"]["loss"]) > bound
    for key in ("spikes_per_token", "joules_per_token"):
        values = [step[key] for step in steps]
        assert values == sorted(values) and values[0] > 0
    # The input of q, k and v is one set of neurons: 32 values in each of two layers.
    operands = {row["operand"]: row for row in found["operands"]}
    assert sorted(operands) == sorted(["q_proj.x", "o_proj.x", "up_proj.x", "down_proj.x", "self_attn.q", "self_attn.k",
                                       "self_attn.probabilities", "self_attn.v"])
    assert operands["q_proj.x"]["values_per_token"] == 2 * 32 and operands["self_attn.probabilities"]["values_per_token"] == 2 * 2 * 16
    assert sum(row["spikes_per_token"] for row in operands.values()) == pytest.approx(last["spikes_per_token"])
    assert json.loads((tmp_path / "spikes/spikes.json").read_text()) == found
    rows = list(csv.DictReader((tmp_path / "spikes/spikes.csv").open()))
    assert len(rows) == len(steps) and float(rows[-1]["loss"]) == last["loss"]
    assert "Spikes since the first step" in (tmp_path / "spikes/report.html").read_text()
    # Half of the energy of an addition takes half of what spikes take.
    (tmp_path / "half.toml").write_text("[spiking]\nadd = 0.2e-12\n")
    half = refract_json("spikes", "run", "--data", "stories:2KB", "--tokens", "512", "--energy", "half.toml")["steps"][-1]
    (tmp_path / "none.toml").write_text("[spiking]\nadd = 0.0\n")
    none = refract_json("spikes", "run", "--data", "stories:2KB", "--tokens", "512", "--energy", "none.toml")["steps"][-1]
    assert half["joules_per_token"] - none["joules_per_token"] == pytest.approx(
        (last["joules_per_token"] - none["joules_per_token"]) / 2)
    text = refract("spikes", "run", "--data", "stories:2KB", "--tokens", "512", "--steps", "3").stdout
    assert "neurons still fire in step 3; give more with --steps" in text and "within 1%" in text


def test_modes_export_and_comparison(refract, refract_json, run, tmp_path):
    loss = {"quantized": refract_json("eval", "run")["loss"]}
    for steps in (1, 16):
        loss[steps] = refract_json("eval", "run", *MODES, f"transform.0.time_steps={steps}", f"transform.1.time_steps={steps}")["loss"]
    assert abs(loss[1] - loss["quantized"]) > 1e-3
    assert loss[16] == pytest.approx(loss["quantized"], abs=1e-4)
    # The dense weights alone; a dense folder takes the kind's own parameters as they start.
    refract("export", "run", "--out", "dense")
    error = refract("spikes", "dense", "--data", "stories:2KB", "--tokens", "64", code=2).stderr
    assert "no layer of the model is spiking" in error
    found = refract_json("spikes", "dense", "--kind", "{kind = 'spiking', levels = 64}", "--data", "stories:2KB", "--tokens", "64")
    assert found["quantized"]["loss"] == pytest.approx(refract_json("eval", "dense", "--data", "stories:2KB")["loss"], rel=0.2)
    (tmp_path / "media.toml").write_text("""
[[row]]
name = "levels"
kind = { kind = "spiking", levels = 16 }
[[row]]
name = "two steps"
kind = { kind = "spiking", levels = 16, mode = "spikes", time_steps = 2 }
""")
    refract("compare", "dense", "--media", "media.toml", "--data", "stories:4KB", "data.context=16")
    rows = {row["name"]: row for row in json.loads((tmp_path / "comparison/compare.json").read_text())["rows"]}
    assert rows["two steps"]["before"]["texts"][0]["loss"] != rows["levels"]["before"]["texts"][0]["loss"]
    assert rows["levels"]["joules_per_token"] < rows["two steps"]["joules_per_token"]
