"""A run of refract in MLflow: python -m refract.mlflow RUN [--experiment NAME] [--tracking URI]

Brings the settings, the metrics and the files (config.toml, samples, report) of a run's folder into an experiment. Call it
when the run has stopped: the same folder is always the same run there, and what a resumed run adds is added.
"""
import argparse
import math
import pathlib
import sys

from refract.wandb import RunError, identity_of, settings_of, steps_of

IDENTITY, SENT = "refract.run", "refract.step"  # tags: by which the run is found again, and the last step that it has


def flat(table, prefix=""):
    """{"train.steps": "100", ...}; MLflow takes 6,000 characters of a value."""
    for key, value in table.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", str(value)[:6000])]


def bring(run, experiment="refract", tracking=None):
    """Brings the folder `run` into `experiment` of `tracking`; returns the number of steps that were sent."""
    run = pathlib.Path(run)
    settings, steps = settings_of(run), steps_of(run)
    if not steps:
        raise RunError(f"{run} has no metrics yet; wait for the first log point (log.every)")
    try:
        import mlflow
        from mlflow.entities import Metric, Param, RunTag
    except ModuleNotFoundError:
        raise RunError("the package mlflow is missing; install it: pip install mlflow") from None
    try:
        client, identity = mlflow.MlflowClient(tracking), identity_of(run)
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        began = int(min(values["time"] for values in steps.values()) * 1000)
        there = (client.search_runs([number], f"tags.`{IDENTITY}` = '{identity}'") or
                 [client.create_run(number, began, {IDENTITY: identity}, run.resolve().name)])[0]
        # A setting that a resumed run changed stays as it was first, which MLflow wants; config.toml has the new one.
        new = [Param(key, value) for key, value in flat(settings) if key not in there.data.params]
        for i in range(0, len(new), 100):  # the most of a request
            client.log_batch(there.info.run_id, params=new[i:i + 100])
        later = {step: values for step, values in steps.items() if step > int(there.data.tags.get(SENT, -1))}
        for step, values in later.items():
            numbers = [Metric(key, value, int(values["time"] * 1000), step) for key, value in values.items()
                       if key != "time" and isinstance(value, (int, float)) and math.isfinite(value)]
            client.log_batch(there.info.run_id, numbers, tags=[RunTag(SENT, str(step))])
        for name in filter(lambda name: (run / name).exists(), ("config.toml", "samples.jsonl", "report.html")):
            client.log_artifact(there.info.run_id, str(run / name))
        client.set_terminated(there.info.run_id)
    except mlflow.exceptions.MlflowException as error:
        raise RunError(f"MLflow refuses it: {str(error).splitlines()[0]}") from None
    return len(later)


def main():
    parser = argparse.ArgumentParser(prog="python -m refract.mlflow", description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", help="the folder of a run (its run.dir)")
    parser.add_argument("--experiment", default="refract", help="experiment in MLflow (default: refract)")
    parser.add_argument("--tracking", help="a server or database as MLflow names it (default: MLFLOW_TRACKING_URI, or MLflow's own)")
    arguments = parser.parse_args()
    try:
        print(f"{arguments.run}: {bring(arguments.run, arguments.experiment, arguments.tracking)} steps brought into {arguments.experiment}")
    except RunError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
