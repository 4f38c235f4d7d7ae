"""The rule files of the published optical experiments, from the command line to the run folder."""
import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

TOML = """
use_lora = {lora}
[attention]
q_levels = 256
q_lut_min = 0.020040
q_smooth_factor = 0.9
q_init_seed = 0
q_bypass = false
[fc]
q_levels = 64
q_lut_min = 0.020040
q_smooth_factor = 0.9
q_init_seed = 0
q_bypass = false
[lora]
r = 2
lora_alpha = 4
"""

YAML = r"""
use_regex: true
layer_name_to_config:
  ? 'layers\.\d+\.attention'
  : &attention
    q_levels: 256
    q_quantiles: null
    q_bypass: false
  'layers\.0\.feed_forward\.(w1|w2|w3)': null
  'layers\.\d+\.(attention|feed_forward)\.w\w':
    <<: *attention
    q_levels: 64
  output: null
"""


def saved_rules(tmp_path):
    return tomllib.loads((tmp_path / "run" / "transforms.toml").read_text())["transform"]


@pytest.mark.parametrize("lora", [False, True])
def test_toml(refract, refract_json, recipe, tmp_path, lora):
    (tmp_path / "rules.toml").write_text(TOML.format(lora=str(lora).lower()))
    refract("train", recipe, "transform.legacy=rules.toml", "train.steps=4")
    attention, linear = saved_rules(tmp_path)
    assert attention["kind"] == "optical" and attention["q_levels"] == 256
    inner = linear["over"] if lora else linear
    assert inner["kind"] == "optical" and inner["q_levels"] == 64 and inner["q_lut_min"] == 0.02004
    assert linear["kind"] == ("lora" if lora else "optical") and (not lora or linear["alpha"] == 4)
    (tmp_path / "rules.toml").unlink()  # the run holds its rules itself
    assert refract_json("eval", "run")["loss"] > 0
    figures = refract_json("inspect", tmp_path / "run" / "config.toml")
    assert [len(row["modules"]) for row in figures["transforms"]] == [2, 12, 0]


def test_yaml_in_torchtitan_names(refract, refract_json, recipe, tmp_path):
    (tmp_path / "rules.yaml").write_text(YAML)
    figures = refract_json("inspect", recipe, "transform.legacy=rules.yaml")
    assert [(row["kind"], len(row["modules"])) for row in figures["transforms"]] == [
        ("optical", 2), ("none", 2), ("optical", 10), ("dense", 0)]
    refract("train", recipe, "transform.legacy=rules.yaml", "train.steps=4")
    assert [rule.get("q_levels") for rule in saved_rules(tmp_path)] == [256, None, 64]


def test_it_replaces_the_rules_of_a_recipe(refract_json, recipe, tmp_path):
    (tmp_path / "rules.yaml").write_text(YAML)
    recipe.write_text(recipe.read_text() + """
[[transform]]
match = 'model\\.layers\\.\\d+\\.mlp\\.\\w+_proj'
kind = "low_rank"
rank = 4
""")
    assert [row["kind"] for row in refract_json("inspect", recipe)["transforms"]] == ["low_rank", "dense"]
    figures = refract_json("inspect", recipe, "transform.legacy=rules.yaml")
    assert [row["kind"] for row in figures["transforms"]] == ["optical", "none", "optical", "dense"]


@pytest.mark.parametrize("text, words", [
    ("use_regex: true\nlayer_name_to_config:\n  'x': {q_levels: 8}\n  default: null\n", "matches no module"),
    ("layer_name_to_config:\n  default: {q_level: 8}\n", "did you mean 'q_levels'"),
    ("layer_name_to_config:\n  default: {q_levels: 1}\n", "out of range"),
])
def test_mistakes_name_the_file(refract, recipe, tmp_path, text, words):
    (tmp_path / "rules.yaml").write_text(text)
    (line,) = refract("train", recipe, "transform.legacy=rules.yaml", code=2).stderr.splitlines()[-1:]
    assert words in line and "rules.yaml" in line


FLIPS = """
use_lora = {lora}

[fc]
    w_p_exp = 1.52587890625e-05
    w_p_frac = 1.52587890625e-05
    w_zero_out_t = 1.25
    x_p_exp = 1.52587890625e-05
    x_p_frac = 1.52587890625e-05
    x_zero_out_t = 30.0

[lora]
    r = 4
    lora_alpha = 4
"""

FLIPS_YAML = """
layer_name_to_config:
  default:
    w_p_exp: null
    w_p_frac: 0.000244140625
    w_seed_exp: 0
    w_zero_out_t: 1.25
    x_p_exp: 7.62939453125e-06
transform_flavor: fc
use_regex: true
"""


@pytest.mark.parametrize("lora", [False, True])
def test_bit_flips_in_toml(refract, refract_json, recipe, tmp_path, lora):
    (tmp_path / "flips.toml").write_text(FLIPS.format(lora=str(lora).lower()))
    refract("train", recipe, "transform.legacy=flips.toml", "train.steps=4")
    (linear,) = saved_rules(tmp_path)
    inner = linear["over"] if lora else linear
    assert inner["kind"] == "bit_flip" and inner["x_zero_out_t"] == 30 and inner["w_p_exp"] == 2**-16
    assert not lora or (linear["kind"], linear["adapter"], linear["r"]) == ("lora", "merged", 4)
    assert refract_json("eval", "run")["loss"] > 0


def test_bit_flips_in_yaml(refract, recipe, tmp_path):
    (tmp_path / "flips.yaml").write_text(FLIPS_YAML)
    refract("train", recipe, "transform.legacy=flips.yaml", "train.steps=4")
    (linear,) = saved_rules(tmp_path)
    assert linear["kind"] == "bit_flip" and linear["w_p_frac"] == 2**-12 and linear["w_p_exp"] == linear["x_zero_out_t"] == 0
