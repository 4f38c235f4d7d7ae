#!/usr/bin/env python3
"""One run on 1, 2, ... GPUs of this machine: are its bits the same, how fast is it, what does it need, does it end when a process does.

  benchmarks/several_gpus.py --refract ./refract [--gpus 2] [--steps 40] [--only bits,kill,speed,memory] [--models gpt2,clm,clm-optical]

Prints a line for each check and a table for each measurement, and ends with 1 where a check failed. Everything runs through the program's
own commands on generated text, in a folder of its own (--out). `--cpu` does the same with tiny models and processes on the CPU: a try of
the script itself.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

OPTICAL = """
[[transform]]
match = 'model\\.layers\\.\\d+\\.(self_attn|mlp)(\\.\\w+_proj)?'
kind  = "optical"
"""
COMMON = """
[data]
path      = "stories:8MB"
tokenizer = "chars"
context   = {context}
[model]
{model}
[train]
precision = "{precision}"
device    = "{device}"
[eval]
every   = 0
batches = "1"
samples = 0
[checkpoint]
every = 0
keep  = 0
[log]
every = 5
"""
PRESET = 'preset = "{0}"\n'


class Model:
    def __init__(self, name, model, context, batch, rules=""):
        self.name, self.model, self.context, self.batch, self.rules = name, model, context, batch, rules

    def recipe(self, folder, device):
        path = folder / f"{self.name}.toml"
        precision = "bf16" if device == "cuda" else "fp32"
        path.write_text(COMMON.format(context=self.context, model=self.model, precision=precision, device=device) + self.rules)
        return path


GPU_MODELS = {"gpt2": Model("gpt2", PRESET.format("gpt2"), 1024, 32),
              "clm": Model("clm-200m", PRESET.format("clm-200m"), 2048, 16),
              "clm-optical": Model("clm-200m-optical", PRESET.format("clm-200m"), 2048, 16, OPTICAL)}
TINY = "hidden_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 2\n"
CPU_MODELS = {"gpt2": Model("tiny", TINY, 32, 8), "clm-optical": Model("tiny-optical", TINY, 32, 8, OPTICAL)}


class Bench:
    def __init__(self, options):
        self.options = options
        self.device = "cpu" if options.cpu else "cuda"
        self.models = CPU_MODELS if options.cpu else GPU_MODELS
        if options.models:
            self.models = {name: self.models[name] for name in options.models.split(",")}
        self.folder = pathlib.Path(options.out or tempfile.mkdtemp(prefix="several-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.failed = False

    def command(self, model, processes, name, settings):
        recipe = model.recipe(self.folder, self.device)
        start = [self.options.refract] + (["launch", "-n", processes] if processes > 1 else [])
        return [str(part) for part in [*start, "train", recipe, f"run.dir={self.folder / name}", *settings]]

    def environment(self, processes):
        environment = dict(os.environ, XDG_CACHE_HOME=str(self.folder / "cache"))
        environment.setdefault("NCCL_NVLS_ENABLE", "0")
        if self.device == "cuda":
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(processes)))
        else:
            environment["OMP_NUM_THREADS"] = "1"
        return environment

    def run(self, model, processes, name, *settings):
        shutil.rmtree(self.folder / name, ignore_errors=True)
        done = subprocess.run(self.command(model, processes, name, settings), env=self.environment(processes), capture_output=True,
                              text=True, timeout=self.options.limit)
        if done.returncode != 0:
            self.check(f"{name} on {processes}", False, (done.stderr.strip().splitlines() or ["no message"])[-1])
            return None
        return self.folder / name

    def check(self, what, good, detail=""):
        self.failed |= not good
        print(f"{'ok    ' if good else 'FAILED'}  {what}{': ' + detail if detail else ''}", flush=True)


def newest(run):
    path = max(path for path in run.glob("checkpoints/step-*") if path.name[5:].isdigit())
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "config.toml"}


def measured(run):
    """Tokens per second (the median of the log points without warm-up and capture), MiB of process 0, the last loss."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "tokens_per_second" in line]
    speeds = [line["tokens_per_second"] for line in logged[2:] or logged]
    return statistics.median(speeds), max(line["memory_bytes"] for line in logged) / 2**20, logged[-1]["loss"]


def table(title, head, rows):
    print(f"\n{title}")
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))
    print(flush=True)


def bits(bench):
    """The same checkpoint bytes for any number of processes; captured or not; recomputed or not; sharded or not."""
    print("\nThe same bits")
    for model in bench.models.values():
        settings = ["train.batch=8", "train.steps=12", "train.reduction_groups=4", "train.deterministic=true"]
        one = bench.run(model, 1, "one", *settings)
        if not one:
            continue
        expected = newest(one)
        graph = [] if bench.device == "cpu" else [(", uncaptured", ["train.cuda_graph=off"])]
        for label, more in [("", []), *graph, (", recomputed", ["train.recompute=layer"]), (", divided", ["train.shard=optimizer"])]:
            got = bench.run(model, bench.options.gpus, "more", *settings, *more)
            if not got:
                continue
            files = newest(got)
            different = sorted(name for name in expected if files.get(name) != expected[name])
            bench.check(f"{model.name}{label}: 1 and {bench.options.gpus} processes write the same bytes", not different, ", ".join(different))
        shutil.rmtree(one)


