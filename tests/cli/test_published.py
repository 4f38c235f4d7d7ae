"""Every recipe has what its source published, as recipes/published.toml lists it with the place of each fact."""
import fnmatch
import math
import pathlib
import re

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "recipes"
PUBLISHED = tomllib.loads((RECIPES / "published.toml").read_text())
NAMES = sorted(str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.toml") if path.name != "published.toml")


def matching(patterns):
    return {name for name in NAMES for pattern in patterns if fnmatch.fnmatchcase(name, pattern)}


def facts_of(name):
    return {key: fact for entry in PUBLISHED["published"] if name in matching(entry["recipes"]) for key, fact in entry["facts"].items()}


WITH_A_SOURCE = [name for name in NAMES if facts_of(name)]


@pytest.fixture
def whole(refract):
    """A recipe with those it derives from, as the program prints it."""
    return lambda name, *overrides: tomllib.loads(refract("inspect", RECIPES / name, "--toml", *overrides).stdout)


def value_of(settings, key):
    """What a dotted key has, or None; a number is a place in an array."""
    for part in key.split("."):
        if isinstance(settings, list):
            settings = settings[int(part)] if int(part) < len(settings) else None
        else:
            settings = (settings or {}).get(part)
    return settings


def agrees(value, fact):
    if "between" in fact:
        low, high = fact["between"]
        return isinstance(value, (int, float)) and low <= value <= high
    allowed = fact["one_of"] if "one_of" in fact else [fact["is"]]
    return any(type(value) is type(one) and value == one if isinstance(one, (bool, str)) else value == one for one in allowed)


def disagreements(settings, facts):
    return [f"{key} is {value_of(settings, key)!r}, published: {fact}" for key, fact in facts.items() if not agrees(value_of(settings, key), fact)]


@pytest.mark.parametrize("name", WITH_A_SOURCE)
def test_a_recipe_has_what_was_published(whole, name):
    assert disagreements(whole(name), facts_of(name)) == []


@pytest.mark.parametrize("override", ["optimizer.lr=3e-5", "optimizer.clip=1", "train.precision=bf16", "schedule.warmup=0.1", "train.nominal=0",
                                      "transform.0.kind=none", "optimizer.decay=matrices", "train.rounding=nearest"])
def test_a_recipe_that_drifts_is_found(whole, override):
    found = disagreements(whole("optical/clm-60m-full.toml", override), facts_of("optical/clm-60m-full.toml"))
    assert len(found) == 1 and override.split("=")[0] in found[0]


def test_every_recipe_has_a_source_or_is_ours():
    ours = {name for entry in PUBLISHED["ours"] for name in matching(entry["recipes"])}
    assert ours | set(WITH_A_SOURCE) == set(NAMES)
    assert not ours & set(WITH_A_SOURCE)


def test_every_entry_is_about_some_recipe_and_says_where():
    for entry in PUBLISHED["published"] + PUBLISHED["ours"]:
        for pattern in entry["recipes"]:
            assert matching([pattern]), pattern
    for entry in PUBLISHED["published"]:
        assert entry["source"] and entry["facts"]
        for key, fact in entry["facts"].items():
            assert fact.keys() - {"at"} in ({"is"}, {"one_of"}, {"between"}) and fact["at"], key
    assert all(entry["why"] for entry in PUBLISHED["ours"])


@pytest.mark.parametrize("name", NAMES)
def test_a_head_says_what_is_reproduced_and_what_differs(name):
    lines = (RECIPES / name).read_text().splitlines()
    head = "\n".join(lines[:next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert "not published" not in head
    if facts_of(name):
        assert re.search(r"^# Reproduces: .*", head, re.M) and re.search(r"^# Differs: .*", head, re.M)
    elif name != "demo.toml" and "/small-" not in name:
        assert re.search(r"^# Ours: .*", head, re.M)


@pytest.mark.parametrize("size, nominal", [("60m", 60e6), ("200m", 200e6), ("400m", 400e6), ("600m", 600e6), ("1.1b", 1.1e9)])
def test_steps_follow_from_the_nominal_size(refract_json, tmp_path, size, nominal):
    """The script's budget over the tokens of an optimizer step, rounded up; not that of the parameters that there are."""
    from transformers import LlamaConfig
    (tmp_path / "start").mkdir()
    LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=2048).to_json_file(tmp_path / "start" / "config.json", use_diff=False)
    figures = refract_json("inspect", RECIPES / f"optical/clm-{size}-full.toml", "init.from=start")
    assert figures["steps"] == math.ceil(22 * nominal / 100 / (16 * 1024))
