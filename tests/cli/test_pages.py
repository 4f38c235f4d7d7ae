"""What the program and its pages tell a reader to type: the examples of --help, and the Python of docs/training.md."""
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GROUPS = ("bench", "data", "tokenizer")
MADE = ("runs/", "shards", "my-tokenizer", "stories.jsonl")  # by the demo, or by the example itself


@pytest.fixture
def examples(refract):
    """Of every command: its words, its help and the lines of its example."""
    names = re.findall(r"^  ([a-z]+) {2,}", refract("--help").stdout.split("Subcommands:")[1], re.MULTILINE)
    commands = [[name] for name in names if name not in GROUPS]
    for group in GROUPS:
        inner = refract(group, "--help").stdout.split("Subcommands:")[1]
        commands += [[group, name] for name in re.findall(r"^  ([a-z]+) {2,}", inner, re.MULTILINE)]
    found = []
    for words in commands:
        text = refract(*words, "--help").stdout
        found.append((words, text, [line.strip() for line in text.split("Example:\n")[1].splitlines() if line.strip()]))
    assert len(found) >= 25
    return found


def test_examples_name_files_options_and_keys_that_there_are(examples, refract):
    keys = set()
    for command in ("train", "connectivity"):
        keys |= set(re.findall(r"^  (\w+\.[\w.]+) ", refract(command, "--help-keys").stdout, re.MULTILINE))
    assert {"optimizer.lr", "connectivity.spawn"} <= keys
    for words, text, lines in examples:
        typed = shlex.split(lines[-1])
        assert pathlib.Path(typed[0]).name == "refract" and typed[1:1 + len(words)] == words
        for word in typed[1 + len(words):]:
            if word.startswith("-"):
                assert re.search(rf"(^|[ ,]){re.escape(word)}[ ,=]", text, re.MULTILINE), f"{words} has no {word}"
            elif re.match(r"[a-z]+\.[\w.]+=", word):
                assert word.split("=")[0] in keys, f"{words}: {word}"
            elif re.match(r"(recipes|docs)/", word):
                assert (ROOT / word).is_file(), f"{words}: {word}"
            elif "/" in word and "," not in word:
                assert word.startswith(MADE), f"{words}: {word} is not there after make demo"


def test_a_program_can_drive_runs(program, recipe, tmp_path):
    """The Python of the page, word for word, with a small recipe in the demo's place."""
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 15
    (tmp_path / "recipes").mkdir()
    recipe.rename(tmp_path / "recipes" / "demo.toml")
    (tmp_path / "refract").symlink_to(program)
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(0\.00\d+) (\d\.\d+)$", done.stdout, re.MULTILINE)
    assert [rate for rate, _ in rows] == ["0.001", "0.003"] and all(1 < float(loss) < 5 for _, loss in rows)
    assert rows[0][1] != rows[1][1]
