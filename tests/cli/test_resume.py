"""Resuming: what a run takes from its folder, what may change, what is refused, and that a refusal writes nothing."""
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import pytest


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def setting(run, key):
    found = re.search(rf"^{key} = (.*)$", (run / "config.toml").read_text(), re.M)
    return found and found[1]


@pytest.fixture
def text(tmp_path):
    lines = [f"line {i} of the text is {i * i % 97} long" for i in range(300)]
    (tmp_path / "c.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "c.txt"


@pytest.fixture
def run(refract, recipe, text, tmp_path):
    """Ten steps on c.txt with settings that only the command line said."""
    refract("train", recipe, "data.path=c.txt", "train.steps=10", "model.hidden_size=48", "eval.samples=0")
    return tmp_path / "run"


def test_a_run_folder_is_its_own_recipe(refract, refract_json, run):
    result = refract_json("train", "run", "--resume", "train.steps=15")
    assert result["step"] == 15 and setting(run, "hidden_size") == "48" and setting(run, "path") == '["c.txt"]'
    log = (run / "log.txt").read_text()
    assert "changed on the way: train.steps = 15 (was 10)" in log and "resuming from step 10" in log
    again = refract_json("train", "run", "--resume")
    assert again["step"] == 15 and again["loss"] is None, "no step was made"


def test_it_equals_the_run_that_was_never_stopped(refract, recipe, run, tmp_path):
    refract("train", "run/", "--resume", "train.steps=20")
    refract("train", recipe, "data.path=c.txt", "train.steps=20", "model.hidden_size=48", "eval.samples=0", "run.dir=whole")
    for name in ("model.safetensors", "train_state.safetensors"):  # the schedule is that of the whole run only here
        assert (tmp_path / "run/checkpoints/step-00000020" / name).stat().st_size \
            == (tmp_path / "whole/checkpoints/step-00000020" / name).stat().st_size
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_a_run_that_was_moved_goes_on_where_it_lies(refract, refract_json, run, tmp_path):
    run.rename(tmp_path / "elsewhere")
    assert refract_json("train", "elsewhere", "--resume", "train.steps=12")["step"] == 12
    assert not run.exists()


@pytest.mark.parametrize("override, words", [
    ("model.hidden_size=32", ["model.hidden_size = 32 (was 48)", "refract train run --resume"]),
    ("model.norm=rmsnorm", ['model.norm = "rmsnorm" (was "layernorm")']),
    ("run.seed=9", ["run.seed = 9 (was 3)"]),
    ("run.noise_seed=4", ["run.noise_seed = 4 (was 3)"]),
    ("data.context=8", ["data.context = 8 (was 16)"]),
    ("data.path=other.txt", ["another corpus", "other.txt"]),
    ("data.split=characters data.validation_fraction=0.3", ["another corpus", "data.validation_fraction was 0.1"]),
    ("data.tokenizer=bytes", ["another corpus", 'data.tokenizer was "chars", and is "bytes"']),
    ("train.steps=7", ["has 10 steps already"]),
    ("transform=[{match='.*up_proj',kind='low_rank',rank=4}]", ["transform"]),
])
def test_what_can_not_change_is_refused_by_name_and_nothing_is_written(refract, run, tmp_path, override, words):
    (tmp_path / "other.txt").write_text("line of the text is long\n" * 200)
    before = content(run)
    overrides = ["train.steps=15", *override.split()] if "transform" not in override else ["train.steps=15", override]
    done = refract("train", "run", "--resume", *overrides, code=2)
    for word in words:
        assert word in done.stderr
    assert content(run) == before


def test_what_decides_nothing_may_change_without_a_word(refract, run):
    done = refract("train", "run", "--resume", "train.steps=10", "log.every=1", "checkpoint.keep=3", "eval.prompt=x")
    assert "changed on the way" not in done.stderr


@pytest.mark.parametrize("change, words", [
    (lambda text: text.replace("e", "\u00e9"), ["characters '\u00e9'", "lacks the characters 'e'"]),
    (lambda text: text + "Zebra!\n", ["c.txt", "'!'", "'Z'"]),
    (lambda text: text.replace("long", "gnol"), ["its text is another"]),
])
def test_the_corpus_under_the_same_name_is_looked_at(refract, run, text, change, words):
    text.write_text(change(text.read_text()))
    before = content(run)
    done = refract("train", "run", "--resume", "train.steps=15", code=2)
    for word in ["another corpus", "init.from=run", *words]:
        assert word in done.stderr
    assert content(run) == before
    try:  # its validation split is none of this text
        assert "another corpus" in refract("eval", "run", code=2).stderr
    except AssertionError:  # which may not even be made of its characters
        assert "is not among the 23 characters of the tokenizer" in refract("eval", "run", code=1).stderr


def test_the_same_text_under_another_name_is_the_same_corpus(refract_json, run, text):
    text.rename(text.with_name("d.txt"))
    assert refract_json("train", "run", "--resume", "train.steps=12", "data.path=d.txt")["step"] == 12


def test_eval_and_resume_do_not_depend_on_the_folder_they_are_called_from(program, refract_json, run, tmp_path):
    here = refract_json("eval", "run")
    away = tmp_path / "away"
    away.mkdir()
    (away / "c.txt").write_text("another text that lies here by chance\n" * 50)
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))

    def call(*arguments):
        done = subprocess.run([program, *arguments, "--json"], cwd=away, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def evaluated(model):
        figures = call("eval", model)
        assert figures["corpus"].endswith("c.txt")  # named by its whole path where a relative one would mislead
        return {**figures, "corpus": here["corpus"]}

    assert evaluated("../run") == here
    assert evaluated("../run/checkpoints/step-00000010") == here
    assert call("train", "../run", "--resume", "train.steps=12")["step"] == 12
    assert call("train", "../run/config.toml", "--resume", "train.steps=14")["step"] == 14
    assert sorted(os.listdir(away)) == ["c.txt"]
    assert refract_json("train", "run", "--resume", "train.steps=15")["step"] == 15  # and back


def test_the_line_of_a_stopped_run_resumes_it_when_pasted(program, recipe, text, tmp_path):
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    folder = tmp_path / "my run's"
    process = subprocess.Popen([program, "train", recipe, f"run.dir={folder.name}", "train.steps=1000000",
                                "checkpoint.every=0", "log.every=1", "model.hidden_size=64", "eval.every=0"],
                               cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    last = process.communicate(timeout=60)[1].strip().splitlines()[-1]
    words = shlex.split(last.split("go on with: ")[1])
    saved = int(re.search(r"at step (\d+)", last)[1])
    assert words[:2] == ["refract", "train"]
    done = subprocess.run([program, *words[1:], f"train.steps={saved + 2}"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0 and f"resuming from step {saved}" in done.stderr


def test_resume_without_anything_there_says_that_it_starts_anew(refract, recipe, tmp_path):
    done = refract("train", recipe, "--resume", "train.steps=2", "run.dir=typo")
    assert "'typo' holds no checkpoint to go on from: the run starts anew" in done.stderr
    assert "no recipe" not in done.stderr and (tmp_path / "typo/checkpoints/step-00000002").is_dir()


@pytest.mark.parametrize("what, words", [
    ("run", ["folder of a run", "refract train run --resume"]),
    ("run/checkpoints/step-00000010", ["is a checkpoint", "refract train run --resume"]),
])
def test_a_folder_given_as_a_recipe_is_named(refract, run, what, words):
    before = content(run)
    done = refract("train", what, *(["--resume"] if "step" in what else []), code=2)
    for word in words:
        assert word in done.stderr
    assert content(run) == before


def test_a_folder_of_recipes_is_named_with_what_it_holds(refract, recipe, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/a.toml").write_text(recipe.read_text())
    assert "kept/a.toml" in refract("train", "kept", code=2).stderr


def test_one_process_trains_in_a_folder(refract, program, recipe, tmp_path):
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    first = subprocess.Popen([program, "train", recipe, "train.steps=1000000", "eval.every=0", "log.every=1"], cwd=tmp_path,
                             env=environment, stderr=subprocess.DEVNULL)
    try:
        while not list((tmp_path / "run").glob("checkpoints/step-0000000?")):
            assert first.poll() is None
            time.sleep(0.01)
        for arguments in (["train", recipe, "--resume"], ["train", "run", "--resume"], ["train", recipe]):
            done = refract(*arguments, code=1)
            assert "'run' is being trained by another process" in done.stderr and len(done.stderr.splitlines()) == 1
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    newest = max((tmp_path / "run/checkpoints").glob("step-????????"))  # the lock went with its process
    steps = int(newest.name[5:])
    assert f"resuming from step {steps}" in refract("train", "run", "--resume", f"train.steps={steps + 1}").stderr


def test_weights_that_are_not_finite_are_not_saved(refract, recipe, tmp_path):
    done = refract("train", recipe, "optimizer.lr=3e38", "optimizer.clip=0", "schedule.warmup=0", "train.steps=1", code=1)
    assert "not finite" in done.stderr and "There is no checkpoint yet" in done.stderr and "done" not in done.stderr
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_the_last_good_checkpoint_has_finite_weights(refract, recipe, tmp_path):
    refract("train", recipe, "train.steps=5", "schedule.kind=constant")
    done = refract("train", "run", "--resume", "train.steps=9", "optimizer.lr=3e38", "optimizer.clip=0",
                   "checkpoint.every=1", code=1)
    assert "not finite" in done.stderr and "run/checkpoints/step-00000005" in done.stderr
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000005"]
