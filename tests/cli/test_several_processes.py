"""One run in several processes: how they are started, what they leave, and that all end when one does."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from several import Kills, Ranks, children_of, clean_environment, free_port, newest_files, rank_environment, wait_for_checkpoint

GROUPS = ["train.batch=8", "train.reduction_groups=4"]
OPTICAL = """
[[transform]]
match = 'model\\.layers\\.\\d+\\.(self_attn|mlp)(\\.\\w+_proj)?'
kind = "optical"
"""


@pytest.fixture(scope="module", autouse=True)
def gloo(program):
    if not (program.parent.parent / "lib" / "librefract_gloo.so").exists():
        pytest.skip("librefract_gloo.so is not built; install libgloo-dev")


@pytest.fixture
def launch(program, tmp_path):
    def call(count, *arguments, code=0):
        done = subprocess.run([str(program), "launch", "-n", str(count), *map(str, arguments)], cwd=tmp_path, text=True,
                              env=clean_environment(tmp_path), capture_output=True, timeout=300)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def ranks(program, tmp_path):
    started = []

    def start(size, *arguments, **more):
        started.append(Ranks(program, tmp_path, size, *arguments, **more))
        return started[-1]

    yield start
    for one in started:
        one.kill()


LONG = ["train.steps=1000000", "checkpoint.every=20", "checkpoint.keep=2", "eval.every=0", *GROUPS]


def test_launch_trains_and_one_process_speaks(launch, recipe, tmp_path):
    done = launch(2, "train", recipe, "--json", *GROUPS)
    outcome = json.loads(done.stdout)
    assert outcome["finished"] and outcome["step"] == 60
    assert done.stderr.count("step 60/60") == 1
    assert "processes: 2" in done.stderr
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in metrics if "loss" in line]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    assert metrics[-1]["validation_loss"] == outcome["validation"]["loss"]
    assert (tmp_path / "run/log-process-1.txt").read_text().count("data:") == 1
    assert (tmp_path / "run/report.html").exists()


def test_checkpoints_are_the_same_for_any_number_of_processes(launch, refract, recipe, tmp_path):
    """As tests/train/together/several_processes_test.cpp, whose processes are threads, through the program."""
    recipe.write_text(recipe.read_text() + OPTICAL)
    settings = [*GROUPS, "model.dropout=0.1", "run.dir=run"]
    refract("train", recipe, *settings)
    name, expected = newest_files(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "one")
    for first, second, more in ((2, 1, []), (1, 4, ["train.shard=optimizer", "train.recompute=layer", "train.save=async"])):
        # Half way in the first number of processes, then in the second.
        launch(first, "train", recipe, *settings, *more, "checkpoint.permanent=[30]")
        for path in (tmp_path / "run/checkpoints").iterdir():
            if int(path.name[5:]) > 30:
                subprocess.run(["rm", "-r", path], check=True)
        launch(second, "train", recipe, *settings, *more, "checkpoint.permanent=[30]", "--resume")
        got, files = newest_files(tmp_path / "run")
        assert got == name and set(files) == set(expected)
        different = [file for file in expected if file != "config.toml" and files[file] != expected[file]]
        assert not different, f"{first} then {second} processes: {different} differ"
        subprocess.run(["rm", "-r", tmp_path / "run"], check=True)


def test_torchrun_starts_it(program, recipe, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--nproc-per-node", "2",
                "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    done = subprocess.run([*torchrun, str(program), "train", str(recipe), *GROUPS], cwd=tmp_path, text=True,
                          env=clean_environment(tmp_path), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 60/60") == 1
    assert newest_files(tmp_path / "run")[0] == "step-00000060"


def test_slurm_and_open_mpi_variables_start_it(program, recipe, tmp_path):
    names = {"srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
             "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")}
    for starter, (rank_name, size_name, local_name) in names.items():
        processes = []
        port = str(free_port())
        for rank in range(2):
            own = {rank_name: str(rank), size_name: "2", local_name: str(rank), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
            processes.append(subprocess.Popen([str(program), "train", str(recipe), f"run.dir={starter}", *GROUPS], cwd=tmp_path,
                                              env=dict(clean_environment(tmp_path), **own), stderr=subprocess.PIPE, text=True))
        for process in processes:
            _, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
        assert newest_files(tmp_path / starter)[0] == "step-00000060"


def test_sigterm_saves_once_and_resumes(program, recipe, tmp_path, launch):
    process = subprocess.Popen([str(program), "launch", "-n", "2", "train", str(recipe), *LONG], cwd=tmp_path, text=True,
                               env=clean_environment(tmp_path), stderr=subprocess.PIPE)
    wait_for_checkpoint(tmp_path / "run", 20)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    stopped = int(re.search(r"stopped by a signal at step (\d+)", err)[1])
    assert newest_files(tmp_path / "run")[0] == f"step-{stopped:08}"
    more = [f"train.steps={stopped + 5}", *[setting for setting in LONG if "steps" not in setting]]
    launch(2, "train", recipe, *more, "--resume")
    assert newest_files(tmp_path / "run")[0] == f"step-{stopped + 5:08}"


@pytest.mark.parametrize("victim", [0, 2])
def test_all_end_when_one_is_killed(ranks, recipe, tmp_path, victim):
    run = ranks(3, "train", recipe, *LONG[:-2], "train.batch=6")
    wait_for_checkpoint(tmp_path / "run", 20)
    killed = run.processes[victim]
    killed.kill()
    start = time.monotonic()
    codes = run.wait(10)
    assert time.monotonic() - start < 10
    assert codes[victim] == -signal.SIGKILL
    assert all(code == 1 for rank, code in enumerate(codes) if rank != victim)
    said = [line for rank in range(3) for line in run.err(rank).splitlines() if line.startswith("refract:")]
    assert len(said) == 1, run.all_err()
    assert f"process {victim} (" in said[0] and f"pid {killed.pid}" in said[0], said
    # What was saved is whole: the run goes on.
    step = wait_for_checkpoint(tmp_path / "run", 20)
    again = ranks(3, "train", recipe, *LONG[1:-2], "train.batch=6", f"train.steps={step + 2}", "--resume")
    assert again.wait(60) == [0, 0, 0], again.all_err()


def test_launch_names_the_killed_process(program, recipe, tmp_path):
    process = subprocess.Popen([str(program), "launch", "-n", "2", "train", str(recipe), *LONG], cwd=tmp_path, text=True,
                               env=clean_environment(tmp_path), stderr=subprocess.PIPE)
    wait_for_checkpoint(tmp_path / "run", 20)
    children = children_of(process)
    assert len(children) == 2
    start = time.monotonic()
    os.kill(children[1], signal.SIGKILL)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - start < 10
    assert process.returncode == 1
    assert "was killed by signal 9" in err
    for child in children:
        assert not os.path.exists(f"/proc/{child}")


def test_a_run_that_loses_processes_ends_in_the_same_bits(program, refract, recipe, tmp_path):
    """tests/reliability/kill_processes.py does this 50 times."""
    settings = [*GROUPS, "train.steps=300", "checkpoint.every=10", "checkpoint.keep=2", "eval.every=0"]
    refract("train", recipe, *settings, "run.dir=undisturbed")
    kills = Kills(program, tmp_path, 2, ["recipe.toml", *settings], random.Random(5))
    kills.kill_one(1)
    for _ in range(2):
        lost = kills.kill_one(3, "--resume")
        assert lost is None or lost[0] < 10, lost
    kills.finish("--resume")
    name, expected = newest_files(tmp_path / "undisturbed")
    got, files = newest_files(tmp_path / "run")
    assert got == name == "step-00000300"
    assert [file for file in expected if file != "config.toml" and files[file] != expected[file]] == []


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_hangs_is_noticed(ranks, recipe, tmp_path, victim):
    run = ranks(2, "train", recipe, *LONG, "train.timeout=2")
    wait_for_checkpoint(tmp_path / "run", 20)
    run.processes[victim].send_signal(signal.SIGSTOP)
    other = run.processes[1 - victim]
    assert other.wait(12) == 1, run.all_err()
    assert f"process {victim} (" in run.err(1 - victim)
    assert "gave no sign of life for 2 s (train.timeout)" in run.err(1 - victim)
    run.processes[victim].send_signal(signal.SIGCONT)
    assert run.wait(10)[victim] == 1


def test_a_failure_is_told_once(ranks, recipe, tmp_path):
    """Process 1 alone can't write its log; the others wait for it somewhere."""
    (tmp_path / "run/log-process-1.txt").mkdir(parents=True)
    run = ranks(3, "train", recipe, "train.batch=6")
    assert run.wait(20) == [1, 1, 1]
    said = [line for rank in range(3) for line in run.err(rank).splitlines() if line.startswith("refract:")]
    assert len(said) == 1 and said[0].startswith("refract: process 1: can't write the log"), run.all_err()


