"""What is typed is what is used: values by the type of their key, paths, brackets, numbers, names of commands."""
import json
import os
import subprocess

import pytest

SHORT = ["train.steps=1", "eval.samples=0", "eval.every=0"]


@pytest.mark.parametrize("typed", ["8e2", "0b11", "2.50", "false", "08:15", "-3", "1_0", "Infinity", "#1", "a, b", "[x]", "{}",
                                   "'half", "C:\\new", "x=y"])
def test_text_stays_as_it_was_typed(refract, recipe, tmp_path, typed):
    refract("train", recipe, *SHORT, f"run.dir=at {typed}", f"eval.prompt={typed}")
    refract("train", recipe, *SHORT, f"run.dir={typed}")
    assert (tmp_path / f"at {typed}").is_dir() and (tmp_path / typed / "config.toml").is_file()
    shown = refract("inspect", str(tmp_path / f"at {typed}" / "config.toml"), "--toml").stdout
    assert toml_text(shown, "prompt") == typed


def toml_text(text, key):
    line = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
    value = line.split(" = ", 1)[1]
    return value[1:-1] if value.startswith("'") else json.loads(value)


def test_quotes_as_toml_has_them_come_off(refract, recipe, tmp_path):
    refract("train", recipe, *SHORT, 'run.dir="5"', "eval.prompt='a b'")
    assert (tmp_path / "5").is_dir() and toml_text((tmp_path / "5/config.toml").read_text(), "prompt") == "a b"


@pytest.mark.parametrize("value, steps", [("3e0", 3), ("+2", 2), ("002", 2), ("2.", 2)])
def test_numbers_as_people_write_them(refract_json, recipe, value, steps):
    assert refract_json("train", recipe, f"train.steps={value}", "eval.samples=0")["step"] == steps


@pytest.mark.parametrize("override, words", [
    ("train.steps=2 #two", "train.steps takes an integer, not \"2 #two\""),
    ("train.steps=2\ntrain.batch=1", "train.steps takes an integer"),
    ("optimizer.lr=1e-3x", "optimizer.lr takes a number, not \"1e-3x\""),
    ("optimizer.lr=1,5", "optimizer.lr takes a number"),
    ("optimizer.weight_decay=inf", "optimizer.weight_decay = inf is out of range: it must be a finite number"),
    ("schedule.warmup=-nan", "schedule.warmup"),
    ("optimizer.betas=[0.9, nan]", "optimizer.betas = nan is out of range"),
    ("model.norm_eps=1e999", "model.norm_eps"),
    ("eval.temperature=+inf", "eval.temperature"),
    ("transform=[{match='.*up_proj',kind='lora',alpha=inf}]", "finite"),
    ("run.dir=", "run.dir is empty"),
    ("data.path=", "data.path is empty"),
    ("data.path=[\"\"]", "data.path is empty"),
    ("init.from=", "init.from is empty"),
    ("data.tokenizer=", "data.tokenizer is empty"),
    ("run.dir=$NOT_SET_ANYWHERE/x", "the environment variable NOT_SET_ANYWHERE, which is not set"),
    ("run.dir=~nobody-of-that-name/x", "no user 'nobody-of-that-name'"),
])
def test_what_can_not_be_meant_is_one_line(refract, recipe, tmp_path, override, words):
    before = sorted(os.listdir(tmp_path))
    done = refract("train", recipe, override, code=2)
    assert words in done.stderr and len(done.stderr.splitlines()) == 1 and "refract: " in done.stderr
    assert sorted(set(os.listdir(tmp_path)) - {"cache"}) == before


def test_a_number_for_a_text_in_a_recipe_wants_quotes(refract, recipe):
    text = recipe.read_text().replace('dir = "run"', "dir = 1.10")
    recipe.write_text(text)
    assert "run.dir takes text, not the number 1.1: put it in quotes" in refract("train", recipe, code=2).stderr


