"""A study that is killed, or whose file calls fail, goes on when it is started again and ends in the figures of one that nobody disturbed."""
import json
import shutil

import pytest
from workplace import TORTURE, Workplace, one_sentence, side_by_side, spread

MEDIA = '[[row]]\nname = "light"\nkind = "optical"\n[[row]]\nname = "flips"\nkind = "bit_flip"\n'
# What is started, and the file that holds the figures.
STUDIES = {
    "compare": (["compare", "run", "--media", "media.toml", "--data", "corpus.txt", "--tokens", "32", "--out", "out"], "out/compare.json"),
    "sensitivity": (["sensitivity", "run", "--kind", "optical", "--by", "types", "--tokens", "32", "--out", "out"], "out/sensitivity.json"),
    "interpolate": (["interpolate", "run", "run", "--alphas", "3", "--batches", "1", "--out", "out"], "out/path.json"),
    "curvature": (["curvature", "run", "--tokens", "16", "--top", "1", "--probes", "1", "--out", "out"], "out/curvature.json"),
    "sweep": (["sweep", "recipe.toml", "--over", "optimizer.lr=1e-3,1e-4", "--out", "out", "train.steps=1"], "out/table.json"),
}
UNFINISHED = "not complete; the same command goes on from here"  # the last line of refract compare
CLOCK = {"seconds", "tokens_per_second"}  # never the same twice


@pytest.fixture(scope="module")
def trained(built, tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("studied") / "work")
    (place.folder / "media.toml").write_text(MEDIA)
    done = place.run("train", "recipe.toml", "train.steps=1")
    assert done.returncode == 0, done.stderr
    return place


def without_clock(tree):
    if isinstance(tree, dict):
        return {key: without_clock(value) for key, value in tree.items() if key not in CLOCK}
    return [without_clock(value) for value in tree] if isinstance(tree, list) else tree


def figures(place, name):
    return without_clock(json.loads((place.folder / name).read_text()))


def says_what_failed(done):
    """One sentence; or, of a study whose parts fail by themselves, one for each of those, and that it is not complete."""
    lines = done.stderr.splitlines()
    if lines[-1] == UNFINISHED:
        assert done.returncode == 1 and any(line.startswith("warning: failed: ") for line in lines), done.stderr
    else:
        one_sentence(done)


@pytest.mark.parametrize("study", STUDIES)
def test_goes_on_to_the_same_figures(trained, tmp_path, study):
    arguments, name = STUDIES[study]
    undisturbed = Workplace(tmp_path / "undisturbed", like=trained)
    calls = undisturbed.count(*arguments, log=tmp_path / "calls")
    expected = figures(undisturbed, name)
    assert expected
    numbers = spread(calls["any"], 3)
    if study == "sweep":  # its runs are programs of their own, which take their time
        numbers = numbers[:: 1 + len(numbers) // 20]
    faults = [f"any:{number}:KILL" for number in numbers]
    faults += [f"write:{number}:ENOSPC" for number in spread(calls["write"], 1)]
    if TORTURE:
        faults += [f"{call}:{number}:{what}" for call, what in (("rename", "EIO"), ("open", "EMFILE")) for number in spread(calls[call], 1)]

    def fail(fault):
        place = Workplace(tmp_path / fault, like=trained)
        done = place.run(*arguments, fault=fault)
        if "KILL" not in fault and done.returncode != 0:
            says_what_failed(done)
        again = place.run(*arguments)
        assert again.returncode == 0, (fault, again.stderr)
        assert figures(place, name) == expected, fault
        assert not list((place.folder / "out").rglob("*.unfinished")), fault
        shutil.rmtree(place.folder)
        return done.returncode != 0

    stopped = sum(side_by_side(fail, faults))
    assert stopped > 0 and (TORTURE or stopped >= len(faults) // 2)
    print(f"{study}: {len(faults)} faults, {stopped} stopped it; all ended in the same figures when started again")
