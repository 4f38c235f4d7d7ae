"""A model of refract under lm-evaluation-harness: python -m refract.evaluate MODEL --tasks NAMES [key=value ...]

Starts `refract serve` on a free port of this machine, lets the harness (the package lm-eval) score it through OpenAI's protocol,
stops it, and writes evaluation.json into the run, whose report then shows it. So a model in any medium is judged by the tasks that
everybody uses. Tasks are names of the harness or files of one's own (--include-path). key=value settings go to the program:
data.tokenizer=..., train.device=cpu, transform=[...].
"""
import argparse
import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

LOCAL = {"json", "csv", "text", "parquet", "arrow", "pandas", "sql", "generator"}  # loaders of `datasets` that read given files


class EvaluationError(Exception):
    """One line that says what is wrong, and what to do."""


def program():
    """The words that start the program."""
    installed = pathlib.Path(__file__).resolve().parent / "_program" / "bin" / "refract"
    if installed.exists() and not os.environ.get("REFRACT_PROGRAM"):  # of a wheel
        return [sys.executable, "-m", "refract.program"]
    return [program_path()]


def program_path():
    given = os.environ.get("REFRACT_PROGRAM")
    checkout = pathlib.Path(__file__).resolve().parents[2]
    places = [pathlib.Path(given)] if given else [checkout / "build" / "release" / "bin" / "refract", checkout / "bin" / "refract"]
    for place in places:
        if place.exists():
            return str(place)
    found = None if given else shutil.which("refract")
    if found:
        return found
    raise EvaluationError(f"the program was not found ({', '.join(map(str, places))}); build it (make demo), or set REFRACT_PROGRAM to it")


