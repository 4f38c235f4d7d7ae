"""Time of one training step: plain PyTorch, eager and compiled, and refract, in one run.

    .venv/bin/python benchmarks/compare/train_step.py tinygpt --refract ./refract
    .venv/bin/python benchmarks/compare/train_step.py gpt2 --device cuda --refract ./refract --json gpt2.json

A step is forward, backward, clipping to norm 1 and the optimizer. Every contestant runs in a process of its own, in
turn, for several rounds, so that a machine that warms up or is shared treats all alike; the figure is the median of
the rounds' medians. On CUDA, gpt2 uses bf16 (autocast over fp32 parameters in PyTorch, bf16 with fp32 master weights
in refract), and everything else fp32, with TF32 where --tf32 asks for it.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import gpt

HERE = pathlib.Path(__file__).resolve().parent

# Dense bf16, TF32 and fp32 peaks in 1e12 operations per second; sources stand in src/analysis/peak.cpp.
PEAKS = {
    "H100 PCIe": (756, 378, 51),
    "H100 NVL": (835.5, 417.5, 60),
    "H100": (989.5, 494.5, 67),
    "H200 NVL": (835.5, 417.5, 60),
    "H200": (989.5, 494.5, 67),
    "A100": (312, 156, 19.5),
}


@dataclasses.dataclass
class Result:
    name: str
    step_ms: float
    tokens_per_second: float
    memory_mib: float | None  # peak of the device's memory, on a CPU of the process's
    mfu: float | None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=gpt.PRESETS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: bf16 for gpt2 on cuda, else fp32")
    parser.add_argument("--tf32", action="store_true", help="let fp32 products run as TF32")
    parser.add_argument("--batch", type=int, help="sequences per step (default: the preset's)")
    parser.add_argument("--steps", type=int, default=100, help="timed steps per round")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="eager,compiled,refract", help="contestants, with commas between")
    parser.add_argument("--compile-mode", default="default", help="torch.compile's mode")
    parser.add_argument("--pad-vocab", type=int,
                        help="round PyTorch's vocabulary up to a multiple (default: 128 on cuda, which its GEMMs "
                             "want, 1 on cpu)")
    parser.add_argument("--refract", help="the refract program; without it only PyTorch runs")
    parser.add_argument("--recipe", help="a recipe for refract instead of the one made from the preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings for refract")
    parser.add_argument("--json", help="write the results here too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = gpt.PRESETS[options.preset]
    options.batch = options.batch or size.batch
    if options.precision is None:
        options.precision = "bf16" if (options.preset, options.device) == ("gpt2", "cuda") else "fp32"
    if options.pad_vocab is None:
        options.pad_vocab = 128 if options.device == "cuda" else 1
    return options


# --- One PyTorch contestant, in its own process ---


def make_step(options, compiled: bool):
    """A function of the batch's number that does one step on random tokens that lie on the device."""
    import torch

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    size = gpt.PRESETS[options.preset]
    padded = -(-size.vocab // options.pad_vocab) * options.pad_vocab
    model = gpt.Gpt(dataclasses.replace(size, vocab=padded)).to(options.device)
    decay = 0.1 if options.preset == "gpt2" else 0.0
    optimizer = gpt.make_optimizer(model, weight_decay=decay)
    loss_of = torch.compile(model, mode=options.compile_mode) if compiled else model
    data = torch.randint(size.vocab, (8, options.batch, size.context + 1), device=options.device)
    bf16 = options.precision == "bf16"

    def step(number: int):
        batch = data[number % len(data)]
        with torch.autocast(options.device, torch.bfloat16, enabled=bf16):
            loss = loss_of(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def time_steps_cuda(step, count: int) -> list[float]:
    """Milliseconds of each step between events on the stream: the host is never waited for in between."""
    import torch

    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for number in range(count):
        step(number)
        events[number + 1].record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in zip(events, events[1:])]


def time_steps_cpu(step, count: int) -> list[float]:
    times = []
    for number in range(count):
        start = time.perf_counter()
        step(number)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def run_worker(options) -> dict:
    import torch

    step = make_step(options, compiled=options.worker == "compiled")
    for number in range(options.warmup):
        loss = step(number)
    if not torch.isfinite(loss):
        raise SystemExit(f"the loss of {options.worker} is {loss.item()} after the warm-up")
    cuda = options.device == "cuda"
    times = (time_steps_cuda if cuda else time_steps_cpu)(step, options.steps)
    memory = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"step_ms": statistics.median(times), "memory_bytes": memory,
            "device": torch.cuda.get_device_name() if cuda else "cpu", "threads": torch.get_num_threads()}


# --- The contestants, seen from outside ---


