"""Runs the program with a fault in one of its file calls, or kills it before one; fault_shim.h says how."""
import concurrent.futures
import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("REFRACT_BIN_DIR", ROOT / "build" / "release" / "bin"))
TORTURE = bool(os.environ.get("REFRACT_TORTURE"))  # every call instead of a selection; scripts/torture sets it

RECIPE = """
[run]
dir = "run"
seed = 3
[data]
path = "corpus.txt"
tokenizer = "bytes"
context = 8
[model]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
[train]
steps = 4
batch = 2
device = "cpu"
[eval]
every = 2
batches = 1
samples = 1
sample_tokens = 4
[checkpoint]
every = 1
keep = 2
[log]
every = 1
"""


def spread(count, quick):
    """The numbers of the calls that are tried: all of 1 to count, or `quick` of them over the whole range."""
    if TORTURE or count <= quick:
        return list(range(1, count + 1))
    return sorted({1 + round(i * (count - 1) / max(quick - 1, 1)) for i in range(quick)})


def side_by_side(function, items):
    """function(item) for all of them, in their order, as many at once as there are cores; the first failure is raised."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


class Workplace:
    """A folder with a recipe and a corpus, in which the program runs; `like`: with all that another one holds."""

    def __init__(self, folder, like=None):
        self.folder = folder
        if like:
            shutil.copytree(like.folder, folder, symlinks=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.toml").write_text(RECIPE)
        (folder / "corpus.txt").write_text("one day a cat sat on a mat and saw a rat. " * 40)

    def run(self, *arguments, fault=None, log=None):
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "OMP_NUM_THREADS": "1",
                       "LD_PRELOAD": str(BUILD.parent / "lib" / "libfault_shim.so"),
                       "REFRACT_FAULT_UNDER": str(self.folder)}
        if fault:
            environment["REFRACT_FAULT"] = fault
        if log:
            environment["REFRACT_FAULT_LOG"] = str(log)
        return subprocess.run([str(BUILD / "refract"), *map(str, arguments)], cwd=self.folder, env=environment,
                              capture_output=True, text=True, timeout=600)

    def count(self, *arguments, log):
        """Runs without a fault; how often each call was made."""
        done = self.run(*arguments, log=log)
        assert done.returncode == 0, done.stderr
        return {name: int(number) for name, number in (line.split() for line in log.read_text().splitlines())}


def one_sentence(done):
    """A failure is a sentence of the program's own, the last line; never a crash."""
    assert done.returncode in (1, 2), f"exit code {done.returncode}\n{done.stderr}"
    line = done.stderr.splitlines()[-1]
    assert line.startswith("refract: "), done.stderr
    assert "json.exception" not in line and "filesystem error" not in line and "no better words" not in line, line
    return line


def final_state(run, step=4):
    """The bytes that training gives."""
    folder = run / "checkpoints" / f"step-{step:08}"
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "train_state.safetensors")}
