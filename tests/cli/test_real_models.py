"""calibrate, sensitivity and conditioning on a small model with a planted outlier channel."""
import json
import struct

import numpy
import pytest

LLAMA = ["model.norm=rmsnorm", "model.position=rope", "model.hidden_act=swiglu", "model.attention_bias=false",
         "model.attention_output_bias=false", "model.mlp_bias=false", "model.tie_word_embeddings=false"]
CHANNEL, LAYER, SIZE = 5, 1, 100.0
GATE, UP = (f"model.layers.{LAYER}.mlp.{name}_proj" for name in ("gate", "up"))


def plant(folder):
    """What gate and up of layer 1 read gets a channel a hundred times as large; the function stays the same."""
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    for name, where, factor in [(f"model.layers.{LAYER}.post_attention_layernorm", CHANNEL, SIZE),
                                (GATE, (slice(None), CHANNEL), 1 / SIZE), (UP, (slice(None), CHANNEL), 1 / SIZE)]:
        entry = header[f"{name}.weight"]
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        weight = numpy.frombuffer(bytes(data[begin:end]), numpy.float32).reshape(entry["shape"]).copy()
        weight[where] *= factor
        data[begin:end] = weight.tobytes()
    path.write_bytes(data)


@pytest.fixture
def planted(refract, recipe, tmp_path):
    refract("train", recipe, "train.steps=60", "optimizer.lr=3e-3", *LLAMA)
    refract("export", "run", "--out", "planted")
    plant(tmp_path / "planted")
    return tmp_path / "planted"


