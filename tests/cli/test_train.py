"""The train command: its run folder, stopping, killing, resuming, refusing."""
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
import tomllib

import pytest
from safetensors.numpy import load_file


def final_state(run, step=60):
    folder = pathlib.Path(run) / "checkpoints" / f"step-{step:08}"
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "train_state.safetensors")}


def assert_equal_states(a, b):
    assert a.keys() == b.keys() and len(a) > 10
    for name in a:
        assert (a[name] == b[name]).all(), name


def metrics(run):
    return [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]


def test_leaves_a_complete_run_folder(refract, recipe, tmp_path):
    done = refract("train", recipe, "--json")
    result = json.loads(done.stdout)
    assert result["finished"] and result["step"] == 60
    run = tmp_path / "run"
    lines = metrics(run)
    assert [line["step"] for line in lines if "loss" in line] == list(range(5, 61, 5))
    assert lines[-1]["validation_loss"] == pytest.approx(result["validation"]["loss"])
    first = next(line for line in lines if "loss" in line)
    assert result["loss"] < first["loss"] - 0.3  # it learned something
    for key in ("grad_norm", "learning_rate", "tokens_per_second", "memory_bytes", "perplexity"):
        assert first[key] > 0
    assert (run / "config.toml").exists() and (run / "log.txt").stat().st_size > 0
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert len(list((run / "checkpoints").iterdir())) == 12


def test_killed_anywhere_and_resumed_equals_uninterrupted(refract, program, recipe, tmp_path):
    refract("train", recipe)
    expected = final_state(tmp_path / "run")
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    arguments = [str(program), "train", str(recipe), "run.dir=killed", "--resume"]
    folder = tmp_path / "killed" / "checkpoints"

    def saved():
        return len([entry for entry in folder.glob("step-*") if not entry.name.endswith(".unfinished")])

    kills = 0
    for attempt in range(5):
        chance = random.Random(attempt)
        wanted = saved() + chance.choice([0, 1, 1, 2])  # by what has happened: how fast it runs is no matter
        process = subprocess.Popen(arguments, cwd=tmp_path, env=environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if attempt == 4:
            process.wait(timeout=120)
            break
        while process.poll() is None and saved() < wanted:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2 and process.returncode == 0
    assert_equal_states(final_state(tmp_path / "killed"), expected)
    steps = [line["step"] for line in metrics(tmp_path / "killed") if "loss" in line]
    assert steps == list(range(5, 61, 5))  # every log point once


def test_sigterm_saves_and_the_resumed_run_is_the_same(refract, program, recipe, tmp_path):
    refract("train", recipe)
    arguments = [str(program), "train", str(recipe), "run.dir=stopped", "checkpoint.every=0", "log.every=1"]
    process = subprocess.Popen(arguments, cwd=tmp_path, env=dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache")),
                               stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "stopped" / "metrics.jsonl").exists() or not metrics(tmp_path / "stopped"):
        time.sleep(0.002)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have finished just before
        assert process.returncode == 1 and "go on with: refract train" in errors
        saved = list((tmp_path / "stopped" / "checkpoints").iterdir())
        assert len(saved) == 1 and saved[0].name.startswith("step-")
    refract("train", recipe, "run.dir=stopped", "checkpoint.every=0", "log.every=1", "--resume")
    assert_equal_states(final_state(tmp_path / "stopped"), final_state(tmp_path / "run"))


def test_an_existing_run_is_refused_and_untouched(refract, recipe, tmp_path):
    refract("train", recipe, "train.steps=5")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = refract("train", recipe, code=2)
    assert "already holds a run" in done.stderr and "--resume" in done.stderr
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@pytest.mark.parametrize("override, words", [
    ("optimizer.lrr=1", "did you mean 'optimizer.lr'"),
    ("train.steps=-1", "train.steps = -1 is out of range"),
    ("model.num_attention_heads=3", "can't be divided"),
    ("model.num_key_value_heads=4", "not a multiple"),
    ("data.context=100000", "tokens"),
    ("data.path=missing.txt", "missing.txt"),
    ("data.tokenizer=nowhere", "nowhere"),
    ("init.from=nowhere", "nowhere"),
    ("model.vocab_size=3", "smaller than the tokenizer's"),
    ("train.steps=0", "train.steps, train.tokens or train.minutes"),
])
def test_bad_settings_are_one_clear_line(refract, recipe, tmp_path, override, words):
    done = subprocess_result(refract, recipe, override)
    assert words in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("refract: ")]) == 1
    assert done.stdout == ""


