#!/usr/bin/env python3
"""Encoding speed on one thread: ours beside Hugging Face's `tokenizers`, median of several runs.

    .venv/bin/python benchmarks/compare/tokenizers_speed.py [--runs 7] [--json] [FILE ...]

Both get the same bytes and the same tokenizer: GPT-2's, and byte-level BPEs trained on the files with the
pre-tokenizers of Llama 3 and cosmo2. `tokenizers` is measured through encode_batch_fast, which computes no offsets, after
a warm-up; the runs of the two alternate, so that a busy machine slows both.
"""

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import pathlib  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

import tokenizers  # noqa: E402
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def find_probe() -> pathlib.Path:
    probe = pathlib.Path(os.environ.get("REFRACT_BIN_DIR", ROOT / "build/release/bin")) / "tokenize_probe"
    if not probe.is_file():
        sys.exit(f"{probe} is not built: scripts/build tokenize_probe")
    return probe


def trained(pre_tokenizer, files, folder: pathlib.Path) -> pathlib.Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=16000, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train([str(f) for f in files], trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_tokenizers(files, work: pathlib.Path) -> dict:
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    out = {}
    if (DATA / "gpt2").exists():
        subprocess.run([find_probe(), "save", DATA / "gpt2", work / "gpt2"], check=True)
        out["gpt2"] = work / "gpt2"
    llama3 = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), whole])
    cosmo2 = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    out["llama3-style"] = trained(llama3, files, work / "llama3")
    out["cosmo2-style"] = trained(cosmo2, files, work / "cosmo2")
    return out


def lines_of(text: str) -> list:
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def compare(folder, file, mode, runs) -> dict:
    text = file.read_bytes().decode()
    documents = [text] if mode == "whole" else lines_of(text)
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    count = sum(len(e.ids) for e in theirs.encode_batch_fast(documents, add_special_tokens=False))
    their_times, our_times = [], []
    for _ in range(runs):
        start = time.perf_counter()
        theirs.encode_batch_fast(documents, add_special_tokens=False)
        their_times.append(time.perf_counter() - start)
        done = subprocess.run([find_probe(), "time", folder, file, "2", mode], capture_output=True, check=True)
        answer = json.loads(done.stdout)
        assert answer["tokens"] == count, f"{answer['tokens']} tokens, theirs {count}"
        our_times.append(answer["seconds"][1])  # the first one warms up
    size = file.stat().st_size / 1e6
    ours, their = statistics.median(our_times), statistics.median(their_times)
    return {"tokenizer": folder.name, "file": file.name, "documents": mode, "tokens": count,
            "refract_MB_per_s": size / ours, "tokenizers_MB_per_s": size / their, "ratio": their / ours}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    files = args.files or [DATA / "tinyshakespeare.txt", DATA / "wikitext2-valid.txt"]
    if missing := [str(f) for f in files if not f.is_file()]:
        sys.exit(f"no such file: {', '.join(missing)}; name UTF-8 text files")
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for folder in make_tokenizers(files, pathlib.Path(work)).values():
            rows += [compare(folder, f, mode, args.runs) for f in files for mode in ("whole", "lines")]
    if args.json:
        return print(json.dumps({"tokenizers_version": tokenizers.__version__, "rows": rows}))
    print(f"one thread, median of {args.runs} runs, tokenizers {tokenizers.__version__}")
    print(f"{'tokenizer':10}{'file':22}{'documents':10}{'refract MB/s':>14}{'tokenizers MB/s':>17}{'ratio':>8}")
    for r in rows:
        print(f"{r['tokenizer']:10}{r['file']:22}{r['documents']:10}{r['refract_MB_per_s']:14.1f}"
              f"{r['tokenizers_MB_per_s']:17.2f}{r['ratio']:8.1f}")


if __name__ == "__main__":
    main()
