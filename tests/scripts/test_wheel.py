"""scripts/wheel packs what pip unpacks into an environment that has torch, where the program and the ops then run."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TORCH = Path(importlib.util.find_spec("torch").origin).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if not (ROOT / "build/release/bin/refract").exists():
        pytest.skip("build/release/bin/refract is not built; run make test")
    if importlib.util.find_spec("auditwheel") is None:
        pytest.skip("auditwheel is not installed; scripts/wheel would install it")
    folder = tmp_path_factory.mktemp("wheel")
    environment = dict(os.environ, REFRACT_SKIP_APT="1")
    done = subprocess.run([ROOT / "scripts/wheel", folder], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment of its own that has the wheel and, by a path file, torch."""
    venv = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python3.*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for file in (packages / "refract/_program/bin").iterdir():
        file.chmod(0o755)  # as pip leaves programs
    for name in TORCH.iterdir():  # beside it, as pip would have put it
        if name.name != "refract" and not (packages / name.name).exists():
            (packages / name.name).symlink_to(name)
    return venv / "bin/python"


def run(python, *arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LD_", "PYTHON", "REFRACT_"))}
    done = subprocess.run([python, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_name_tells_the_glibc_that_it_needs(wheel):
    assert wheel.name.startswith("refract-") and "-py3-none-manylinux_2_" in wheel.name and wheel.name.endswith("_x86_64.whl")


def test_it_holds_everything_under_names_of_its_own(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("dist-info/METADATA"))).decode()
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    assert "Requires-Dist: torch==2.11.0" in metadata
    assert {"refract/__init__.py", "refract/_program/lib/librefract_ops.so", "refract/_program/recipes/demo.toml",
            "refract/_program/share/refract/plotly.min.js"} <= set(names)
    assert modes["refract/_program/bin/refract"] & 0o111
    brought = [name for name in names if name.startswith("refract.libs/")]
    assert any("libfmt-" in name for name in brought), "auditwheel renames what it brings in"
    assert not [name for name in names if "libtorch" in name or "libcud" in name or "/test_" in name]


def test_the_program_trains_there(python, tmp_path):
    out = run(python, "-m", "refract.program", "train", "recipes/demo.toml", "run.dir=run", "train.minutes=0", "train.steps=3",
              "data.path=stories:20KB", "eval.every=0", "eval.samples=0", "--json", cwd=tmp_path)
    assert json.loads(out)["finished"]
    assert (tmp_path / "run/report.html").stat().st_size > 1e6


def test_the_ops_run_there(python, tmp_path):
    code = ("import torch, refract; x = torch.randn(3, 8); y = refract.ops.norm(x, torch.ones(8), None, 1e-5, True); "
            "print(refract.library_path(), torch.allclose(y, torch.nn.functional.rms_norm(x, (8,), eps=1e-5), atol=1e-6))")
    path, equal = run(python, "-c", code, cwd=tmp_path).split()
    assert equal == "True" and "/venv/" in path and "_program" in path