def test_a_prompt_that_the_tokenizer_has_no_ids_for_is_refused_before_anything_is_written(refract, recipe, tmp_path):
    (line,) = [line for line in refract("train", recipe, "eval.prompt=10 #1", code=2).stderr.splitlines() if line.startswith("refract: ")]
    assert "eval.prompt: the character '1' (U+0031)" in line
    assert not (tmp_path / "run").exists()
    # Where nothing is sampled, nothing is asked.
    refract("train", recipe, "eval.prompt=10 #1", "eval.samples=0", "train.steps=1")


def test_a_recipe_without_a_length_is_refused_before_its_corpus_is_made(refract, tmp_path):
    (tmp_path / "empty.toml").write_text("")
    done = refract("train", "empty.toml", code=2)
    assert done.stderr == "refract: empty.toml: set train.steps, train.tokens or train.minutes\n"
    assert not (tmp_path / "cache").exists()


def subprocess_result(refract, recipe, override):
    try:
        return refract("train", recipe, override, code=2)
    except AssertionError:
        return refract("train", recipe, override, code=1)


def test_cuda_is_refused_where_there_is_none(refract, recipe):
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    assert "cuda" in refract("train", recipe, "train.device=cuda", code=1).stderr


def test_fine_tuning_starts_from_a_run(refract, refract_json, recipe, tmp_path):
    base = refract_json("train", recipe)
    tuned = refract_json("train", recipe, "init.from=run", "run.dir=tuned", "train.steps=5", "optimizer.lr=1e-4")
    assert abs(tuned["loss"] - base["loss"]) < 0.5
    lines = metrics(tmp_path / "tuned")
    assert lines[0]["step"] == 0
    assert lines[0]["validation_loss"] == pytest.approx(base["validation"]["loss"], rel=1e-5)


def test_help_keys_lists_every_setting(refract):
    text = refract("train", "--help-keys").stdout
    for key in ("optimizer.lr", "model.num_key_value_heads", "data.context", "checkpoint.permanent"):
        assert key in text


def test_a_time_becomes_steps_once(refract, recipe, tmp_path):
    """train.minutes is measured before the first step; the run is then that of its train.steps, and a resume keeps them."""
    minutes = ["train.steps=0", "train.minutes=0.0001", "checkpoint.every=50", "eval.every=0"]
    done = refract("train", recipe, *minutes)
    assert "100 steps fit into 0.0001 minutes" in done.stderr
    settings = tomllib.loads((tmp_path / "run/config.toml").read_text())["train"]
    assert settings["steps"] == 100 and settings["minutes"] == 0.0001
    refract("train", recipe, "run.dir=plain", "train.steps=100", "checkpoint.every=50", "eval.every=0")
    weights = [(tmp_path / run / "checkpoints/step-00000100/model.safetensors").read_bytes() for run in ("run", "plain")]
    assert weights[0] == weights[1]
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000100")
    again = refract("train", recipe, *minutes, "--resume")
    assert "a step takes" not in again.stderr and "resuming from step 50" in again.stderr
    assert (tmp_path / "run/checkpoints/step-00000100/model.safetensors").read_bytes() == weights[0]


def test_the_last_line_names_the_report(refract, recipe):
    last = refract("train", recipe, "train.steps=5").stderr.splitlines()[-1]
    assert "its curves are in run/report.html" in last and "refract generate run" in last


def test_a_warm_up_that_fills_the_run_is_said(refract, recipe):
    warning = "schedule.warmup = 60 takes 60 steps and the run has 60"
    assert warning in refract("train", recipe, "schedule.warmup=60").stderr
    assert "warmup" not in refract("train", recipe, "schedule.warmup=59", "run.dir=b").stderr
