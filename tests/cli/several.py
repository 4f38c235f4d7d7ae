"""Starts and watches processes of one run, for the tests of several processes."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time

FROM_STARTERS = re.compile(r"(RANK|WORLD_SIZE|LOCAL_RANK|MASTER_ADDR|MASTER_PORT|(SLURM|OMPI|PMI|TORCHELASTIC)_.*)$")


def clean_environment(tmp_path, **more):
    """This process's, without what torchrun or srun may have put there."""
    kept = {name: value for name, value in os.environ.items() if not FROM_STARTERS.match(name)}
    return dict(kept, XDG_CACHE_HOME=str(tmp_path / "cache"), OMP_NUM_THREADS="1", **more)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def rank_environment(tmp_path, rank, size, port, **more):
    return clean_environment(tmp_path, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size),
                             MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), **more)


class Ranks:
    """A run in several processes that no launcher watches, each with a file of its own for what it says."""

    def __init__(self, program, tmp_path, size, *arguments, arguments_of=None, **more):
        self.port = more.pop("port", None) or free_port()
        self.tmp_path = tmp_path
        self.processes = []
        for rank in range(size):
            own = (arguments_of or {}).get(rank, arguments)
            self.processes.append(subprocess.Popen(
                [str(program), *map(str, own)], cwd=tmp_path, env=rank_environment(tmp_path, rank, size, self.port, **more),
                stdout=open(self.path(rank, "out"), "w"), stderr=open(self.path(rank, "err"), "w"), stdin=subprocess.DEVNULL))

    def path(self, rank, kind):
        return self.tmp_path / f"{kind}-{rank}.txt"

    def err(self, rank):
        return self.path(rank, "err").read_text()

    def wait(self, timeout):
        """The exit codes; fails where one still runs after so many seconds."""
        end = time.monotonic() + timeout
        codes = []
        for process in self.processes:
            try:
                codes.append(process.wait(max(0.1, end - time.monotonic())))
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"a process still runs after {timeout} s:\n" + self.all_err()) from None
        return codes

    def all_err(self):
        return "\n".join(f"--- {rank}\n{self.err(rank)}" for rank in range(len(self.processes)))

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


def wait_for_checkpoint(run: pathlib.Path, step, timeout=60):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done = [int(path.name[5:]) for path in run.glob("checkpoints/step-*") if path.name[5:].isdigit()]
        if done and max(done) >= step:
            return max(done)
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of step {step} in {run} within {timeout} s")


def newest_files(run: pathlib.Path):
    """The files of the newest checkpoint, name to bytes."""
    newest = max(path for path in run.glob("checkpoints/step-*") if path.name[5:].isdigit())
    return newest.name, {path.name: path.read_bytes() for path in newest.iterdir()}


def children_of(process):
    """The ids of a launcher's processes, by rank."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout.split()
    return sorted(map(int, found))


class Kills:
    """A run by `refract launch` that loses a process to SIGKILL at a random instant, again and again, and goes on."""

    def __init__(self, program, tmp_path, size, arguments, draws):
        self.program, self.tmp_path, self.size, self.arguments, self.draws = program, tmp_path, size, arguments, draws

    def start(self, *more):
        return subprocess.Popen([str(self.program), "launch", "-n", str(self.size), "train", *map(str, [*self.arguments, *more])], cwd=self.tmp_path,
                                env=clean_environment(self.tmp_path), text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def kill_one(self, longest, *more):
        """The seconds until all had ended and what was said; nothing where the run was done before."""
        process = self.start(*more)
        children = []
        while len(children) < self.size and process.poll() is None:
            children = children_of(process)
        time.sleep(self.draws.uniform(0, longest))
        victim = self.draws.randrange(self.size)
        if process.poll() is not None:
            return None
        os.kill(children[victim], signal.SIGKILL)
        start = time.monotonic()
        _, said = process.communicate(timeout=60)
        took = time.monotonic() - start
        assert not any(os.path.exists(f"/proc/{child}") for child in children), "a process outlived its launcher"
        if process.returncode != 0:
            causes = [line for line in said.splitlines() if f"process {victim} (" in line]
            assert process.returncode == 1 and causes, f"process {victim} was killed:\n{said}"
        return took, said

    def finish(self, *more):
        process = self.start(*more)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
