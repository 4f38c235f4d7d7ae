"""python -m refract.wandb with the real package in its offline mode; what it wrote is read back from its own file."""
import json
import os
import pathlib
import struct
import subprocess
import sys

import pytest

from conftest import ROOT
from refract import wandb as tracking


@pytest.fixture
def run(refract, tmp_path):
    folder = tmp_path / "my-run"
    refract("train", ROOT / "recipes/demo.toml", f"run.dir={folder}", "data.path=stories:200KB", "train.minutes=0", "train.steps=6", "train.batch=2",
            "model.num_hidden_layers=1", "log.every=2", "eval.every=3", "eval.batches=1", "eval.samples=1", "eval.sample_tokens=8", "checkpoint.every=100")
    return folder


def bring(cwd, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    return subprocess.run([sys.executable, "-m", "refract.wandb", *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True)


def records(path):
    """The records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at:at + 7])
        if kind == 0:
            break
        parts.append(data[at + 7:at + 7 + length])
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            yield record
            parts = []


def test_brings_settings_metrics_samples_and_report(run, tmp_path):
    done = bring(tmp_path, run, "--project", "optics", "--offline")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run}: 5 steps brought into optics (offline)\n"  # 0, 2, 3, 4, 6
    [file] = pathlib.Path(tmp_path, "wandb").glob("offline-run-*/*.wandb")
    found = list(records(file))

    [start] = [record.run for record in found if record.WhichOneof("record_type") == "run"][:1]
    settings = {item.key: json.loads(item.value_json) for item in start.config.update}
    assert (start.project, start.display_name) == ("optics", "my-run")
    assert settings["train"]["steps"] == 6 and settings["model"]["num_hidden_layers"] == 1

    history = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            history[items["_step"]] = items
    for step, values in tracking.steps_of(run).items():
        assert {key: history[step][key] for key in values} == values
    assert history[6]["samples/nrows"] == len((run / "samples.jsonl").read_text().splitlines())
    media = next(pathlib.Path(tmp_path, "wandb").glob("offline-run-*/files/media"))
    [page] = media.glob("html/report*.html")
    assert page.read_text() == (run / "report.html").read_text()


def test_the_same_folder_is_the_same_run(run, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        assert bring(tmp_path / place, run, "--offline").returncode == 0
    assert len({file.name for file in tmp_path.glob("*/wandb/offline-run-*/*.wandb")}) == 1


@pytest.mark.parametrize("files, complaint", [
    ({}, "has no config.toml, so it is not a run's folder; give the run.dir of a training"),
    ({"config.toml": "a = 1\n"}, "has no metrics yet; wait for the first log point (log.every)"),
    ({"config.toml": "a = 1\n", "metrics.jsonl": '{"step": 1}\n<html>\n'}, "metrics.jsonl, line 2 is not JSON"),
    ({"config.toml": "a = \n", "metrics.jsonl": '{"step": 1}\n'}, "config.toml can't be read"),
])
def test_what_is_not_a_run_gets_one_line(tmp_path, monkeypatch, capsys, files, complaint):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "argv", ["refract.wandb", str(tmp_path), "--offline"])
    with pytest.raises(SystemExit) as stopped:
        tracking.main()
    assert str(stopped.value).startswith("error: ") and complaint in str(stopped.value) and "\n" not in str(stopped.value)
    assert capsys.readouterr().out == ""


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 2, "loss": 1.25}\n{"step": 3, "lo')
    assert tracking.steps_of(tmp_path) == {1: {"loss": 2.0}, 2: {"loss": 1.25}}


def test_the_package_says_what_it_has():
    import refract as package

    assert {"apply_rules", "ops"} <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing
