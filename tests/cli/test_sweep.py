"""The sweep command: its runs, killing and resuming it, runs that diverge or fail, what it refuses."""
import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
from safetensors.numpy import load_file

from browser import document
from test_report import lines_drawn

OVER = ("--over", "optimizer.lr=1e-3,1e-2", "--over", "run.seed=1,2")
NAMES = [f"lr={lr},seed={seed}" for lr in ("1e-3", "1e-2") for seed in (1, 2)]


def states(folder):
    return {run["name"]: run["state"] for run in json.loads((folder / "sweep.json").read_text())["runs"]}


def weights(run, step=60):
    return load_file(run / "checkpoints" / f"step-{step:08}" / "model.safetensors")


def steps_logged(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line["step"] for line in map(json.loads, lines) if "loss" in line]


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def start(program, tmp_path):
    """Starts a sweep and returns its process; what is left of it is killed in the end."""
    started = []

    def call(*arguments):
        environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
        started.append(subprocess.Popen([str(program), "sweep", *map(str, arguments)], cwd=tmp_path, env=environment,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


def test_runs_every_combination_and_writes_one_table(refract_json, refract, recipe, tmp_path):
    result = refract_json("sweep", recipe, *OVER, "--jobs", 2)
    folder = tmp_path / "run-sweep"
    assert result["sweep"] == "run-sweep" and result["complete"]
    assert states(folder) == {name: "finished" for name in NAMES}
    losses = [run["validation_loss"] for run in result["runs"]]
    assert losses == sorted(losses) and len(set(losses)) == 4

    rows = json.loads((folder / "table.json").read_text())
    assert rows == result["runs"]
    with open(folder / "table.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["run"] for row in table] == [row["run"] for row in rows]
    for row, full in zip(table, rows):
        assert float(row["validation_loss"]) == full["validation_loss"]
        assert row["optimizer.lr"] == full["values"]["optimizer.lr"] and row["state"] == "finished"
        assert int(row["step"]) == 60

    # Each run is what train alone makes of the same settings.
    refract("train", recipe, "optimizer.lr=1e-2", "run.seed=2", "run.dir=alone")
    alone, swept = weights(tmp_path / "alone"), weights(folder / "lr=1e-2,seed=2")
    assert all((alone[name] == swept[name]).all() for name in alone)

    # Nothing is left to do.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")}
    assert refract_json("sweep", recipe, *OVER)["runs"] == rows
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")}


def test_the_report_plots_the_loss_over_what_was_swept(refract, recipe, tmp_path):
    refract("sweep", recipe, "--over", "optimizer.lr=1e-4,1e-3,1e-2", "train.steps=20", "--jobs", 2)
    dom = document(tmp_path / "run-sweep" / "report.html", tmp_path)
    drawn = lines_drawn(dom)
    assert drawn["Final loss over lr"] == [3]
    assert len(drawn["Training loss"]) == 3 and all(points >= 4 for points in drawn["Training loss"])
    page = (tmp_path / "run-sweep" / "report.html").read_text()
    assert '"x":[0.0001,0.001,0.01]' in page and '"type":"log"' in page
    refract("report", "run-sweep", "--out", "again.html")
    assert "Final loss over lr" in (tmp_path / "again.html").read_text()


def test_killed_and_called_again_it_equals_an_uninterrupted_one(refract, start, recipe, tmp_path):
    refract("sweep", recipe, *OVER, "--jobs", 2, "--out", "whole")
    process = start(recipe, *OVER, "--jobs", 2, "--out", "killed")
    folder = tmp_path / "killed"

    def one_done_and_one_under_way():
        if not (folder / "sweep.json").exists():
            return False
        now = states(folder)
        return "finished" in now.values() and any(
            state == "running" and list((folder / name).glob("checkpoints/step-*5")) for name, state in now.items())

    wait_for(one_done_and_one_under_way, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = [name for name, state in states(folder).items() if state == "finished"]
    kept = {name: (folder / name / "log.txt").read_text() for name in done}
    refract("sweep", recipe, *OVER, "--jobs", 2, "--out", "killed")
    assert states(folder) == {name: "finished" for name in NAMES}
    for name in NAMES:
        a, b = weights(tmp_path / "whole" / name), weights(folder / name)
        assert all((a[key] == b[key]).all() for key in a), name
        # A run that could still stop in order when its sweep died has logged the step it stopped at.
        logged = steps_logged(folder / name)
        assert [step for step in logged if step % 5 == 0] == list(range(5, 61, 5)) and len(logged) <= 13, name
    assert kept == {name: (folder / name / "log.txt").read_text() for name in done}  # not run again
    assert any("resuming from step" in (folder / name / "log.txt").read_text() for name in NAMES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_runs_save_and_a_second_call_goes_on(refract, start, recipe, tmp_path, number):
    long = ("train.steps=2000000", "checkpoint.every=0", "log.every=1", "eval.every=0")
    process = start(recipe, "--over", "run.seed=1,2,3", "--jobs", 2, *long)
    folder = tmp_path / "run-sweep"
    runs = [folder / "seed=1", folder / "seed=2"]
    wait_for(lambda: all((run / "metrics.jsonl").exists() and steps_logged(run) for run in runs), process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "the same command goes on" in errors
    assert states(folder) == {"seed=1": "stopped", "seed=2": "stopped", "seed=3": "waiting"}
    assert all(list(run.glob("checkpoints/step-*/train_state.safetensors")) for run in runs)
    assert "stopped" in (folder / "table.csv").read_text()


WILD = ("eval.every=0", "checkpoint.every=0", "optimizer.clip=0", "schedule.kind=constant", "schedule.warmup=0", "log.every=1")


def test_a_diverging_run_is_ended_early(refract_json, recipe, tmp_path):
    # Two million steps would take this test half an hour.
    [bad] = refract_json("sweep", recipe, "--over", "optimizer.lr=1e3", "train.steps=2000000", *WILD)["runs"]
    assert bad["state"] == "diverged" and 3 <= bad["step"] < 200000
    assert "smoothed loss" in bad["reason"] or "not finite" in bad["reason"]
    [saved] = json.loads((tmp_path / "run-sweep" / "sweep.json").read_text())["runs"]
    assert saved["reason"] == bad["reason"]


def test_a_diverged_run_stands_below_the_good_ones(refract_json, recipe):
    bad, good = "3.0", "1e-3"
    result = refract_json("sweep", recipe, "--over", f"optimizer.lr={bad},{good}", *WILD)
    assert [(run["values"]["optimizer.lr"], run["state"]) for run in result["runs"]] == [(good, "finished"), (bad, "diverged")]
    margin = refract_json("sweep", recipe, "--over", f"optimizer.lr={bad}", "--margin", 1e9, "--out", "lenient", *WILD)
    assert margin["runs"][0]["state"] == "finished"  # its loss is high, but finite


def test_one_failing_run_leaves_the_others(refract, recipe, tmp_path):
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question.\n" * 200)
    done = refract("sweep", recipe, "--over", "data.path=missing.txt,text.txt", code=1)
    runs = {row["values"]["data.path"]: row for row in json.loads((tmp_path / "run-sweep" / "table.json").read_text())}
    assert runs["text.txt"]["state"] == "finished"
    assert runs["missing.txt"]["state"] == "failed" and "missing.txt" in runs["missing.txt"]["reason"]
    assert "failed path=missing.txt" in done.stderr
    # With the cause removed the same command goes on.
    (tmp_path / "missing.txt").write_text("Another text, which is here now.\n" * 200)
    refract("sweep", recipe, "--over", "data.path=missing.txt,text.txt")


def test_a_run_that_is_killed_hurts_no_other(start, recipe, tmp_path):
    process = start(recipe, "--over", "run.seed=1,2", "--jobs", 2, "train.steps=400", "eval.every=0", "checkpoint.every=0")
    victim = tmp_path / "run-sweep" / "seed=1" / "metrics.jsonl"
    wait_for(lambda: victim.exists() and victim.stat().st_size > 0, process)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    by_seed = {child: pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in children}
    [child] = [int(child) for child, line in by_seed.items() if b"run.seed=1" in line]
    os.kill(child, signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 1
    runs = {run["name"]: run for run in json.loads((tmp_path / "run-sweep" / "sweep.json").read_text())["runs"]}
    assert runs["seed=2"]["state"] == "finished"
    assert runs["seed=1"]["state"] == "failed" and "killed by signal 9" in runs["seed=1"]["reason"]


def test_sweeps_transforms_and_shares_the_cores(refract_json, recipe, tmp_path):
    recipe.write_text(recipe.read_text() + "[[transform]]\nkind = \"lora\"\nmatch = '.*up_proj'\nr = 2\n")
    result = refract_json("sweep", recipe, "--over", "transform.0.r=1,2", "train.steps=10", "--jobs", 2)
    assert {run["run"] for run in result["runs"]} == {"r=1", "r=2"}
    assert result["complete"]
    for rank in (1, 2):
        text = (tmp_path / "run-sweep" / f"r={rank}" / "config.toml").read_text()
        assert f"\nr = {rank}\n" in text
        assert f"threads = {max(1, len(os.sched_getaffinity(0)) // 2)}" in text


@pytest.mark.parametrize("arguments, message", [
    (["--over", "optimizer.lrr=1,2"], "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
    (["--over", "optimizer.lr=1e-3,fast"], "optimizer.lr takes a number, not \"fast\""),
    (["--over", "model.hidden_size=32,33"], "run 'hidden_size=33': model.hidden_size = 33 can't be divided"),
    (["--over", "optimizer.lr"], "write key=value,value"),
    (["--over", "optimizer.lr=1e-3,,1e-2"], "a value is empty"),
    (["--over", "optimizer.lr=1e-3,1e-3"], "is given twice"),
    (["--over", "run.dir=a,b"], "the sweep names its runs' folders"),
    (["--over", "run.seed=1,2", "optimizer.lrr=3"], "'optimizer.lrr'"),
    (["--over", "run.seed=1,2", "--jobs", "0"], "--jobs 0 must be at least 1"),
])
def test_refuses_before_anything_starts(refract, recipe, tmp_path, arguments, message):
    done = refract("sweep", recipe, *arguments, code=2)
    assert message in done.stderr
    assert not (tmp_path / "run-sweep").exists()


def test_refuses_a_folder_of_another_sweep(refract, recipe):
    refract("sweep", recipe, "--over", "run.seed=1", "train.steps=5")
    other = refract("sweep", recipe, "--over", "optimizer.lr=1e-3", "train.steps=5", code=2)
    assert "already holds a sweep over run.seed" in other.stderr
    changed = refract("sweep", recipe, "--over", "run.seed=1", "train.steps=6", code=2)
    assert "with other settings (/train/steps)" in changed.stderr
    refract("sweep", recipe, "--over", "run.seed=2", "train.steps=5")  # more values are welcome


def test_shows_how_far_it_is_and_what_each_run_reached(refract, recipe):
    lines = refract("sweep", recipe, "--over", "optimizer.lr=1e-3,1e-2,2e-2", "train.steps=40", "--out", "s").stderr.splitlines()
    started = [line for line in lines if "started" in line]
    assert [re.search(r"started (\d of 3): (\S+)", line).groups() for line in started] == [
        ("1 of 3", "lr=1e-3"), ("2 of 3", "lr=1e-2"), ("3 of 3", "lr=2e-2")]
    ended = [re.search(r"finished (\d) of 3: (\S+), validation loss ([\d.]+) \((\d+:\d\d)\)(; (\d+:\d\d) left)?$", line)
             for line in lines if "finished" in line]
    table = {row["run"]: row for row in json.loads((recipe.parent / "s" / "table.json").read_text())}
    for match in ended:
        assert float(match.group(3)) == pytest.approx(table[match.group(2)]["validation_loss"], abs=6e-5)
    assert [bool(match.group(5)) for match in ended] == [True, True, False]  # nothing is left after the last


def test_a_time_for_each_run_is_no_sweep(refract, recipe):
    done = refract("sweep", recipe, "--over", "optimizer.lr=1e-3,1e-2", "train.steps=0", "train.minutes=1", code=2)
    assert "with train.minutes each run would have a number of steps of its own" in done.stderr