def run_pytorch(name: str, options) -> dict:
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"PyTorch ({name}) failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def recipe_of(options, folder: str) -> str:
    """refract's settings for the same step. Any text does for its speed; the vocabulary's size is what counts."""
    size = gpt.PRESETS[options.preset]
    decay = 0.1 if options.preset == "gpt2" else 0.0
    return f"""
[data]
path = "stories:4MB"
tokenizer = "chars"
context = {size.context}
cache = "{folder}/tokens"
[model]
preset = "{options.preset}"
vocab_size = {size.vocab}
[optimizer]
name = "{'adamw' if decay else 'adam'}"
lr = 6e-4
betas = [0.9, 0.95]
weight_decay = {decay}
clip = 1.0
[schedule]
kind = "constant"
[train]
batch = {options.batch}
precision = "{options.precision}"
device = "{options.device}"
[eval]
every = 0
batches = "1"
samples = 0
[checkpoint]
every = 0
"""


def run_refract(options) -> dict:
    """Trains for warm-up and timed steps and reads the run's own metrics: the median of its log points."""
    with tempfile.TemporaryDirectory(prefix="refract-compare-") as folder:
        recipe = pathlib.Path(options.recipe or pathlib.Path(folder) / "recipe.toml")
        if not options.recipe:
            recipe.write_text(recipe_of(options, folder))
        run = pathlib.Path(folder) / "run"
        every = max(1, min(10, options.steps // 10))
        command = [options.refract, "train", str(recipe), f"run.dir={run}",
                   f"train.steps={options.warmup + options.steps}", f"log.every={every}", *options.set]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{output[-4000:]}")
        return read_metrics(run / "metrics.jsonl", options, 1024 * usage.ru_maxrss)


def read_metrics(path: pathlib.Path, options, resident: int) -> dict:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    timed = [line for line in lines if line["step"] > options.warmup and line.get("tokens_per_second")]
    if not timed:
        raise SystemExit(f"{path} has no line with tokens_per_second after step {options.warmup}")
    tokens = options.batch * gpt.PRESETS[options.preset].context
    times = [line.get("step_ms") or 1e3 * tokens / line["tokens_per_second"] for line in timed]
    memory = resident
    if options.device == "cuda":
        memory = max((line.get("memory_bytes") or 0 for line in timed), default=0) or None
    return {"step_ms": statistics.median(times), "memory_bytes": memory}


# --- The table ---


def peak_of(device: str, options) -> float | None:
    for name, peaks in PEAKS.items():
        if all(word in device for word in name.split()):
            return 1e12 * peaks[0 if options.precision == "bf16" else 1 if options.tf32 else 2]
    return None


def summarise(name: str, rounds: list[dict], device: str, options) -> Result:
    size = gpt.PRESETS[options.preset]
    step_ms = statistics.median(r["step_ms"] for r in rounds)
    tokens_per_second = 1e3 * options.batch * size.context / step_ms
    memory = [r["memory_bytes"] for r in rounds if r["memory_bytes"]]
    peak = peak_of(device, options)
    mfu = tokens_per_second * gpt.training_flops_per_token(size) / peak if peak else None
    return Result(name, step_ms, tokens_per_second, max(memory) / 2**20 if memory else None, mfu)


def print_table(results: list[Result], rounds: dict[str, list[dict]]):
    print(f"{'':<10}{'step ms':>10}{'rounds':>24}{'tokens/s':>12}{'peak MiB':>10}{'MFU':>8}")
    for r in results:
        each = " ".join(f"{x['step_ms']:.4g}" for x in rounds[r.name])
        memory = f"{r.memory_mib:.0f}" if r.memory_mib else "-"
        mfu = f"{100 * r.mfu:.1f}%" if r.mfu else "-"
        print(f"{r.name:<10}{r.step_ms:>10.4g}{each:>24}{r.tokens_per_second:>12.0f}{memory:>10}{mfu:>8}")


def main():
    options = parse_arguments()
    if options.worker:
        print(json.dumps(run_worker(options)))
        return
    names = [n for n in options.only.split(",") if n != "refract" or options.refract]
    if unknown := set(names) - {"eager", "compiled", "refract"}:
        raise SystemExit(f"--only: there is no contestant {sorted(unknown)[0]!r}; there are eager, compiled, refract")
    rounds = {name: [] for name in names}
    device, threads = options.device, None
    for number in range(options.rounds):
        for name in names:
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr)
            result = run_refract(options) if name == "refract" else run_pytorch(name, options)
            rounds[name].append(result)
            device, threads = result.get("device", device), result.get("threads", threads)
    results = [summarise(name, rounds[name], device, options) for name in names]
    print(f"{options.preset}, batch {options.batch}, {options.precision}{', TF32' if options.tf32 else ''}, {device}"
          f"{f', {threads} threads' if options.device == 'cpu' and threads else ''}")
    print_table(results, rounds)
    report = {"preset": options.preset, "batch": options.batch, "precision": options.precision, "tf32": options.tf32,
              "device": device, "steps": options.steps, "results": [dataclasses.asdict(r) for r in results],
              "rounds": rounds}
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
