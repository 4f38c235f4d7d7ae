"""A run folder that somebody removes, replaces or fills while it is written, or before."""
import shutil
import signal
import subprocess
import time

import pytest
from workplace import BUILD, Workplace, one_sentence


def start(place, *arguments):
    return subprocess.Popen([str(BUILD / "refract"), "train", "recipe.toml", *arguments], cwd=place.folder, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, "it did not come that far"
        time.sleep(0.01)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_goes_during_training_ends_the_run(built, tmp_path, replaced):
    place = Workplace(tmp_path / "work")
    process = start(place, "train.steps=1000000", "eval.every=0", "checkpoint.every=20")
    wait_for(place.folder / "run" / "checkpoints" / "step-00000020", process)
    (place.folder / "run").rename(place.folder / "moved")
    if replaced:
        (place.folder / "run").mkdir()
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        raise
    assert process.returncode == 1, errors
    assert "removed or replaced" in errors.splitlines()[-1]


def test_checkpoints_without_a_config_are_nobodys_to_prune(built, tmp_path):
    place = Workplace(tmp_path / "work")
    assert place.run("train", "recipe.toml").returncode == 0
    (place.folder / "run" / "config.toml").unlink()
    before = sorted(path.name for path in (place.folder / "run" / "checkpoints").iterdir())
    line = one_sentence(place.run("train", "recipe.toml", "train.steps=9"))
    assert "config.toml is missing" in line
    assert sorted(path.name for path in (place.folder / "run" / "checkpoints").iterdir()) == before


def test_only_our_unfinished_folders_are_removed(built, tmp_path):
    place = Workplace(tmp_path / "work")
    assert place.run("train", "recipe.toml").returncode == 0
    checkpoints = place.folder / "run" / "checkpoints"
    for name in ("notes.unfinished", "step-00000002.unfinished", "step-2.unfinished", "step-00000003.unfinished.mine"):
        (checkpoints / name).mkdir()
        (checkpoints / name / "x").write_text("x")
    assert place.run("train", "recipe.toml", "--resume").returncode == 0  # finished already: nothing else to do
    left = {path.name for path in checkpoints.iterdir() if "unfinished" in path.name}
    assert left == {"notes.unfinished", "step-2.unfinished", "step-00000003.unfinished.mine"}
    shutil.rmtree(checkpoints / "notes.unfinished")


def test_a_link_with_the_partial_files_name_is_not_followed(built, tmp_path):
    """Names of unfinished files are never those of files that are there."""
    place = Workplace(tmp_path / "work")
    (place.folder / "out").mkdir()
    target = place.folder / "precious"
    target.write_text("mine")
    (place.folder / "out" / "tokenizer.json.partial").symlink_to(target)
    done = place.run("tokenizer", "train", "corpus.txt", "--vocab-size", "300", "--out", "out/tokenizer.json")
    assert done.returncode == 0, done.stderr
    assert target.read_text() == "mine"
    assert (place.folder / "out" / "tokenizer.json.partial").is_symlink()
