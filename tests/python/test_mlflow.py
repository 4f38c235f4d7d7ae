"""python -m refract.mlflow with the real package and a folder of files as its store; what it has is asked of the package."""
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from refract import mlflow as tracking

SETTINGS = """
[train]
steps = 4
device = "cpu"
[model]
hidden_size = 32
"""
METRICS = """{"step":0,"time":1700000000.5,"validation_loss":3.5}
{"step":2,"time":1700000001.5,"loss":2.5,"mean_loss":null}
{"step":4,"time":1700000002.5,"loss":2.25}
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my-run"
    folder.mkdir()
    (folder / "config.toml").write_text(SETTINGS)
    (folder / "metrics.jsonl").write_text(METRICS)
    (folder / "starts.jsonl").write_text('{"time": 1700000000.25}\n')
    (folder / "report.html").write_text("<html>curves</html>")
    return folder


@pytest.fixture
def client(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (pip install mlflow-skinny)")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient(f"file:{tmp_path}/store")


def bring(tmp_path, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "MLFLOW_ALLOW_FILE_STORE": "true"}
    return subprocess.run([sys.executable, "-m", "refract.mlflow", *map(str, arguments), "--tracking", f"file:{tmp_path}/store"],
                          cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_brings_settings_metrics_and_files_and_later_what_is_new(client, run, tmp_path):
    done = bring(tmp_path, run, "--experiment", "optics")
    assert (done.returncode, done.stdout) == (0, f"{run}: 3 steps brought into optics\n"), done.stderr
    (run / "metrics.jsonl").write_text(METRICS + '{"step":6,"time":1700000003.5,"loss":2.0}\n{"step":8,"lo')
    (run / "config.toml").write_text(SETTINGS.replace("steps = 4", "steps = 6"))
    assert bring(tmp_path, run, "--experiment", "optics").stdout == f"{run}: 1 steps brought into optics\n"

    [there] = client.search_runs([client.get_experiment_by_name("optics").experiment_id])
    assert there.data.params == {"train.steps": "4", "train.device": "cpu", "model.hidden_size": "32"}
    assert (there.info.run_name, there.info.status, there.info.start_time) == ("my-run", "FINISHED", 1700000000500)
    losses = client.get_metric_history(there.info.run_id, "loss")
    assert sorted((m.step, m.value, m.timestamp) for m in losses) == [
        (2, 2.5, 1700000001500), (4, 2.25, 1700000002500), (6, 2.0, 1700000003500)]
    assert set(there.data.metrics) == {"loss", "validation_loss"}
    assert {file.path for file in client.list_artifacts(there.info.run_id)} == {"config.toml", "report.html"}
    assert "steps = 6" in (tmp_path / "store" / there.info.experiment_id / there.info.run_id / "artifacts/config.toml").read_text()


def test_another_start_in_the_same_place_is_another_run(client, run, tmp_path):
    assert bring(tmp_path, run).returncode == 0
    (run / "starts.jsonl").write_text('{"time": 1800000000.0}\n')
    assert bring(tmp_path, run).returncode == 0
    assert len(client.search_runs([client.get_experiment_by_name("refract").experiment_id])) == 2


def test_what_mlflow_refuses_is_one_line(client, run, tmp_path):
    done = bring(tmp_path, run, "--experiment", "")
    assert done.returncode == 1 and done.stderr.startswith("error: MLflow refuses it: "), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    with pytest.raises(tracking.RunError, match="pip install mlflow"):
        tracking.bring(run)


def test_a_run_without_metrics_is_named(run):
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(tracking.RunError, match="no metrics yet"):
        tracking.bring(run)