@contextlib.contextmanager
def served(model, settings=(), slots=4):
    """The model behind HTTP, for as long as the block runs: {"url", "model", "folder"}."""
    command = [*program(), "serve", str(model), *settings, "--port", "0", "--json", "--slots", str(slots), "--grace", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "REFRACT_SERVE_TOKEN"}  # the harness sends none
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            line = process.stdout.readline()
            if not line:
                process.wait()
                errors.seek(0)
                raise EvaluationError(f"the model can't be served: {(errors.read().strip().splitlines() or ['no reason given'])[-1]}")
            yield json.loads(line)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def get_json(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def harness_arguments(server, concurrent=4):
    """What `local-completions` needs to know of a server."""
    info = get_json(server["url"] + "/tokenizer_info")
    context = info["max_model_len"]
    arguments = {"model": server["model"], "base_url": server["url"] + "/v1/completions", "num_concurrent": concurrent, "max_retries": 3,
                 "max_length": context + 1,  # it takes off one for the token that it asks for, which needs no place here
                 "max_gen_toks": min(256, max(1, context // 2)), "tokenizer_backend": "remote", "timeout": 3600}
    if info["eos_token"] is None and info["bos_token"] is None:  # a text without context begins with this one
        arguments["custom_prefix_token_id"] = info["start_token_id"]
    return arguments


def entries_below(manager, name, seen=None):
    """The single tasks that a name stands for, as the harness indexes them."""
    seen = set() if seen is None else seen
    entry = manager.task_index.get(name)
    if entry is None or name in seen:
        return
    seen.add(name)
    children = (entry.cfg or {}).get("task")
    children = children if isinstance(children, list) else [other for other, e in manager.task_index.items() if name in e.tags]
    if not children:
        yield entry
    for child in children:
        child = child if isinstance(child, str) else child.get("task", child.get("group"))
        if isinstance(child, str):
            yield from entries_below(manager, child, seen)


def downloads(manager, tasks):
    """{data set: a task that wants it} of those that come from the Hub and not from files."""
    wanted = {}
    for task in tasks:
        for entry in entries_below(manager, task):
            path = (entry.cfg or {}).get("dataset_path")
            if path and path not in LOCAL and not os.path.exists(path):
                wanted.setdefault(path, entry.name)
    return wanted


def finite(value):
    """NaN and infinities, and what is no number ("N/A"), as null."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def records_of(results, limit, settings, now):
    """{task: what evaluation.json says of it} from what the harness returns."""
    records = {}
    for task, values in results["results"].items():
        metrics = []
        for key, value in values.items():
            name, _, given = key.partition(",")
            if not given or name.endswith("_stderr") or finite(value) is None:
                continue
            higher = results.get("higher_is_better", {}).get(task, {}).get(name)
            metrics.append({"name": name, "filter": given, "value": value, "stderr": finite(values.get(f"{name}_stderr,{given}")),
                            "higher_is_better": higher})
        if not metrics:
            continue  # the head of a group
        samples = results.get("n-samples", {}).get(task, {})
        records[task] = {"metrics": metrics, "version": results["versions"].get(task), "num_fewshot": results.get("n-shot", {}).get(task),
                         "samples": samples.get("effective"), "limit": limit, "settings": list(settings), "time": now}
    return records


def run_of(folder):
    """The run that a checkpoint's folder belongs to, or the folder itself."""
    folder = pathlib.Path(folder)
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder


def write(path, model, records):
    """Adds the records to what the file has of other tasks, in one rename."""
    tree = {"tasks": {}}
    if path.exists():
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            tree["tasks"].items()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise EvaluationError(f"{path} is not what this module writes; move it away") from None
    for task, record in records.items():
        tree["tasks"][task] = {"model": str(model), **record}
    tree["harness"] = f"lm-eval {importlib.metadata.version('lm_eval')}"
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def harness():
    try:
        import lm_eval
        import lm_eval.tasks
    except ModuleNotFoundError as error:
        raise EvaluationError(f"the package {error.name} is missing; install the harness: pip install 'lm-eval[api]==0.4.13'") from None
    return lm_eval


def evaluate(model, tasks, settings=(), include_path=None, limit=None, num_fewshot=None, concurrent=4):
    """Scores the model; returns (its folder, {task: record})."""
    lm_eval = harness()
    manager = lm_eval.tasks.TaskManager(include_path=include_path)
    for task in tasks:
        if task not in manager.task_index and not os.path.exists(task):
            raise EvaluationError(f"the harness has no task '{task}'; lm-eval ls tasks lists them, --include-path adds a folder of one's own")
    wanted = downloads(manager, tasks)
    for path, task in wanted.items():
        print(f"task {task} takes its data set {path} from the Hugging Face Hub: a download, where it is not in the cache", file=sys.stderr)
    with served(model, settings, concurrent) as server:
        model_arguments = harness_arguments(server, concurrent)
        try:
            results = lm_eval.simple_evaluate(model="local-completions", model_args=model_arguments, tasks=list(tasks),
                                              num_fewshot=num_fewshot, limit=limit, task_manager=manager, log_samples=False)
        except (OSError, ValueError) as error:  # what `datasets` says where it can't reach the Hub
            if not wanted:
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EvaluationError(f"the data set {next(iter(wanted))} could not be had from the Hub: {reason}") from error
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return pathlib.Path(server["folder"]), records_of(results, limit, settings, now)


def shown(value):
    return "" if value is None else f"{value:.4f}"


def main():
    parser = argparse.ArgumentParser(prog="python -m refract.evaluate", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", help="a run, a checkpoint, or a Hugging Face folder")
    parser.add_argument("settings", nargs="*", help="key=value settings for the program")
    parser.add_argument("--tasks", required=True, help="names of tasks with commas between them")
    parser.add_argument("--include-path", help="a folder with tasks of one's own")
    parser.add_argument("--limit", type=float, help="documents of each task, or below 1 their share: for a first try")
    parser.add_argument("--num-fewshot", type=int, help="examples before each question; default: the task's own number")
    parser.add_argument("--concurrent", type=int, default=4, help="requests at a time")
    parser.add_argument("--out", help="the file to write; default: evaluation.json in the run's folder")
    arguments = parser.parse_intermixed_args()
    try:
        tasks = [task for task in arguments.tasks.split(",") if task]
        folder, records = evaluate(arguments.model, tasks, arguments.settings, arguments.include_path, arguments.limit, arguments.num_fewshot,
                                   arguments.concurrent)
        run = run_of(folder)
        path = pathlib.Path(arguments.out) if arguments.out else run / "evaluation.json"
        write(path, folder, records)
        if not arguments.out and (run / "metrics.jsonl").exists():
            subprocess.run([*program(), "report", str(run)], check=True)
    except EvaluationError as error:
        sys.exit(f"error: {error}")
    for task, record in records.items():
        for metric in record["metrics"]:
            plus_minus = f" +- {shown(metric['stderr'])}" if metric["stderr"] is not None else ""
            print(f"{task}: {metric['name']} {shown(metric['value'])}{plus_minus}")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