def kill(bench):
    """kill -9 of a process in the middle of captured steps: all end within 10 s, the cause is named, and the run goes on."""
    print("\nA killed process")
    model = next(iter(bench.models.values()))
    settings = ["train.steps=100000", "checkpoint.every=20", "checkpoint.keep=2", f"train.batch={4 * bench.options.gpus}"]
    for victim in range(bench.options.gpus):
        name = f"killed-{victim}"
        shutil.rmtree(bench.folder / name, ignore_errors=True)
        process = subprocess.Popen(bench.command(model, bench.options.gpus, name, settings), env=bench.environment(bench.options.gpus),
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        end = time.monotonic() + bench.options.limit
        while not list((bench.folder / name).glob("checkpoints/step-????????")) and time.monotonic() < end and process.poll() is None:
            time.sleep(0.1)
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        if len(children) != bench.options.gpus:
            process.kill()
            bench.check(f"process {victim}", False, "the run did not come to its first checkpoint")
            continue
        os.kill(int(children[victim]), signal.SIGKILL)
        start = time.monotonic()
        _, said = process.communicate(timeout=120)
        took = time.monotonic() - start
        gone = all(not os.path.exists(f"/proc/{child}") for child in children)
        cause = [line for line in said.splitlines() if "killed" in line]
        bench.check(f"process {victim} killed: all ended after {took:.1f} s", took < 10 and gone and bool(cause) and process.returncode == 1,
                    (cause or said.splitlines() or [""])[-1])
        step = max(int(path.name[5:]) for path in (bench.folder / name).glob("checkpoints/step-????????"))
        more = bench.command(model, bench.options.gpus, name, [*settings[1:], f"train.steps={step + 5}", "--resume"])
        again = subprocess.run(more, env=bench.environment(bench.options.gpus), capture_output=True, text=True, timeout=bench.options.limit)
        bench.check(f"and goes on from step {step}", again.returncode == 0, "" if again.returncode == 0 else again.stderr.splitlines()[-1])
        shutil.rmtree(bench.folder / name, ignore_errors=True)


def speed(bench):
    """Weak and strong scaling, and what reduction_groups costs."""
    rows = []
    gpus = bench.options.gpus
    for model in bench.models.values():
        base = None
        cases = [("1", 1, model.batch, []), (f"{gpus}, the same batch on each", gpus, model.batch * gpus, []),
                 (f"{gpus}, the same batch in all", gpus, model.batch, []),
                 (f"{gpus}, reduction_groups={gpus}", gpus, model.batch * gpus, [f"train.reduction_groups={gpus}"])]
        for label, processes, batch, more in cases:
            run = bench.run(model, processes, "speed", f"train.batch={batch}", f"train.steps={bench.options.steps}", *more)
            if not run:
                continue
            tokens, memory, loss = measured(run)
            base = base or tokens
            rows.append([f"{model.name}, GPUs: {label}", f"{batch} x {model.context}", f"{tokens:,.0f}", f"{batch * model.context / tokens * 1e3:.1f}",
                         f"{tokens / base:.2f}", f"{memory:,.0f}", f"{loss:.4f}"])
            shutil.rmtree(run)
    table("Speed", ["run", "batch", "tokens/s", "ms/step", "times one", "MiB each", "loss"], rows)


def memory(bench):
    """What recomputation saves and costs, on one GPU."""
    rows = []
    for model in bench.models.values():
        for recompute in ("none", "layer"):
            run = bench.run(model, 1, "memory", f"train.batch={model.batch}", f"train.steps={bench.options.steps}", f"train.recompute={recompute}")
            if not run:
                continue
            tokens, mebibytes, loss = measured(run)
            rows.append([f"{model.name}, recompute = {recompute}", f"{tokens:,.0f}", f"{mebibytes:,.0f}", f"{loss:.6f}"])
            shutil.rmtree(run)
    table("Memory of one GPU", ["run", "tokens/s", "MiB", "loss"], rows)


PARTS = {"bits": bits, "kill": kill, "speed": speed, "memory": memory}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refract", required=True, type=os.path.abspath)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--models")
    parser.add_argument("--out")
    parser.add_argument("--limit", type=float, default=240, help="seconds for one run")
    parser.add_argument("--cpu", action="store_true")
    bench = Bench(parser.parse_args())
    for part in bench.options.only.split(","):
        PARTS[part](bench)
    if not bench.options.out:
        shutil.rmtree(bench.folder)
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
