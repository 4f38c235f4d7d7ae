#!/usr/bin/env python3
"""Kills a random process of a run at a random instant, again and again: all of them must end within 10 s and name the first cause, and the
run, resumed after each, must end in the bytes of one that nobody disturbed.

  tests/reliability/kill_processes.py [--refract ./refract] [--kills 50] [--processes 4] [--seed 1] [settings ...]

Settings are those of a training command, for example train.shard=optimizer. About four minutes on two cores.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cli"))
from conftest import RECIPE  # noqa: E402
from several import Kills, clean_environment, newest_files  # noqa: E402

LONGEST = 4  # seconds to a kill


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refract", default=ROOT / "refract", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    program = options.refract.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE)
        settings = ["train.batch=8", "train.reduction_groups=4", "checkpoint.every=10", "checkpoint.keep=2", "eval.every=0",
                    f"train.steps={options.steps}", *options.settings]
        subprocess.run([str(program), "train", "recipe.toml", *settings, "run.dir=undisturbed"], cwd=folder, check=True,
                       env=clean_environment(folder), capture_output=True)
        kills = Kills(program, folder, options.processes, ["recipe.toml", *settings], random.Random(options.seed))
        longest, done = 0, 0
        while done < options.kills:
            lost = kills.kill_one(LONGEST, "--resume")
            if lost is None:
                print(f"the run was done after {done} kills: more train.steps are needed")
                return 1
            done += 1
            longest = max(longest, lost[0])
            reached = [path.name for path in folder.glob("run/checkpoints/step-????????")]
            print(f"kill {done}: all ended after {lost[0]:.2f} s; {max(reached, default='no checkpoint yet')}", flush=True)
            if lost[0] >= 10:
                print(lost[1])
                return 1
        kills.finish("--resume")
        expected, files = newest_files(folder / "undisturbed"), newest_files(folder / "run")
        different = [file for file in expected[1] if file != "config.toml" and files[1].get(file) != expected[1][file]]
        if expected[0] != files[0] or different:
            print(f"the run ended at {files[0]} with other bytes in {different}")
            return 1
        print(f"{done} kills, the slowest end after {longest:.2f} s; the last checkpoint has the bytes of an undisturbed run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
