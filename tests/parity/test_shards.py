"""Token shards between refract and Python: what we write is read by numpy as llm.c lays it out, and
what nanoGPT's and llm.c's scripts write is read by us."""
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from probe import find_program

ROOT = Path(__file__).resolve().parents[2]
SHAKESPEARE = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"


def run(*args):
    return subprocess.run([str(find_program("data_probe")), *map(str, args)], capture_output=True,
                          text=True, timeout=300)


def probe(*args):
    done = run(*args)
    assert done.returncode == 0, done.stderr
    return done


def tokens_we_read(*paths):
    return [int(line) for line in probe("read", *paths).stdout.split()]


def read_llmc(path):
    """As llm.c's dataloader: 256 int32, then the tokens that the header counts."""
    header = np.fromfile(path, dtype="<i4", count=256)
    assert (header[0], header[1]) in {(20240520, 1), (20240801, 7)}
    dtype = "<u2" if header[1] == 1 else "<u4"
    tokens = np.fromfile(path, dtype=dtype, offset=1024)
    assert len(tokens) == header[2]
    assert not header[3:].any()
    return tokens


def write_llmc(path, tokens, wide):
    header = np.zeros(256, dtype="<i4")
    header[:3] = (20240801, 7, len(tokens)) if wide else (20240520, 1, len(tokens))
    with open(path, "wb") as file:
        file.write(header.tobytes())
        file.write(np.asarray(tokens, dtype="<u4" if wide else "<u2").tobytes())


@pytest.mark.parametrize("shard_tokens", [100_000_000, 7])
def test_numpy_reads_our_shards(tmp_path, shard_tokens):
    text = "A small corpus:\nzwölf Bären.\n" * 3
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    probe("tokenize", tmp_path / "a.txt", "bytes", out, 0.25, shard_tokens)
    parts = [np.concatenate([read_llmc(f) for f in sorted(out.glob(f"*_{part}_*.bin"))])
             for part in ("train", "val")]
    cut = int((1 - 0.25) * len(text))
    assert parts[0].tolist() == list(text[:cut].encode())
    assert parts[1].tolist() == list(text[cut:].encode())
    assert not list(out.glob("*.partial"))


def test_we_read_nanogpt(tmp_path):
    tokens = np.random.default_rng(1).integers(0, 50257, 10_000).astype(np.uint16)
    tokens.tofile(tmp_path / "train.bin")
    assert tokens_we_read(tmp_path / "train.bin") == tokens.tolist()


@pytest.mark.parametrize("wide", [False, True])
def test_we_read_llmc(tmp_path, wide):
    rng = np.random.default_rng(2)
    shards = [rng.integers(0, 128_256 if wide else 50_257, n) for n in (5000, 1, 4096)]
    paths = [tmp_path / f"x_train_{i:06d}.bin" for i in range(3)]
    for path, tokens in zip(paths, shards):
        write_llmc(path, tokens, wide)
    assert tokens_we_read(*paths) == np.concatenate(shards).tolist()


def test_a_cut_shard_is_refused_by_name(tmp_path):
    path = tmp_path / "cut.bin"
    write_llmc(path, list(range(100)), wide=False)
    os.truncate(path, 1100)
    result = run("read", path)
    assert result.returncode == 1
    assert "cut.bin" in result.stderr and "100 tokens" in result.stderr


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason=f"{SHAKESPEARE} is missing")
def test_shakespeare_characters_as_nanogpt_prepares_them(tmp_path):
    text = SHAKESPEARE.read_bytes().decode("utf-8")
    ids = {c: i for i, c in enumerate(sorted(set(text)))}
    expected = np.array([ids[c] for c in text])
    cut = int(0.9 * len(text))
    out = tmp_path / "out"
    probe("tokenize", SHAKESPEARE, "chars", out, 0.1)
    assert np.array_equal(read_llmc(out / "tokens_train_000000.bin"), expected[:cut])
    assert np.array_equal(read_llmc(out / "tokens_val_000000.bin"), expected[cut:])
