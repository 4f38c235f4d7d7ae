"""Every recipe of recipes/ is parsed and planned as it stands, without data and without published weights."""
import json
import math
import pathlib
import re

import pytest
from transformers import GPT2Config, LlamaConfig

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "recipes"
ALL = sorted(path for path in RECIPES.rglob("*.toml") if path.name != "published.toml")  # which is no recipe
OPTICAL = sorted((RECIPES / "optical").glob("*.toml"))

# Of the CLM family: hidden, layers, heads, key/value heads.
CLM = {"60m": (384, 22, 6, 2), "200m": (768, 24, 12, 4), "400m": (960, 30, 15, 5), "600m": (1152, 32, 18, 6), "1.1b": (1536, 32, 24, 8)}
VOCABULARY = 49152


def feed_forward(hidden):
    """1.3 * 8 C / 3, rounded up to a multiple of 128."""
    return -(-13 * 8 * hidden // (30 * 128)) * 128


def named(paths):
    return [pytest.param(path, id=str(path.relative_to(RECIPES))) for path in paths]


@pytest.fixture
def whole(refract):
    """A recipe with those it derives from, as the program prints it."""
    return lambda recipe, *overrides: tomllib.loads(refract("inspect", recipe, "--toml", *overrides).stdout)


def start_of(settings):
    return settings.get("init", {}).get("from", "random")


def pretrained(settings):
    """The configuration of the model that a recipe starts from; of an optical recipe from scratch, that of its size."""
    start = start_of(settings)
    if start == "random":
        start = settings["model"]["preset"]
    if start == "openai-community/gpt2":
        return GPT2Config()
    if start == "runs/compactgpt":  # the connectivity study's
        return GPT2Config(n_embd=192, n_layer=6, n_head=6, n_positions=64)
    hidden, layers, heads, kv_heads = CLM[re.search(r"clm-([\d.]+[mb])", start)[1]]
    return LlamaConfig(vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=feed_forward(hidden), num_hidden_layers=layers,
                       num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=False,
                       max_position_embeddings=2048)


@pytest.fixture
def inspect(refract_json, whole, tmp_path):
    """refract inspect RECIPE; what it starts from is a folder with the published configuration alone."""

    def call(recipe):
        settings = whole(recipe)
        overrides = []
        if start_of(settings) != "random":
            config = pretrained(settings).to_dict()
            config["architectures"] = None
            (tmp_path / "start").mkdir()
            (tmp_path / "start" / "config.json").write_text(json.dumps(config))
            overrides = ["init.from=start"]
        elif settings["data"].get("path", "").startswith("stories:"):
            overrides = ["data.path=stories:50KB"]  # for its characters
        return refract_json("inspect", recipe, *overrides)

    return call


@pytest.mark.parametrize("recipe", named(ALL))
def test_is_planned(inspect, recipe):
    figures = inspect(recipe)
    assert figures["parameters"] > 0
    assert figures["steps"] > 0 or "minutes" in recipe.read_text()  # which a machine's speed turns into steps
    assert 0 < figures["trainable_parameters"] <= figures["parameters"]


def dense_parameters(config):
    """Of the whole model without adapters."""
    if isinstance(config, GPT2Config):
        return 124_439_808
    c, f, d = config.hidden_size, config.intermediate_size, config.hidden_size // config.num_attention_heads
    layer = 2 * c + 2 * c * c + 2 * c * d * config.num_key_value_heads + 3 * c * f
    return 2 * config.vocab_size * c + config.num_hidden_layers * layer + c


def adapter_parameters(config, r=32):
    c, f, d = config.hidden_size, config.intermediate_size, config.hidden_size // config.num_attention_heads
    kv = d * config.num_key_value_heads
    return config.num_hidden_layers * r * (2 * (c + c) + 2 * (c + kv) + 3 * (c + f))


def published_steps(recipe, parameters):
    """Rounded up: 22 N / 100 tokens of fine-tuning and 22 N from random weights, with the N of the model's name."""
    if recipe.stem in ("clm-60m-scratch", "clm-60m-continual"):
        return 8586 if recipe.stem == "clm-60m-scratch" else 100
    size = recipe.stem.split("-")[1]
    nominal = parameters if recipe.stem == "gpt2-full" else float(size[:-1]) * (1e9 if size[-1] == "b" else 1e6)
    if recipe.stem.endswith("-scratch"):
        return math.ceil(22 * nominal / (84 * 2048))
    return math.ceil(22 * nominal / 100 / (16 * 1024))


@pytest.mark.parametrize("recipe", named(OPTICAL))
def test_optical_recipes_follow_the_publication(inspect, whole, recipe):
    settings = whole(recipe)
    config, figures = pretrained(settings), inspect(recipe)
    layers, gpt2 = config.num_hidden_layers, isinstance(config, GPT2Config)
    lora = recipe.stem.endswith("-lora")
    adapters = adapter_parameters(config) if lora else 0
    assert figures["parameters"] == dense_parameters(config) + adapters
    assert figures["trainable_parameters"] == (adapters if lora else figures["parameters"])
    assert figures["steps"] == published_steps(recipe, figures["parameters"])
    linear, attention, rest = figures["transforms"]
    assert (linear["kind"], attention["kind"]) == ("lora" if lora else "optical", "optical")
    assert len(linear["modules"]) == (6 if gpt2 else 7) * layers and len(attention["modules"]) == layers
    assert rest["modules"] == []
    assert settings["schedule"]["kind"] == "linear" and settings["schedule"]["final"] == 0


def test_every_size_has_its_three_recipes():
    expected = {f"clm-{size}-{way}" for size in CLM for way in ("full", "lora", "scratch")}
    expected |= {"clm-60m-continual", "gpt2-full"}
    assert {path.stem for path in OPTICAL} == expected


@pytest.mark.parametrize("recipe", named([path for path in OPTICAL if not path.stem.endswith("-scratch")]))
def test_absent_weights_are_one_clear_line(refract, whole, recipe, tmp_path):
    (line,) = refract("train", recipe, code=1).stderr.splitlines()
    assert "hf download" in line and start_of(whole(recipe)) in line
    assert not (tmp_path / "runs").exists()


def own_seed(recipe):
    return 1005 if recipe.parent.name == "structured" else 1


DERIVED = [RECIPES / name for name in ("structured/m-wide-structured.toml", "structured/l-block-dense-32-guided.toml",
                                       "optical/clm-400m-lora.toml", "lmc/across-media.toml")]


@pytest.mark.parametrize("recipe", named(DERIVED))
def test_inspect_prints_a_recipe_that_is_the_same_one(refract, whole, recipe, tmp_path):
    text = refract("inspect", recipe, "--toml").stdout
    (tmp_path / "whole.toml").write_text(text)
    assert refract("inspect", "whole.toml", "--toml").stdout == text
    settings, own = whole(recipe), tomllib.loads(recipe.read_text())
    assert "base" in own and "base" not in settings and settings["run"] == {**own["run"], "seed": own_seed(recipe)}
    assert settings["optimizer"]["betas"] and settings["train"]["batch"]
    assert whole(recipe, "run.seed=5")["run"]["seed"] == 5


def test_inspect_refuses_to_print_what_is_not_a_recipe(refract, recipe):
    assert "did you mean 'optimizer.lr'" in refract("inspect", recipe, "--toml", "optimizer.lrr=1", code=2).stderr
    assert "not a recipe" in refract("inspect", "runs/demo", "--toml", code=2).stderr
    assert "exclude" in refract("inspect", recipe, "--toml", "--json", code=2).stderr


def test_every_command_reads_a_derived_recipe(refract, refract_json, recipe, tmp_path):
    """Trained, it is the run of its base with its own keys over them; a sweep knows both for the same."""
    (tmp_path / "derived.toml").write_text('base = "recipe.toml"\n[train]\nsteps = 4\n[run]\ndir = "derived"\n')
    derived = refract_json("train", "derived.toml")
    assert derived["loss"] == refract_json("train", recipe, "train.steps=4")["loss"]
    written = (tmp_path / "derived/config.toml").read_text()
    assert "base" not in tomllib.loads(written)
    assert written == (tmp_path / "run/config.toml").read_text().replace('dir = "run"', 'dir = "derived"')
    swept = ("--over", "optimizer.lr=1e-3", "--out", "sweep")
    first = refract_json("sweep", "derived.toml", *swept)
    assert refract_json("sweep", recipe, "train.steps=4", *swept)["runs"] == first["runs"]


def test_a_bad_base_is_one_clear_line(refract, recipe, tmp_path):
    (tmp_path / "derived.toml").write_text('base = "nowhere.toml"\n')
    for command in ("train", "inspect", "connectivity"):
        (line,) = refract(command, "derived.toml", code=2).stderr.splitlines()
        assert "derived.toml: can't open its base 'nowhere.toml'" in line
    (line,) = refract("train", recipe, "base=derived.toml", code=2).stderr.splitlines()
    assert "base" in line


@pytest.mark.parametrize("text, hint", [
    ('bas = "x.toml"\n', "unknown key 'bas'; did you mean 'base'?"),
    ('[run]\nbase = "x.toml"\n', "base stands in the table [run]; move it to the top"),
    ("[conectivity]\nspawn = [0]\n", "unknown table [conectivity]; did you mean [connectivity]?"),
])
def test_a_name_that_is_not_a_setting_has_its_hint(refract, tmp_path, text, hint):
    (tmp_path / "recipe.toml").write_text(text)
    (line,) = refract("inspect", "recipe.toml", code=2).stderr.splitlines()
    assert hint in line


def test_a_folder_names_its_recipes_alone(refract):
    (line,) = refract("train", RECIPES, code=2).stderr.splitlines()
    assert line.endswith(f"'{RECIPES}' is a folder, and a recipe is a TOML file; it holds {RECIPES / 'demo.toml'}")
