"""scripts/install puts a program into an empty folder that runs from there by its link, with libraries of its own."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Where scripts/install, and through it scripts/dist, installed the program of build/release."""
    if not (ROOT / "build/release/bin/refract").exists():
        pytest.skip("build/release/bin/refract is not built; run make test")
    if shutil.which("patchelf") is None:
        pytest.skip("patchelf is not installed; scripts/dist would install it")
    with open(ROOT / "build/.lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.skip("a build is running in this checkout, and scripts/install would wait for it")
    folder = tmp_path_factory.mktemp("prefix") / "with space"
    # A test installs no packages. Both scripts bootstrap and build first; after make test that finds nothing to do.
    environment = dict(os.environ, REFRACT_SKIP_APT="1")
    environment.pop("REFRACT_TORCH_LIB", None)
    done = subprocess.run([ROOT / "scripts/install", folder], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def environment():
    """Without what could lend the program libraries that its own rpath does not find."""
    return {key: value for key, value in os.environ.items() if not key.startswith("LD_")}


def test_the_program_runs_from_there(prefix, environment, tmp_path):
    for arguments, expected in ((["--help"], "Usage: refract"), (["kinds"], "low_rank")):
        done = subprocess.run([prefix / "bin/refract", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_it_uses_nothing_of_the_build(prefix, environment):
    home = prefix / "lib/refract"
    for file in [home / "bin/refract", *(home / "lib").iterdir()]:
        needed = subprocess.run(["ldd", file], env=environment, capture_output=True, text=True, check=True).stdout
        assert "not found" not in needed, f"{file.name}:\n{needed}"
        assert f"{ROOT}/build" not in needed, f"{file.name}:\n{needed}"


def test_a_program_of_ones_own_has_refract_as_its_library(prefix, environment, tmp_path):
    """docs/examples/library, outside of the checkout: the same loss as `refract eval`."""
    shutil.copytree(ROOT / "docs/examples/library", tmp_path / "source")
    for command in (["-B", "made", "-S", "source", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"], ["--build", "made"]):
        done = subprocess.run(["cmake", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    run = [prefix / "bin/refract", "train", ROOT / "recipes/demo.toml", "run.dir=run", "data.path=stories:40KB", "data.tokenizer=bytes",
           "model.hidden_size=32", "model.intermediate_size=64", "train.minutes=0", "train.steps=2", "eval.batches=1", "eval.samples=0",
           "checkpoint.permanent=[]", "train.device=cpu"]
    environment = dict(environment, XDG_CACHE_HOME=str(tmp_path / "cache"))
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = "One day, a tiny cricket whistled."
    (tmp_path / "text.txt").write_text(text)
    evaluated = subprocess.run([prefix / "bin/refract", "eval", "run", "--data", "text.txt", "--json", "train.device=cpu"], cwd=tmp_path,
                               env=environment, capture_output=True, text=True, check=True)
    own = subprocess.run([tmp_path / "made/loss", "run", text, "train.device=cpu"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert own.returncode == 0, own.stderr
    figures = json.loads(evaluated.stdout)
    assert figures["tokens"] == len(text) - 1
    # fp32, and the same kernels; printed with six digits.
    assert abs(float(own.stdout.split()[0]) - figures["loss"]) <= 1e-6
    missing = subprocess.run([tmp_path / "made/loss", "nowhere", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert missing.returncode == 1 and missing.stderr.startswith("loss: 'nowhere' is neither")


def test_what_the_program_reads_is_there(prefix):
    home = prefix / "lib/refract"
    assert (home / "share/refract/plotly.min.js").stat().st_size > 1e6
    assert (home / "recipes/demo.toml").exists() and (home / "python/refract").is_dir() and (home / "LICENSE").exists()
    assert not list(home.rglob("__pycache__"))
