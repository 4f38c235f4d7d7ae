"""Finds and runs the test-only programs that the C++ build leaves for pytest."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def find_program(name: str) -> pathlib.Path:
    """In REFRACT_BIN_DIR or build/release/bin, else the newest of any build folder."""
    named = os.environ.get("REFRACT_BIN_DIR")
    folders = [pathlib.Path(named)] if named else [ROOT / "build/release/bin"]
    if not named and not (folders[0] / name).is_file():
        folders = list(ROOT.glob("build/*/bin"))
    found = [p for f in folders if (p := f / name).is_file()]
    if not found:
        pytest.skip(f"{name} is not built (cmake --build ... --target {name})")
    return max(found, key=lambda p: p.stat().st_mtime)


def probe(*args, env=None) -> str:
    """Runs model_probe; its standard output. Fails the test with its error message."""
    done = probe_result(*args, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def probe_error(*args, env=None) -> str:
    """Runs model_probe, which must fail with exit code 1 and one line; that line."""
    done = probe_result(*args, env=env)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def probe_result(*args, env=None):
    return subprocess.run([find_program("model_probe"), *map(str, args)], capture_output=True,
                          text=True, timeout=300, env={**os.environ, **(env or {})})