def test_home_and_variables_in_every_path(refract, recipe, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PLACE", str(home / "place"))
    refract("data", "stories", "--size", "20KB", "--out=~/s.txt")
    refract("train", recipe, *SHORT, "run.dir=$PLACE/run", "data.path=~/*.txt", "data.cache=${PLACE}/cache")
    assert (home / "place/run/config.toml").exists() and list((home / "place/cache").iterdir())
    refract("train", recipe, *SHORT, "run.dir=~/tuned", "init.from=$PLACE/run", "data.path=~/s.txt")
    refract("eval", "~/tuned")
    refract("export", "$PLACE/run", "--out", "~/exported")
    refract("tokenize", "~/s.txt", "--tokenizer", "~/tuned/checkpoints/step-00000001", "--out", "${PLACE}/shards")
    assert {"tuned", "exported", "place", "s.txt"} <= set(os.listdir(home))
    assert not any("~" in name or "$" in name for name in os.listdir(tmp_path))


def test_a_name_with_a_dollar_sign_that_exists_is_that_file(refract, recipe, tmp_path):
    (tmp_path / "a$HOME.txt").write_text("some text of its own\n" * 100)
    refract("train", recipe, *SHORT, "data.path=a$HOME.txt", "run.dir=cost$5")
    assert (tmp_path / "cost$5").is_dir()


@pytest.mark.parametrize("variables, place", [
    ({"HF_HUB_CACHE": "~/hub"}, "home/hub"),
    ({"HUGGINGFACE_HUB_CACHE": "{tmp}/old"}, "old"),
    ({"HF_HOME": "$HOME/hf"}, "home/hf/hub"),
    ({"XDG_CACHE_HOME": "~/xdg"}, "home/xdg/huggingface/hub"),
    ({"HF_HOME": "", "XDG_CACHE_HOME": ""}, "home/.cache/huggingface/hub"),
])
def test_the_hub_cache_is_where_huggingface_hub_has_it(program, tmp_path, variables, place):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_", "XDG_"))}
    environment = {**clean, "HOME": str(tmp_path / "home"),
                   **{name: value.format(tmp=tmp_path) for name, value in variables.items()}}
    done = subprocess.run([program, "eval", "some/model", "--data", "x.txt"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 1 and f"({tmp_path / place})" in done.stderr


@pytest.mark.parametrize("prompt", ["[a]", "[The, fox]", "{}", "[]", "- dash", "--json", "'quoted'", "tab\tin", "%s {0}"])
def test_prompts_are_taken_as_typed(refract, refract_json, recipe, prompt):
    refract("train", recipe, *SHORT, "data.tokenizer=bytes")
    made = refract_json("generate", "run", "--max-tokens", "2", "--prompt", prompt)
    assert made["prompt"] == prompt


def test_a_folder_in_brackets_is_a_folder(refract_json, tmp_path):
    (tmp_path / "[x,y]").mkdir()
    (tmp_path / "[x,y]/a.txt").write_text("text")
    assert refract_json("tokenize", "[x,y]", "--tokenizer", "bytes", "--out", "[o]", "--validation-fraction", "0")["documents"] == 1
    assert (tmp_path / "[o]").is_dir()


@pytest.mark.parametrize("typed, words", [
    (["trian", "r.toml"], "there is no command 'trian'; did you mean 'train'?"),
    (["interpolat", "a", "b"], "did you mean 'interpolate'?"),
    (["tokenizer", "trane"], "did you mean 'tokenizer train'?"),
    (["bench", "kernels"], "did you mean 'bench kernel'?"),
    (["generate", "x", "--promt", "a"], "did you mean --prompt?"),
    (["generate", "x", "--temperature", "nan"], "--temperature takes a finite number, not 'nan'"),
    (["generate", "x", "--top-p", "inf"], "--top-p takes a finite number"),
    (["generate", "x", "--max-tokens", "ten"], "--max-tokens takes a number, not 'ten'"),
    (["generate", "x", "--max-tokens", "1.5"], "--max-tokens takes an integer, not '1.5'"),
    (["export", "x", "--out", ""], "--out is empty"),
    (["eval", "x", "--data", ""], "--data is empty"),
    (["eval", ""], "model is empty"),
])
def test_what_is_no_command_or_value_is_named(refract, typed, words):
    done = refract(*typed, code=2)
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name, content, words", [
    ("r.toml", "\ufeff[train]\nsteps = 1\n".encode("utf-16-le"), "UTF-16"),
    ("r.toml", b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
    ("r.toml", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
    ("r.toml", b"PK\x03\x04" + bytes(40), "zip archive"),
])
def test_a_file_that_is_no_recipe_is_named(refract, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    done = refract("train", name, code=2)
    assert words in done.stderr and name in done.stderr and len(done.stderr.splitlines()) == 1
