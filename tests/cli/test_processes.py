"""What happens around a process: closed or full outputs, signals, limits, results that are complete or not there."""
import fcntl
import json
import os
import resource
import signal
import subprocess
import time

import pytest


@pytest.fixture
def environment(tmp_path):
    return dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))


@pytest.fixture
def shell(program, tmp_path, environment):
    """Runs a line of bash in which $R is the program."""

    def call(line):
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=dict(environment, R=str(program)), capture_output=True,
                              text=True, timeout=300)

    return call


COMMANDS = ["kinds", "kinds lora --json", "inspect recipe.toml", "inspect recipe.toml --toml", "train --help-keys", "--help",
            "--version", "data stories --size 300KB", "tokenize stories:5KB --tokenizer bytes --out s --json"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_result_that_can_not_be_written_is_an_error(shell, recipe, command):
    full = shell(f"$R {command} >/dev/full")
    assert full.returncode == 1 and "No space left on device" in full.stderr.splitlines()[-1]
    assert len([line for line in full.stderr.splitlines() if line.startswith("refract: ")]) == 1
    closed = shell(f"rm -rf s; $R {command} >&-")
    assert closed.returncode == 1 and "standard output" in closed.stderr


def test_a_result_that_is_lost_is_an_error_but_the_run_is_kept(shell, recipe, tmp_path):
    done = shell("$R train recipe.toml train.steps=2 --json >/dev/full")
    assert done.returncode == 1 and (tmp_path / "run/checkpoints/step-00000002").is_dir()
    assert shell("$R eval run >/dev/full").returncode == 1
    assert shell("$R generate run --max-tokens 3 >/dev/full").returncode == 1


def test_a_reader_that_has_seen_enough_is_no_error_message(shell):
    done = shell("$R data stories --size 5MB | head -c 100; echo ${PIPESTATUS[0]} >&2")
    assert len(done.stdout) == 100 and done.stderr.split() == ["141"]


@pytest.mark.parametrize("closed", ["<&-", "2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_not_taken_by_files(shell, recipe, tmp_path, closed):
    shell("$R train recipe.toml train.steps=6 run.dir=good")
    done = shell(f"$R train recipe.toml train.steps=6 data.cache=own {closed}")
    assert done.returncode == 0
    for path in (tmp_path / "good").rglob("*"):
        other = tmp_path / "run" / path.relative_to(tmp_path / "good")
        if path.is_file() and path.suffix in (".safetensors", ".json", ".jsonl") and path.name != "corpus.json":
            same = path.read_bytes() == other.read_bytes()
            assert same or [json.loads(x).get("loss") for x in path.read_text().splitlines()] \
                == [json.loads(x).get("loss") for x in other.read_text().splitlines()]
    for path in (tmp_path / "own").rglob("*.lock"):
        assert path.stat().st_size == 0


def start(program, recipe, environment, tmp_path, **options):
    process = subprocess.Popen([program, "train", recipe, "train.steps=1000000", "checkpoint.every=0", "log.every=1",
                                "eval.every=0", "eval.samples=0"], cwd=tmp_path, env=environment, **options)
    metrics = tmp_path / "run/metrics.jsonl"
    while not metrics.exists() or not metrics.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGXCPU, signal.SIGTERM])
def test_signals_that_ask_to_stop_save_the_run(program, recipe, environment, tmp_path, number):
    process = start(program, recipe, environment, tmp_path, stderr=subprocess.PIPE, text=True)
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "stopped by a signal" in errors
    assert len(list((tmp_path / "run/checkpoints").glob("step-????????"))) == 1


def test_a_hangup_that_repeats_does_not_cut_the_saving_short(program, recipe, environment, tmp_path):
    process = start(program, recipe, environment, tmp_path, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.001)
    assert process.returncode == 1 and list((tmp_path / "run/checkpoints").glob("step-????????"))


def test_nohup_is_respected(program, recipe, environment, tmp_path):
    process = start(program, recipe, environment, tmp_path, stderr=subprocess.DEVNULL,
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 1


def test_a_reader_of_the_messages_that_goes_away_saves_the_run(shell, recipe, tmp_path):
    done = shell("(timeout 60 $R train recipe.toml train.steps=1000000 checkpoint.every=5 log.every=1 2>&1; echo rc $? >&2) | head -3")
    assert "rc 1" in done.stderr
    assert list((tmp_path / "run/checkpoints").glob("step-????????"))


def limited(program, environment, tmp_path, kilobytes, *arguments):
    limit = kilobytes * 1024
    return subprocess.run([program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))


@pytest.mark.parametrize("arguments, left", [
    (["data", "stories", "--size", "100KB", "--out", "out.txt"], "out.txt*"),
    (["tokenize", "stories:100KB", "--tokenizer", "bytes", "--out", "out"], "out/*.bin*"),
    (["train", "recipe.toml"], "run/checkpoints/*"),
    (["tokenizer", "train", "stories:50KB", "--vocab-size", "2000", "--out", "out.json"], "out.json*"),
])
def test_a_limit_on_the_size_of_files_is_one_line(program, recipe, environment, tmp_path, arguments, left):
    done = limited(program, environment, tmp_path, 16, *arguments)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("refract: ")]
    assert "File too large" in line
    assert not [path for path in tmp_path.glob(left) if path.is_file() or path.suffix == ".unfinished"]


def test_stories_stand_under_their_name_when_they_are_complete(program, environment, tmp_path):
    process = subprocess.Popen([program, "data", "stories", "--size", "400MB", "--out", "s.jsonl"], cwd=tmp_path, env=environment,
                               stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("s.jsonl.*.partial")):
        assert process.poll() is None
        time.sleep(0.005)
    subprocess.run([program, "data", "stories", "--size", "20KB", "--out", "other.jsonl"], cwd=tmp_path, env=environment, check=True)
    assert len(list(tmp_path.glob("s.jsonl.*.partial"))) == 1  # another's, and it lives
    process.kill()
    process.wait()
    assert not (tmp_path / "s.jsonl").exists()
    subprocess.run([program, "data", "stories", "--size", "20KB", "--out", "s.jsonl"], cwd=tmp_path, env=environment, check=True)
    assert sorted(path.name for path in tmp_path.glob("s.jsonl*")) == ["s.jsonl"]


def test_shards_that_are_not_complete_are_not_taken_for_a_corpus(program, refract, refract_json, recipe, environment, tmp_path):
    process = subprocess.Popen([program, "tokenize", "stories:200MB", "--tokenizer", "bytes", "--out", "out"], cwd=tmp_path, env=environment,
                               stderr=subprocess.DEVNULL)
    while not (tmp_path / "out/tokens_train_000000.bin.partial").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.terminate()
    process.wait()
    (tmp_path / "out/tokens_train_000000.bin").write_bytes(b"12345678")  # as of a corpus of several shards
    error = refract("train", recipe, "data.path=out", "data.tokenizer=bytes", code=2).stderr
    assert "not complete" in error and len(error.splitlines()) == 1
    assert refract_json("tokenize", "stories:20KB", "--tokenizer", "bytes", "--out", "out")["train_tokens"] > 10_000
    assert sorted(path.name for path in (tmp_path / "out").glob("*bin*")) == ["tokens_train_000000.bin", "tokens_val_000000.bin"]
    assert "already holds" in refract("tokenize", "stories:20KB", "--tokenizer", "bytes", "--out", "out", code=2).stderr


def test_a_run_folder_that_can_not_be_made_is_found_before_the_work(shell, recipe, tmp_path):
    (tmp_path / "file").write_text("x")
    done = shell("$R train recipe.toml run.dir=file/run")
    assert done.returncode == 1 and "is not a folder" in done.stderr and not (tmp_path / "cache").exists()
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("command, folder", [
    ("interpolate run run --data stories:5KB --alphas 2 --batches 1 --out x", "x"),
    ("sensitivity run --kind optical --tokens 64 --out x", "x"),
    ("connectivity recipe.toml run.dir=x", "x"),
    ("calibrate run --kind optical --tokens 64 --out x", ".x.refract-unfinished"),
    ("align run run --out x", ".x.refract-unfinished"),
    ("export run --out x", ".x.refract-unfinished"),
    ("tokenize stories:5KB --tokenizer bytes --out x", "x")])
def test_one_process_writes_a_folder(refract, recipe, tmp_path, command, folder):
    refract("train", recipe, "train.steps=1", "eval.every=0")
    (tmp_path / folder).mkdir()
    held = os.open(tmp_path / folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    done = refract(*command.split(), code=1)
    assert "another process" in done.stderr.splitlines()[-1]
    assert not [path for path in (tmp_path / folder).iterdir()]
    os.close(held)
    refract(*command.split(), *(["train.steps=2", "connectivity.spawn=[0]", "connectivity.alphas=2"] if "connectivity" in command else []))
    assert [path for path in (tmp_path / "x").iterdir()]
