"""Finds the built program; the tests skip, saying so, where it is missing."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("REFRACT_BIN_DIR", ROOT / "build" / "release" / "bin"))


@pytest.fixture(scope="session")
def program():
    path = BIN / "refract"
    if not path.exists():
        pytest.skip(f"{path} is not built; run make test")
    return path


@pytest.fixture
def refract(program, tmp_path):
    """Runs the program in an empty folder: refract("train", ..., code=0) -> CompletedProcess."""

    def call(*arguments, code=0, **options):
        environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
        done = subprocess.run([str(program), *map(str, arguments)], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=300, **options)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def refract_json(refract):
    def call(*arguments):
        return json.loads(refract(*arguments, "--json").stdout)

    return call


RECIPE = """
[run]
dir = "run"
seed = 3
[data]
path = "stories:40KB"
tokenizer = "chars"
context = 16
[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
[train]
steps = 60
batch = 4
device = "cpu"
[eval]
every = 30
batches = 2
sample_tokens = 8
[checkpoint]
every = 5
keep = 0
[log]
every = 5
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path