def test_different_recipes_are_refused(ranks, recipe):
    run = ranks(2, "train", recipe, *GROUPS, arguments_of={1: ["train", recipe, *GROUPS, "optimizer.lr=0.5"]})
    assert run.wait(60) == [2, 2]
    assert "the recipe differs between the processes: process 0 has 'lr = 0.0006', process 1 has 'lr = 0.5'" in run.err(1)
    assert run.err(0) == ""


def test_an_error_of_all_is_told_once(ranks, recipe):
    run = ranks(2, "train", recipe, "train.batch=5", "train.micro_batch=2")
    assert run.wait(60) == [2, 2]
    said = run.err(0) + run.err(1)
    assert said.count("not a multiple") == 1 and said.startswith("refract: train.batch")


def one(program, tmp_path, *arguments, timeout=60, **variables):
    done = subprocess.run([str(program), *map(str, arguments)], cwd=tmp_path, text=True, capture_output=True, timeout=timeout,
                          env=clean_environment(tmp_path, **variables))
    return done.returncode, done.stderr


@pytest.mark.parametrize("variables, part", [
    ({"RANK": "0"}, "WORLD_SIZE is not set"),
    ({"WORLD_SIZE": "2"}, "RANK is not set"),
    ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK = 2, but WORLD_SIZE = 2"),
    ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_ADDR is not set"),
    ({"RANK": "zero", "WORLD_SIZE": "2"}, "RANK = 'zero'"),
])
def test_a_contradictory_environment_is_one_line(program, recipe, tmp_path, variables, part):
    code, err = one(program, tmp_path, "train", recipe, **variables)
    assert code == 2 and part in err and err.count("\n") == 1, err


