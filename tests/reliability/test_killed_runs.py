"""A run that is killed before any of its file calls, or in which any of them fails, goes on to the same bits.

make test tries a selection; make torture every call, and prints what survived."""
import shutil

import pytest
from workplace import TORTURE, Workplace, final_state, one_sentence, side_by_side, spread

FAULTS = ["open:EMFILE", "read:EIO", "read:SHORT", "read:EINTR", "write:ENOSPC", "write:EIO", "write:EINTR", "write:SHORT",
          "fsync:EIO", "rename:EIO", "mkdir:ENOSPC", "mmap:ENOMEM", "unlink:EIO"]


def resume(place, run="run"):
    """Goes on, or starts again where nothing was begun; fails where the program does."""
    done = place.run("train", "recipe.toml", "--resume")
    assert done.returncode == 0, done.stderr
    return final_state(place.folder / run)


def litter(place):
    """What an interrupted run left in its folder."""
    return [str(path) for path in (place.folder / "run").rglob("*.unfinished")]


def test_killed_before_a_call_and_resumed(expected, tmp_path):
    state, calls = expected
    assert calls["any"] > 100  # or the shim counts nothing
    numbers = spread(calls["any"], 8)

    def kill(number):
        place = Workplace(tmp_path / str(number))
        done = place.run("train", "recipe.toml", fault=f"any:{number}:KILL")
        assert done.returncode in (0, -9), done.stderr
        assert resume(place) == state, f"killed before call {number}"
        assert litter(place) == [], f"killed before call {number}"
        shutil.rmtree(place.folder)
        return done.returncode == -9

    killed = sum(side_by_side(kill, numbers))
    assert killed > 0.8 * len(numbers)
    print(f"killed before {killed} calls of {calls['any']}: all resumed to the same bits")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_fails_and_the_run_goes_on_or_stops_with_a_sentence(expected, tmp_path, fault):
    state, calls = expected
    call, what = fault.split(":")
    assert calls[call] > 0
    tried = spread(calls[call], 2)

    def fail(number):
        place = Workplace(tmp_path / str(number))
        done = place.run("train", "recipe.toml", fault=f"{call}:{number}:{what}")
        if done.returncode == 0:
            assert final_state(place.folder / "run") == state, f"{fault} of call {number}"
        else:
            one_sentence(done)
        assert what not in ("EINTR", "SHORT") or done.returncode == 0, done.stderr  # both are no errors
        assert resume(place) == state, f"{fault} of call {number}"
        shutil.rmtree(place.folder)
        return done.returncode != 0

    stopped = sum(side_by_side(fail, tried))
    print(f"{fault}: {len(tried)} of {calls[call]} calls tried, {stopped} stopped the run, all ended in the same bits")


def test_a_passing_error_does_not_delete_the_token_cache(expected, tmp_path):
    place = Workplace(tmp_path / "work")
    assert place.run("train", "recipe.toml").returncode == 0
    shards = {path: path.stat().st_ino for path in (place.folder / "cache").rglob("*.bin")}
    assert len(shards) == 2
    calls = place.count("train", "recipe.toml", "run.dir=second", log=tmp_path / "calls")
    most = 1000 if TORTURE else 4
    faults = [(call, number, what) for call, what in (("open", "EMFILE"), ("mmap", "ENOMEM")) for number in range(1, min(calls[call], most) + 1)]

    def fail(fault):
        call, number, what = fault
        place.run("train", "recipe.toml", f"run.dir={call}{number}", fault=f"{call}:{number}:{what}")
        shutil.rmtree(place.folder / f"{call}{number}", ignore_errors=True)

    side_by_side(fail, faults)  # what one deleted, none brings back: new files would be others
    assert {path: path.stat().st_ino for path in (place.folder / "cache").rglob("*.bin")} == shards
    print(f"the token cache outlived {len(faults)} passing errors")


def test_a_full_disk_keeps_the_checkpoints_that_are_there(expected, tmp_path):
    state, calls = expected
    place = Workplace(tmp_path / "work")
    middle = 2 * calls["write"] // 3
    line = one_sentence(place.run("train", "recipe.toml", fault=f"write:{middle}+:ENOSPC"))
    assert "No space left on device" in line
    kept = sorted(path.name for path in (place.folder / "run" / "checkpoints").iterdir())
    assert kept and all(not name.endswith(".unfinished") for name in kept)
    assert resume(place) == state
