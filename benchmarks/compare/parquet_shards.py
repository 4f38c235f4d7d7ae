#!/usr/bin/env python3
"""Tokens a second from a Parquet file to token shards: ours beside Hugging Face's `datasets` and `tokenizers`.

    python benchmarks/compare/parquet_shards.py [--size 60MB] [--runs 3] [--cores N] [--json]

Needs a Python with datasets, tokenizers and numpy, which need not be the checkout's own. Both get the same file of short
stories, the same GPT-2-like tokenizer (trained on them) and the same cores. Theirs is the usual script: load_dataset, a
batched map that encodes, and the ids appended to a uint16 file as nanoGPT's prepare.py does it; it is timed in one process
with the threads of `tokenizers` and in one process a core, and the faster one counts. The tokens are compared. Runs of the
two alternate; the median counts. Its caches are new in every run, ours too.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("REFRACT_BIN_DIR", ROOT / "build/release/bin")) / "refract"
VOCABULARY = 16384

THEIRS = """
import sys
import datasets, numpy, tokenizers
file, tokenizer, out, processes, cache = sys.argv[1:]
datasets.disable_progress_bars()
processes = int(processes)
def encode(batch):
    ids = []
    for found in encode.by.encode_batch_fast(batch["text"], add_special_tokens=False):
        found = found.ids
        found.append(0)
        ids.append(found)
    return {"ids": ids}
encode.by = tokenizers.Tokenizer.from_file(tokenizer)
data = datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=cache)
data = data.map(encode, batched=True, remove_columns=data.column_names, num_proc=processes or None)
with open(out, "wb") as shard:
    for batch in data.with_format("numpy").iter(1024):
        shard.write(numpy.concatenate(batch["ids"]).astype(numpy.uint16).tobytes())
"""


def write_parquet(folder, size):
    import pyarrow
    import pyarrow.parquet
    subprocess.run([PROGRAM, "data", "stories", "--size", size, "--out", folder / "stories.txt"], check=True, capture_output=True)
    text = (folder / "stories.txt").read_text()
    stories = [story for story in text.split("\n\n") if story.strip()]
    pyarrow.parquet.write_table(pyarrow.table({"id": range(len(stories)), "text": stories}), folder / "stories.parquet",
                                row_group_size=10_000)
    return folder / "stories.parquet"


def train_tokenizer(folder):
    subprocess.run([PROGRAM, "tokenizer", "train", folder / "stories.txt", "--vocab-size", str(VOCABULARY), "--out", folder / "bpe"],
                   check=True, capture_output=True)
    return folder / "bpe"


def ours(file, tokenizer, folder):
    shutil.rmtree(folder / "ours", ignore_errors=True)
    start = time.perf_counter()
    subprocess.run([PROGRAM, "tokenize", file, "--tokenizer", tokenizer, "--out", folder / "ours", "--validation-fraction", "0"],
                   check=True, capture_output=True)
    return time.perf_counter() - start


def theirs(file, tokenizer, folder, processes):
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    environment = dict(os.environ, HF_HOME=str(cache), HF_DATASETS_CACHE=str(cache), HF_HUB_OFFLINE="1",
                       TOKENIZERS_PARALLELISM="false" if processes else "true")
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", THEIRS, file, tokenizer / "tokenizer.json", folder / "theirs.bin", str(processes), cache],
                   check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def same_tokens(folder):
    """Ours have the end-of-text token between documents, theirs behind each. How many there are."""
    import numpy
    parts = [numpy.fromfile(shard, dtype="<u2", offset=1024) for shard in sorted((folder / "ours").glob("*.bin"))]
    mine, other = numpy.concatenate(parts), numpy.fromfile(folder / "theirs.bin", dtype="<u2")
    if len(mine) + 1 != len(other) or not (mine == other[:-1]).all():
        sys.exit(f"the tokens differ: {len(mine)} and {len(other)}")
    return len(mine)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="60MB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        import datasets  # noqa: F401
        import tokenizers  # noqa: F401
    except ImportError as missing:
        sys.exit(f"{missing}: pip install datasets tokenizers numpy, in an environment of its own")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.cores])
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        file = write_parquet(folder, options.size)
        tokenizer = train_tokenizer(folder)
        times = {"ours": [], "threads": [], "processes": []}
        for _ in range(options.runs):
            times["ours"].append(ours(file, tokenizer, folder))
            times["threads"].append(theirs(file, tokenizer, folder, 0))
            tokens = same_tokens(folder)
            times["processes"].append(theirs(file, tokenizer, folder, options.cores))
        size = file.stat().st_size
    median = {name: statistics.median(found) for name, found in times.items()}
    best = min(median["threads"], median["processes"])
    row = {"file_bytes": size, "tokens": tokens, "cores": options.cores, "seconds": median,
           "ours_tokens_per_s": tokens / median["ours"], "theirs_tokens_per_s": tokens / best, "times_faster": best / median["ours"]}
    if options.json:
        print(json.dumps(row))
    else:
        print(f"{size / 1e6:.0f} MB of Parquet, {tokens / 1e6:.1f}M tokens, {options.cores} cores, median of {options.runs}")
        print(f"  ours    {row['ours_tokens_per_s'] / 1e6:6.2f}M tokens/s")
        print(f"  theirs  {row['theirs_tokens_per_s'] / 1e6:6.2f}M tokens/s (threads {tokens / median['threads'] / 1e6:.2f}M, "
              f"processes {tokens / median['processes'] / 1e6:.2f}M)")
        print(f"  ours is {row['times_faster']:.1f} times as fast")


main()
