"""Runs programs of libFuzzer's side by side, prints a table and leaves it, the corpora and the findings in a folder.

fuzz_targets.py BIN OUT [--seconds 60] [--at-once N] [--inputs FOLDER]... [--merge] [TARGET...]

BIN holds fuzz_<target>; each FOLDER of --inputs has <target>/ with files to start from, and OUT/corpus/<target>/ keeps what a
run adds. Where there are more cores (--at-once, by default all) than targets, a target runs in several processes over one
corpus. A target that found something starts again until its time is over. --merge leaves OUT/corpora.tar.xz, minimised, and
OUT/findings.tar.xz. The exit code is 1 where anything was found.
"""
import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import time

LIMITS = ["-timeout=25", "-report_slow_units=25", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]
MOST_FINDINGS = 20  # of one process; after that the same one comes again and again
Row = collections.namedtuple("Row", "target seconds inputs edges corpus findings")


def environment(folder):
    added = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=0:handle_abort=1", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}
    if (folder / "lib").is_dir():  # of a pack
        added["LD_LIBRARY_PATH"] = str((folder / "lib").resolve())
    return {**os.environ, **added}


class Target:
    def __init__(self, options, name):
        self.name, self.seconds, self.seed = name, options.seconds, options.seed
        self.program = options.bin / f"fuzz_{name}"
        self.environment = environment(options.bin)
        self.corpus, self.log = options.out / "corpus" / name, options.out / "logs" / f"{name}.log"
        self.findings = options.out / "findings"
        for folder in (self.corpus, self.log.parent, self.findings):
            folder.mkdir(parents=True, exist_ok=True)
        self.inputs = [str(folder / name) for folder in options.inputs if (folder / name).is_dir()]

    def found(self):
        return sorted(path for path in self.findings.iterdir() if path.name.startswith(f"{self.name}-"))

    def run(self, worker):
        """Until the time is over; (seconds, inputs, edges)."""
        start, inputs, edges, failures = time.monotonic(), 0, 0, 0
        while (left := self.seconds - (time.monotonic() - start)) >= 1 and failures < MOST_FINDINGS:
            command = [str(self.program), f"-max_total_time={int(left)}", f"-artifact_prefix={self.findings}/{self.name}-", *LIMITS,
                       *([f"-seed={self.seed + worker + 1000 * failures}"] if self.seed else []), str(self.corpus), *self.inputs]
            log = self.log.with_suffix(f".{worker}.{failures}.log")
            with open(log, "wb") as out:
                code = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=self.environment, check=False).returncode
            text = log.read_text(errors="replace")
            executed = re.findall(r"stat::number_of_executed_units: *(\d+)", text) or re.findall(r"^#(\d+)", text, re.M) or ["0"]
            inputs += int(executed[-1])
            edges = max([edges, *map(int, re.findall(r"cov: (\d+)", text))])
            if code == 0:
                break
            failures += 1
            if not self.found():
                raise SystemExit(f"fuzz_{self.name} ended with exit code {code} and found nothing; see {log}")
        return time.monotonic() - start, inputs, edges

    def merge(self, into):
        folder = into / self.name
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(self.program), "-merge=1", "-max_total_time=120", *LIMITS, str(folder), str(self.corpus), *self.inputs]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment, check=False)


def measure(targets, at_once):
    """One row for each target, in their order."""
    workers = max(1, at_once // len(targets))
    with concurrent.futures.ThreadPoolExecutor(max(at_once, 1)) as pool:
        running = {target: [pool.submit(target.run, worker) for worker in range(workers)] for target in targets}
        for target, tasks in running.items():
            seconds, inputs, edges = zip(*(task.result() for task in tasks))
            yield Row(target.name, sum(seconds), sum(inputs), max(edges), sum(1 for _ in target.corpus.iterdir()), len(target.found()))


def line(row):
    return (f"{row.target:16} {row.seconds:9.0f} {row.inputs:13} {row.inputs / max(row.seconds, 1):9.0f} {row.edges:7} {row.corpus:7} "
            f"{row.findings:9}")


def pack(path, folder):
    with tarfile.open(path, "w:xz") as archive:
        archive.add(folder, folder.name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers; 0: another one each time")
    parser.add_argument("--at-once", type=int, default=os.cpu_count())
    parser.add_argument("--inputs", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--merge", action="store_true")
    options = parser.parse_intermixed_args()
    names = options.targets or sorted(path.name[len("fuzz_"):] for path in options.bin.iterdir() if path.name.startswith("fuzz_") and not path.suffix)
    missing = [name for name in names if not (options.bin / f"fuzz_{name}").exists()]
    if missing or not names:
        sys.exit(f"there is no target {', '.join(missing)}" if missing else f"'{options.bin}' holds no fuzz_<target>")
    targets = [Target(options, name) for name in names]
    head = f"{'target':16} {'seconds':>9} {'inputs':>13} {'a second':>9} {'edges':>7} {'corpus':>7} {'findings':>9}"
    print(head, flush=True)
    rows = []
    for row in measure(targets, options.at_once):
        rows.append(row)
        print(line(row), flush=True)
    (options.out / "table.txt").write_text("\n".join([head, *map(line, rows)]) + "\n")
    if options.merge:
        merged = options.out / "corpora"
        shutil.rmtree(merged, ignore_errors=True)
        with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(lambda target: target.merge(merged), targets))
        pack(options.out / "corpora.tar.xz", merged)
        pack(options.out / "findings.tar.xz", options.out / "findings")
    return 1 if any(row.findings for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
