"""A run of refract in Weights & Biases: python -m refract.wandb RUN [--project NAME] [--offline]

Brings the settings, the metrics, the sampled texts and the report of a run's folder into a project, under the run's own times. It
may be called while the run trains and again afterwards: the same folder is always the same run there, and what W&B
has already is not sent again.
"""
import argparse
import hashlib
import json
import pathlib
import sys

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


class RunError(Exception):
    """A folder that can't be brought over: one line that says why, and what to do."""


def lines_of(path):
    """The objects of a .jsonl file; a last line that a running program has not finished is left out."""
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RunError(f"{path}, line {number} is not JSON ({error}); is it a run's file?") from None


def settings_of(run):
    try:
        return tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{run} has no config.toml, so it is not a run's folder; give the run.dir of a training") from None
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"{run / 'config.toml'} can't be read: {error}") from None


def steps_of(run):
    """{step: values} in the order of the steps. A resumed run writes steps again: the later values count."""
    steps = {}
    for line in lines_of(run / "metrics.jsonl"):
        steps.setdefault(int(line["step"]), {}).update({key: value for key, value in line.items() if key != "step"})
    return dict(sorted(steps.items()))


def samples_of(run):
    return list({line["step"]: (line["step"], line["text"]) for line in lines_of(run / "samples.jsonl")}.values())


def identity_of(run):
    """W&B's id of a run: of the folder's place and of its first start, so that a new run in an old place is another."""
    first = next(lines_of(run / "starts.jsonl"), {})
    return hashlib.sha256(f"{run.resolve()} {json.dumps(first, sort_keys=True)}".encode()).hexdigest()[:16]


def bring(run, project="refract", offline=False):
    """Brings the folder `run` into `project`; returns the number of steps that were sent."""
    run = pathlib.Path(run)
    settings, steps, samples = settings_of(run), steps_of(run), samples_of(run)
    if not steps:
        raise RunError(f"{run} has no metrics yet; wait for the first log point (log.every)")
    try:
        import wandb
    except ModuleNotFoundError:
        raise RunError("the package wandb is missing; install it: pip install wandb") from None
    mode = "offline" if offline else "online"
    with wandb.init(project=project, id=identity_of(run), name=run.resolve().name, config=settings, mode=mode, resume="allow") as there:
        there.define_metric("*", step_metric="step")
        new = [step for step in steps if step >= there.step]  # W&B refuses steps that it has
        for step in new:
            there.log({"step": step, **steps[step]}, step=step)
        if new and samples:
            there.log({"samples": wandb.Table(columns=["step", "text"], data=samples)}, step=new[-1])
        if new and (run / "report.html").exists():
            there.log({"report": wandb.Html((run / "report.html").read_text(encoding="utf-8"), inject=False)}, step=new[-1])
        there.summary["tokens"] = next((v["tokens"] for v in reversed(steps.values()) if "tokens" in v), None)
    return len(new)


def main():
    parser = argparse.ArgumentParser(prog="python -m refract.wandb", description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", help="the folder of a run (its run.dir)")
    parser.add_argument("--project", default="refract", help="project in Weights & Biases (default: refract)")
    parser.add_argument("--offline", action="store_true", help="write below ./wandb only; `wandb sync FOLDER` sends it later")
    arguments = parser.parse_args()
    try:
        sent = bring(arguments.run, arguments.project, arguments.offline)
    except RunError as error:
        sys.exit(f"error: {error}")
    print(f"{arguments.run}: {sent} steps brought into {arguments.project}{' (offline)' if arguments.offline else ''}")


if __name__ == "__main__":
    main()
