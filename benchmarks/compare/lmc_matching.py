"""The barrier between independently trained models under every way of matching them.

    .venv/bin/python benchmarks/compare/lmc_matching.py tinygpt mingpt --data tinyshakespeare.txt --tokenizer GPT2_FOLDER \
        --device cuda --seeds 3 --jobs 6 --out runs/matching
    .venv/bin/python benchmarks/compare/lmc_matching.py tinygpt --data tinyshakespeare.txt --seeds 1 --overrides \
        train.steps=4000 schedule.warmup=400 train.precision=fp32

For each seed s two models of recipes/lmc/PRESET.toml are trained, from seeds 2 s - 1 and 2 s: other starting weights and
other data orders. Then `refract interpolate` measures the path between them as they are and under each of METHODS. With
--both the maps of both models are learned by `refract align`, which writes both. The table has the barrier in nats on
the training tokens, mean and standard deviation over seeds. Runs and paths that lie in --out are used again.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROTATED = ["--residual", "orthogonal", "--heads", "orthogonal"]
METHODS = {
    "none": [],
    "weights, permutations": ["--align", "weights", "--residual", "permutation", "--heads", "whole"],
    "activations, permutations": ["--align", "activations", "--residual", "permutation", "--heads", "whole"],
    "weights, orthogonal": ["--align", "weights", *ROTATED],
    "activations, orthogonal": ["--align", "activations", *ROTATED],
    "learned": ["--align", "weights", "--learn"],
    "learned, both ends": ["--both"],
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", choices=["tinygpt", "toygpt", "compactgpt", "mingpt"])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a text file")
    parser.add_argument("--tokenizer", help="a folder with GPT-2's vocab.json and merges.txt, for all but tinygpt")
    parser.add_argument("--refract", default="./refract", help="the program")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seeds", type=int, default=1, help="pairs of models")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="these alone")
    parser.add_argument("--learn", type=int, default=1000, help="steps of learned matching")
    parser.add_argument("--alphas", type=int, default=11)
    parser.add_argument("--batches", default="all", help="of interpolate")
    parser.add_argument("--jobs", type=int, default=1, help="programs that run at once")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/matching"))
    parser.add_argument("--overrides", nargs="*", default=[], help="key=value settings of the training runs")
    return parser.parse_args()


class Study:
    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.threads = str(max(1, (os.cpu_count() or 1) // arguments.jobs))

    def refract(self, log: pathlib.Path, *words):
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w") as lines:
            done = subprocess.run([self.arguments.refract, *map(str, words)], stdout=lines, stderr=lines,
                                  env={**os.environ, "OMP_NUM_THREADS": self.threads})
        if done.returncode != 0:
            sys.exit(f"refract {' '.join(map(str, words))}: exit code {done.returncode}, see {log}")

    def run_of(self, preset: str, seed: int) -> pathlib.Path:
        return self.arguments.out / f"{preset}-{seed}"

    def train(self, preset: str, seed: int):
        run = self.run_of(preset, seed)
        if (run / "checkpoints").exists():
            return
        tokenizer = [] if preset == "tinygpt" else [f"data.tokenizer={self.arguments.tokenizer}"]
        self.refract(run.parent / f"{run.name}.log", "train", f"recipes/lmc/{preset}.toml",
                     f"data.path={self.arguments.data}", f"run.dir={run}", f"run.seed={seed}", "eval.samples=0",
                     f"train.device={self.arguments.device}", *tokenizer, *self.arguments.overrides)

    def path(self, preset: str, seed: int, method: str) -> dict:
        """The figures of one path."""
        a, b = (self.run_of(preset, s) for s in (2 * seed - 1, 2 * seed))
        out = self.arguments.out / f"{preset}-path-{seed}-{method.replace(', ', '-').replace(' ', '-')}"
        settings = [f"train.device={self.arguments.device}", "train.precision=fp32"]
        begin = time.time()
        if not (out / "path.json").exists():
            options = list(METHODS[method])
            if method == "learned":
                options.append(str(self.arguments.learn))
            if options == ["--both"]:
                aligned = out.with_name(out.name + "-aligned")
                self.refract(out.with_suffix(".align.log"), "align", a, b, "--out", aligned, "--learn", self.arguments.learn,
                             "--both", *settings)
                a, b, options = f"{aligned}-a", aligned, []
            self.refract(out.with_suffix(".log"), "interpolate", a, b, "--splits", "train", "--alphas",
                         self.arguments.alphas, "--batches", self.arguments.batches, "--out", out, *options, *settings)
        figures = json.loads((out / "path.json").read_text())
        split = figures["splits"]["train"]
        return {"preset": preset, "seed": seed, "method": method, "barrier": split["loss_barrier"]["barrier"],
                "ends": (split["loss"][0] + split["loss"][-1]) / 2, "distance": figures["distance"],
                "seconds": round(time.time() - begin, 1)}


def main():
    arguments = parse_arguments()
    if arguments.tokenizer is None and set(arguments.presets) != {"tinygpt"}:
        sys.exit("every preset but tinygpt needs --tokenizer")
    study = Study(arguments)
    begin = time.time()
    seeds = range(1, arguments.seeds + 1)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(study.train, preset, seed)
                for preset in arguments.presets for seed in range(1, 2 * arguments.seeds + 1)]
        for run in runs:
            run.result()
        print(f"trained after {time.time() - begin:.0f} s", file=sys.stderr)
        paths = [pool.submit(study.path, preset, seed, method)
                 for preset in arguments.presets for seed in seeds for method in reversed(arguments.methods)]
        results = [path.result() for path in paths]
    for result in results:
        print(json.dumps(result), file=sys.stderr)
    print("| model | matching | barrier | of the ends' loss | distance |\n| --- | --- | ---: | ---: | ---: |")
    for preset in arguments.presets:
        for method in arguments.methods:
            chosen = [r for r in results if r["preset"] == preset and r["method"] == method]
            barriers = [r["barrier"] for r in chosen]
            spread = f" ± {statistics.stdev(barriers):.4f}" if len(barriers) > 1 else ""
            share = statistics.mean(r["barrier"] / r["ends"] for r in chosen)
            print(f"| {preset} | {method} | {statistics.mean(barriers):.4f}{spread} | {100 * share:.1f}% "
                  f"| {statistics.mean(r['distance'] for r in chosen):.1f} |")
    print(f"{time.time() - begin:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
