"""scripts/lint scripts accepts this tree and refuses a script that bash cannot parse, and what a merge conflict leaves behind."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def lint(root):
    return subprocess.run([root / "scripts/lint", "scripts"], capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path):
    """A repository of its own with nothing but the two scripts that the check consists of."""
    (tmp_path / "scripts").mkdir()
    for name in ("lint", "lib.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "scripts"], check=True)
    return tmp_path


def test_this_tree_passes():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    result = lint(ROOT)
    assert result.returncode == 0, result.stderr


def test_a_clean_checkout_passes(checkout):
    (checkout / "empty").write_text("")
    (checkout / "notes.md").write_text("Heading\n========\n1 <<<<<<< 2\n")
    result = lint(checkout)
    assert result.returncode == 0, result.stderr
    assert "(2)" in result.stdout  # both scripts were read


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("name, first", [("scripts/broken", "#!/usr/bin/env bash"), ("part.sh", "# shellcheck shell=bash")])
def test_refuses_a_script_that_does_not_parse(checkout, name, first, tracked):
    (checkout / name).write_text(f"{first}\nif true; then echo\n")
    if tracked:
        subprocess.run(["git", "-C", checkout, "add", name], check=True)
    result = lint(checkout)
    assert result.returncode == 1
    assert name in result.stderr and "cannot parse" in result.stderr


@pytest.mark.parametrize("marker", ["<" * 7 + " HEAD", "=" * 7, ">" * 7 + " theirs", "|" * 7 + " base", "<" * 7])
def test_refuses_the_rest_of_a_conflict(checkout, marker):
    (checkout / "notes.md").write_text(f"one\n{marker}\ntwo\n")
    result = lint(checkout)
    assert result.returncode == 1
    assert f"notes.md:2:{marker}" in result.stderr and "merge conflict" in result.stderr


def test_ignored_files_are_not_read(checkout):
    (checkout / ".gitignore").write_text("/kept/\n/build/\n")
    (checkout / "kept").mkdir()
    (checkout / "kept/x.sh").write_text("# shellcheck shell=bash\n" + "<" * 7 + " HEAD\n")
    assert lint(checkout).returncode == 0