def test_a_taken_port_is_one_line(program, recipe, tmp_path):
    import socket
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        variables = rank_environment(tmp_path, 0, 2, taken.getsockname()[1], REFRACT_JOIN_TIMEOUT="5")
        done = subprocess.run([str(program), "train", str(recipe)], cwd=tmp_path, text=True, capture_output=True, timeout=60, env=variables)
    assert done.returncode == 1
    assert f"port {variables['MASTER_PORT']} of this machine is taken" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_an_unreachable_master_is_one_line(program, recipe, tmp_path):
    variables = rank_environment(tmp_path, 1, 2, free_port(), REFRACT_JOIN_TIMEOUT="3")
    start = time.monotonic()
    done = subprocess.run([str(program), "train", str(recipe)], cwd=tmp_path, text=True, capture_output=True, timeout=60, env=variables)
    assert time.monotonic() - start < 15
    assert done.returncode == 1
    assert "process 1 can't reach process 0 at 127.0.0.1" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_missing_processes_are_named(program, recipe, tmp_path):
    variables = rank_environment(tmp_path, 0, 3, free_port(), REFRACT_JOIN_TIMEOUT="2")
    done = subprocess.run([str(program), "train", str(recipe)], cwd=tmp_path, text=True, capture_output=True, timeout=60, env=variables)
    assert done.returncode == 1
    assert "only 1 of 3 processes came together within 2 s" in done.stderr and "missing: 1, 2" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


def test_launch_refuses_what_it_cannot_start(program, tmp_path):
    assert one(program, tmp_path, "launch", "-n", "2", "eval", "runs/demo")[0] == 2
    assert one(program, tmp_path, "launch", "-n", "2")[0] == 2
    code, err = one(program, tmp_path, "launch", "-n", "-1", "train", "x.toml")
    assert code == 2 and "from 1 to 1024" in err
