"""What a command writes is there whole or not at all, and a failure does not block the next."""
import re
import shutil

import pytest
from workplace import Workplace, one_sentence, side_by_side, spread

COMMANDS = {
    "export": ["export", "run", "--out", "out"],
    "tokenize": ["tokenize", "corpus.txt", "--tokenizer", "bytes", "--out", "out"],
    "tokenizer train": ["tokenizer", "train", "corpus.txt", "--vocab-size", "300", "--out", "out/tokenizer.json"],
    "calibrate": ["calibrate", "run", "--kind", "optical", "--tokens", "16", "--out", "out"],
    "align": ["align", "run", "run", "--out", "out"],
    "universe": ["universe", "run", "run", "--batches", "1", "--alphas", "2", "--out", "out"],
    "merge": ["merge", "run", "run", "--out", "out"],
    "export gguf": ["export", "llama", "--format", "gguf", "--out", "out/model.gguf"],
    "data stories": ["data", "stories", "--size", "3KB", "--out", "stories.jsonl"],
    "report": ["report", "run", "--out", "out/report.html"],
}


# A model that a GGUF file can hold.
LLAMA = ["model.norm=rmsnorm", "model.position=rope", "model.hidden_act=swiglu", "model.attention_bias=false",
         "model.attention_output_bias=false", "model.mlp_bias=false"]

# In the folder of `tokenize`, which is filled in place, until it is whole: a folder with it is refused as a corpus.
MARK = "unfinished.bin.partial"


@pytest.fixture(scope="module")
def trained(built, tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("trained") / "work")
    for arguments in ([], ["run.dir=llama", *LLAMA]):
        done = place.run("train", "recipe.toml", "train.steps=1", *arguments)
        assert done.returncode == 0, done.stderr
    return place


def files(place):
    if (place.folder / "stories.jsonl").exists():
        return {"stories.jsonl": (place.folder / "stories.jsonl").read_bytes()}
    out = place.folder / "out"
    if not out.exists():
        return None
    # What a killed process was writing beside the name has a name that nothing reads.
    unfinished = re.compile(r"\.\d+-\d+\.partial$")
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and not unfinished.search(path.name)}
    # A page says when it was written, to the minute.
    return {name: re.sub(rb"Written on [-0-9: ]+ UTC", b"Written", text) for name, text in found.items()}


def clear(place):
    """Removes what the command made; what a killed one left beside it stays."""
    (place.folder / "stories.jsonl").unlink(missing_ok=True)
    if (place.folder / "out").exists():
        for path in sorted((place.folder / "out").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (place.folder / "out").rmdir()


@pytest.mark.parametrize("command", COMMANDS)
def test_is_whole_or_absent(trained, tmp_path, command):
    arguments = COMMANDS[command]
    clear(trained)
    calls = trained.count(*arguments, log=tmp_path / "calls")
    whole = files(trained)
    assert whole
    faults = [f"any:{number}:KILL" for number in spread(calls["any"], 4)]
    faults += [f"write:{number}:ENOSPC" for number in spread(calls["write"], 2)]
    faults += [f"{call}:{number}:EIO" for call in ("fsync", "rename") for number in spread(calls[call], 1)]
    clear(trained)

    def fail(fault):
        place = Workplace(tmp_path / fault, like=trained)
        done = place.run(*arguments, fault=fault)
        found = files(place)
        assert found in (None, {}, whole) or MARK in found, fault
        if "KILL" not in fault and done.returncode != 0:
            one_sentence(done)
        if files(place) != whole:
            again = place.run(*arguments)
            assert again.returncode == 0, (fault, again.stderr)
            assert files(place) == whole, fault
            assert not list(place.folder.rglob("*.partial")), fault
        hidden = [path.name for path in place.folder.iterdir() if "unfinished" in path.name]
        assert hidden == [], fault
        shutil.rmtree(place.folder)
        return done.returncode != 0

    stopped = sum(side_by_side(fail, faults))
    assert stopped >= len(faults) // 2
    print(f"{command}: {len(faults)} faults, {stopped} stopped it; always whole or absent, and made at the next try")


@pytest.mark.parametrize("command", ["export", "tokenize", "calibrate", "align", "universe", "merge"])
def test_a_folder_with_files_is_left_alone(trained, command):
    clear(trained)
    out = trained.folder / "out"
    out.mkdir()
    mine = {"model-mine.safetensors": b"mine", "tokenizer.json": b"old"}
    for name, content in mine.items():
        (out / name).write_bytes(content)
    done = trained.run(*COMMANDS[command])
    assert done.returncode == 2 and "already holds something" in done.stderr
    assert files(trained) == mine
    clear(trained)