def tensors_of(path):
    """The float32 tensors of a .safetensors file, by name."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: numpy.frombuffer(data[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]], numpy.float32)
            for name, entry in header.items() if entry["dtype"] == "F32"}


SETTINGS = ["data.context=16", "train.device=cpu"]
DATA = ["--data", "stories:6KB"]


def test_sensitivity_names_the_planted_channel(refract_json, planted, tmp_path):
    found = refract_json("sensitivity", "planted", *SETTINGS, *DATA, "--kind", "{kind = 'optical', q_levels = 64}", "--by",
                         "types,layers,modules,roles", "--tokens", "512", "--keep-digital", "30%", "--uniform", "--out", "s")
    worst = {by: next(row["name"] for row in found["culprits"] if row["by"] == by)
             for by in ("types", "layers", "modules", "roles")}
    assert worst["types"] in ("gate_proj", "up_proj") and worst["modules"] in (GATE, UP)
    assert worst["layers"] == str(LAYER) and worst["roles"] == "x"
    assert found["medium"] > found["dense"] + 0.002, "60 steps teach a feed-forward little"
    role = max((r for r in found["roles"] if r["role"] == "x"), key=lambda r: r["ratio"])
    assert (role["module"], role["channel"]) == (GATE, CHANNEL), "gate and up share their input"
    assert role["levels_in_use"] < 0.9
    (proposal,) = found["proposals"]
    assert {GATE, UP} <= set(proposal["modules"]) and proposal["share"] <= 0.3
    assert [other["chosen"] for other in proposal["uniform"]] == ["evenly spread", "the first", "the last", "random 1", "random 2",
                                                                  "random 3"]
    assert all(proposal["loss"] < other["loss"] and other["share"] <= 0.3 for other in proposal["uniform"])
    assert proposal["loss"] < found["medium"]
    for name in ("sensitivity.json", "sensitivity.csv", "report.html", "rules.toml"):
        assert (tmp_path / "s" / name).stat().st_size > 0
    # The proposal's rules are a file like any other. A level more or less of an element is all that products of other
    # shapes can change.
    again = refract_json("sensitivity", "planted", *SETTINGS, *DATA, "--rules", "s/rules.toml", "--by", "types", "--tokens", "512")
    assert again["medium"] == pytest.approx(proposal["loss"], abs=5e-4)
    rest = f'[{{match="model.layers.{LAYER}.*", kind="optical", q_levels=64}}]'
    alone = refract_json("sensitivity", "planted", *SETTINGS, *DATA, f"transform={rest}", "--by", "types", "--tokens", "512")
    only = next(row["only"] for row in found["culprits"] if (row["by"], row["name"]) == ("layers", str(LAYER)))
    assert alone["medium"] == pytest.approx(only, abs=5e-4), "what lies before the layer was evaluated once"


def test_each_conditioning_repairs_it(refract_json, planted):
    def loss(transform):
        return refract_json("eval", "planted", *DATA, *SETTINGS, *([f"transform={transform}"] if transform else []))["loss"]

    medium = "kind='optical', q_levels=64, noise=false"
    where = f"match='model.layers.{LAYER}.mlp.(gate|up)_proj'"
    dense, plain = loss(""), loss(f"[{{{where}, {medium}}}]")
    assert plain - dense > 0.002
    for method in ("smooth", "split", "hadamard"):
        repaired = loss(f"[{{{where}, kind='conditioned', method='{method}', over={{{medium}}}}}]")
        assert repaired - dense < 0.5 * (plain - dense), method


@pytest.mark.parametrize("method", ["minmax", "quantile", "mse", "kl"])
def test_calibrate_writes_a_model_with_its_ranges(refract, refract_json, planted, tmp_path, method):
    done = refract_json("calibrate", "planted", *SETTINGS, *DATA, "--kind", "optical", "--method", method, "--tokens", "512",
                        "--out", "calibrated")
    ranges = {(r["module"], r["role"]): r for r in done["ranges"]}
    gate = ranges[GATE, "x"]
    assert gate["min"] <= gate["lo"] < gate["hi"] <= gate["max"]
    assert method in ("mse", "kl") or (gate["hi"] == gate["max"]) == (method == "minmax")
    assert {role for _, role in ranges} == {"x", "w", "out", "q", "k", "scores", "v"}
    # Ranges are the folder's, not those of the data at hand.
    rows = refract_json("eval", "calibrated", *DATA, *SETTINGS)
    assert rows["loss"] > 0 and (tmp_path / "calibrated" / "buffers.safetensors").stat().st_size > 1000
    widened = refract_json("eval", "planted", *DATA, *SETTINGS, "transform=[{match='.*_proj', kind='optical'}, "
                           "{match='.*self_attn', kind='optical'}]")
    assert rows["loss"] != widened["loss"]
    assert "exclude" in refract("calibrate", "planted", *DATA, "--kind", "optical", "--rules", "x.toml", "--out", "o", code=2).stderr
    assert "already holds something" in refract("calibrate", "planted", *DATA, "--kind", "optical", "--out", "calibrated", code=2).stderr


def test_calibration_learns_maxima_before_ranges(refract_json, planted):
    rules = "{kind='conditioned', method='smooth', over='optical'}"
    done = refract_json("calibrate", "planted", *SETTINGS, *DATA, "--kind", rules, "--tokens", "512", "--out", "smooth")
    after = next(r for r in done["ranges"] if (r["module"], r["role"]) == (GATE, "x"))
    plain = refract_json("calibrate", "planted", *SETTINGS, *DATA, "--kind", "optical", "--tokens", "512", "--out", "plain")
    before = next(r for r in plain["ranges"] if (r["module"], r["role"]) == (GATE, "x"))
    assert after["max"] < 0.1 * before["max"], "the range is that of the smoothed input"


def test_several_shares_have_rules_of_their_own(refract_json, planted, tmp_path):
    found = refract_json("sensitivity", "planted", *SETTINGS, *DATA, "--kind", "{kind = 'optical', q_levels = 16}", "--by", "types",
                         "--tokens", "256", "--keep-digital", "40%,12.5%", "--out", "several")
    small, large = found["proposals"]
    assert (small["asked"], large["asked"]) == (0.125, 0.4)
    assert small["share"] <= 0.125 < large["share"] <= 0.4 and len(small["modules"]) < len(large["modules"])
    assert [len(proposal["uniform"]) for proposal in found["proposals"]] == [1, 1]
    for name, proposal in (("rules-12.5%.toml", small), ("rules-40%.toml", large)):
        assert (tmp_path / "several" / name).read_text() == proposal["rules"]
    assert not (tmp_path / "several" / "rules.toml").exists()


def test_learned_ranges_and_rotations_are_trained_saved_and_exported(refract, recipe, tmp_path):
    medium = "{kind='optical', q_levels=16, q_x_per='token', q_w_per='channel', q_out_per='token', q_learn=true}"
    rules = ("transform=[{match='.*_proj', kind='conditioned', method='hadamard', turn_outputs=true, learned=true, block=4, "
             f"over={medium}}}, {{match='.*self_attn', kind='optical', q_learn=true}}]")
    refract("train", recipe, rules, "run.dir=all", "train.steps=6", "optimizer.lr=3e-3", *LLAMA)
    refract("export", "all", "--out", "dense")
    refract("train", recipe, rules, "run.dir=clips", "init.from=dense", "train.steps=6", "optimizer.lr=3e-3", "train.only=.*_clip")
    (trained,), (clips,) = (list(map(tensors_of, (tmp_path / run / "checkpoints").glob("*06/model.safetensors"))) for run in ("all", "clips"))
    dense = tensors_of(tmp_path / "dense/model.safetensors")
    layer, attention = "model.layers.0.mlp.down_proj", "model.layers.0.self_attn"
    ranges = [f"{layer}.x_clip", f"{layer}.w_clip", f"{layer}.out_clip", f"{attention}.range_clip"]
    for name in [*ranges, f"{layer}.turn", f"{layer}.turn_outputs", f"{attention}.q_proj.turn"]:
        assert numpy.abs(trained[name]).max() > 0, name
    assert not [name for name in dense if "clip" in name or "turn" in name], "what is exported is the dense model"
    assert all((trained[name] == values).all() and (clips[name] == values).all() for name, values in dense.items())
    assert all(numpy.abs(clips[name]).max() > 0 for name in ranges) and not clips[f"{layer}.turn"].any()


def test_mistakes_are_named(refract, planted):
    assert "--kind or --rules" in refract("sensitivity", "planted", *DATA, code=2).stderr
    assert "--by planets" in refract("sensitivity", "planted", "--kind", "optical", "--by", "planets", code=2).stderr
    assert "add --keep-digital" in refract("sensitivity", "planted", *DATA, "--kind", "optical", "--uniform", code=2).stderr
    assert "not a share" in refract("sensitivity", "planted", "--kind", "optical", "--keep-digital", "much", code=2).stderr
    assert "--method median" in refract("calibrate", "planted", "--kind", "optical", "--method", "median", "--out", "o", code=2).stderr
