"""The report command: what stands in the page, and that a browser draws it."""
import json
import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

from browser import document

MODULES = ("self_attn.q_proj", "mlp.up_proj")


def make_run(folder, loss=2.0, points=40, lr=1e-3, extra=()):
    """A run's folder as train leaves it, with curves of a known form."""
    folder.mkdir(parents=True)
    lines = [{"step": 0, "time": 1.0, "validation_loss": loss + 2, "validation_perplexity": 9.0, "validation_accuracy": 0.1}]
    for step in range(10, 10 * points + 1, 10):
        value = loss + 2 * np.exp(-step / 100) + 0.1 * (step % 20 == 0)
        lines.append({"step": step, "time": 1.0, "loss": value, "mean_loss": value, "perplexity": float(np.exp(min(value, 700))),
                      "grad_norm": 1 + 1 / step, "learning_rate": lr, "step_ms": 3.0, "tokens_per_second": 1000.0 + step,
                      "memory_bytes": 2.0**28, "tokens": 100.0 * step})
        if step % 100 == 0:
            lines.append({"step": step, "time": 1.0, "validation_loss": value, "validation_perplexity": float(np.exp(min(value, 700))),
                          "validation_accuracy": 0.5})
    lines += extra
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step":99999,"lo')
    (folder / "config.toml").write_text(f"[run]\ndir = \"{folder.name}\"\nseed = 1\n[optimizer]\nlr = {lr}\n")
    (folder / "samples.jsonl").write_text('{"step":0,"text":"zxq"}\n{"step":400,"text":"One <b>day</b> & night"}\n')
    return folder


def add_transforms(run):
    (run / "transforms.toml").write_text(
        "# 4 modules, 4096 -> 512 parameters\n[[transform]]\nkind = \"low_rank\"\nmatch = 'model\\.layers\\.\\d+\\.mlp\\.up_proj'\n"
        "rank = 4\n\n# left alone: 12 modules, 12288 -> 12288 parameters\n")


def add_ranges(run, layers=4):
    for step in (100, 200, 400):
        folder = run / "checkpoints" / f"step-{step:08}"
        folder.mkdir(parents=True)
        save_file({f"model.layers.{layer}.{module}.{role}_range": np.array([-layer - step / 400, 1.0], np.float32)
                   for layer in range(layers) for module in MODULES for role in ("x", "out")}
                  | {"model.layers.0.self_attn.ranges": np.arange(10, dtype=np.float32).reshape(5, 2)},
                  folder / "buffers.safetensors")


def lines_drawn(dom):
    """The curves in the document: name of the plot's caption -> points of each path."""
    drawn = {}
    for caption, body in re.findall(r"<figcaption>(.*?)</figcaption>(.*?)</figure>", dom, re.S):
        paths = re.findall(r'<path class="js-line"[^>]* d="([^"]*)"', body)
        points = [len(re.findall(r"[-\d.]+,[-\d.]+", path)) for path in paths]
        drawn[caption] = [count for count in points if count > 1]  # a legend's mark has one
    return drawn


def test_a_browser_draws_every_curve_of_a_run(refract_json, tmp_path):
    run = make_run(tmp_path / "run")
    result = refract_json("report", "run")
    assert result == {"report": "run/report.html", "runs": ["run"]}
    dom = document(run / "report.html", tmp_path)
    drawn = lines_drawn(dom)
    assert len(drawn["Loss"]) == 2 and drawn["Loss"][0] >= 30 and drawn["Loss"][1] == 5
    for caption in ("Learning rate", "Gradient norm before clipping", "Speed"):
        assert len(drawn[caption]) == 1 and drawn[caption][0] >= 2, caption
    legends = re.findall(r'<text class="legendtext"[^>]*>(.*?)</text>', dom)
    assert {"training", "validation"} <= set(legends)


def test_the_smoothing_control_smooths(refract, tmp_path):
    run = make_run(tmp_path / "run")
    refract("report", "run")
    page = (run / "report.html").read_text()
    moved = page.replace("</body>", "<script>const control = document.getElementById('smoothing'); control.value = '0.9';"
                         "control.dispatchEvent(new Event('input'));</script></body>")
    (tmp_path / "moved.html").write_text(moved)
    shape = re.compile(r'<path class="js-line"[^>]* d="([^"]*)"')
    before = shape.findall(document(run / "report.html", tmp_path))
    after_dom = document(tmp_path / "moved.html", tmp_path)
    after = shape.findall(after_dom)
    assert 'id="smoothing-value">0.90<' in after_dom
    assert before[0] not in after[:1] and before[0] in after  # the raw curve stays, behind the smoothed one

    def roughness(path):
        y = np.array([float(point.split(",")[1]) for point in re.findall(r"[-\d.]+,[-\d.]+", path)])
        return np.abs(np.diff(y, 2)).sum() / np.ptp(y)

    assert roughness(after[0]) < 0.5 * roughness(before[0])


def test_shows_transforms_ranges_and_samples(refract, tmp_path):
    run = make_run(tmp_path / "run")
    add_transforms(run)
    add_ranges(run)
    refract("report", "run")
    dom = document(run / "report.html", tmp_path)
    assert "One &lt;b&gt;day&lt;/b&gt; &amp; night" in dom
    assert re.search(r"<td>low_rank</td><td>model\\.layers\\.\\d\+\\.mlp\\.up_proj</td>"
                     r'<td class="number">4</td><td class="number">4,096</td><td class="number">512</td>', dom)
    assert '<td>left alone</td>' in dom
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", dom)
    assert "x_range: larger end of the range" in captions
    assert "attention, scores: larger end of the range" in captions
    # One picture of all ranges is open; those over the checkpoints are drawn when their fold opens.
    assert "Larger end of each range, max(|low|, |high|), newest checkpoint" in captions
    assert re.search(r'<td>model.layers.0.self_attn</td><td>attention, scores</td><td class="number">4</td><td class="number">5</td>', dom)
    assert len(re.findall(r'class="heatmaplayer mlayer"><g class="hm"', dom)) == 1
    overview = next(f for f in figures(run / "report.html") if f["data"][0]["type"] == "heatmap")
    assert overview["layout"]["yaxis"]["ticktext"] == ["0", "1", "2", "3"]
    columns = overview["layout"]["xaxis"]["ticktext"]
    assert {"q_proj, x", "q_proj, out", "up_proj, x", "up_proj, out", "attention, scores"} <= set(columns)
    assert overview["data"][0]["text"][3][columns.index("up_proj, x")] == "4"
    assert overview["data"][0]["z"][3][columns.index("up_proj, x")] == pytest.approx(np.log10(4), abs=1e-6)
    # Layer 3 at step 400: low = -3 - 1.
    assert re.search(r"<td>model.layers.3.mlp.up_proj</td><td>x_range</td>"
                     r'<td class="number">-4</td><td class="number">1</td><td class="number">400</td>', dom)


def test_compares_runs_and_names_what_differs(refract_json, tmp_path):
    for lr, loss in ((1e-3, 2.0), (1e-2, 1.5), (0.1, 3.25)):
        make_run(tmp_path / "runs" / f"lr-{lr}", loss=loss, lr=lr)
    result = refract_json("report", "runs")
    assert result["report"] == "runs/report.html" and len(result["runs"]) == 3
    dom = document(tmp_path / "runs" / "report.html", tmp_path)
    drawn = lines_drawn(dom)
    assert len(drawn["Training loss"]) == 3 and min(drawn["Training loss"]) >= 30
    assert len(drawn["Validation loss"]) == 3
    differences = re.search(r"What differs.*?<table>(.*?)</table>", dom, re.S).group(1)
    assert re.findall(r"<th>(.*?)</th>", differences) == ["run", "optimizer.lr"]
    assert "3.3866" in dom  # 3.25 + 2 exp(-4) + 0.1: the last validation loss of the third run


def test_runs_of_equal_name_and_several_paths(refract_json, tmp_path):
    make_run(tmp_path / "a" / "run")
    make_run(tmp_path / "b" / "run")
    result = refract_json("report", "a/run", "b/run", "--out", "both.html")
    assert result["report"] == "both.html"
    page = (tmp_path / "both.html").read_text()
    assert "<td>a/run</td>" in page and "<td>b/run</td>" in page


def test_long_and_non_finite_curves(refract, tmp_path):
    run = make_run(tmp_path / "run", points=5000, extra=[{"step": 50001, "time": 1.0, "loss": None, "grad_norm": None}])
    refract("report", "run")
    page = (run / "report.html").read_text()
    drawn = [json.loads(text) for text in re.findall(r'data-figure="[^"]*">(.*?)</script>', page)]
    loss = drawn[0]["data"][0]
    assert len(loss["x"]) == len(loss["y"]) == 1500
    assert loss["x"][-1] == 50000
    norm = next(f["data"][0] for f in drawn if f["layout"]["yaxis"].get("type") == "log")
    assert norm["y"][-1] is None


def figures(page):
    return [json.loads(text) for text in re.findall(r'data-figure="[^"]*">(.*?)</script>', page.read_text())]


def figure(page, index):
    return figures(page)[index]


def test_a_diverged_run_does_not_press_the_others_flat(refract, tmp_path):
    for number in range(3):
        make_run(tmp_path / "runs" / f"good-{number}", loss=2.0)
    make_run(tmp_path / "runs" / "diverged", loss=1e5)
    refract("report", "runs")
    low, high = figure(tmp_path / "runs" / "report.html", 0)["layout"]["yaxis"]["range"]
    assert low < 2.1 and 3.8 < high < 6
    refract("report", "runs/good-0", "runs/good-1", "--out", "good.html")
    assert "range" not in figure(tmp_path / "good.html", 0)["layout"]["yaxis"]  # nothing to hide


def test_plotly_is_found_beside_an_installed_program(program, tmp_path):
    """share/refract of the prefix; without it one line says what to do."""
    home = tmp_path / "prefix"
    (home / "bin").mkdir(parents=True)
    shutil.copy(program, home / "bin" / "refract")
    make_run(tmp_path / "run")
    environment = {key: value for key, value in os.environ.items() if key != "REFRACT_PLOTLY"}
    libraries = [str(program.parent.parent / "lib"), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))

    def report():
        return subprocess.run([home / "bin" / "refract", "report", "run"], cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = report()
    assert done.returncode == 1 and "run scripts/bootstrap in the checkout, or set REFRACT_PLOTLY" in done.stderr
    (home / "share" / "refract").mkdir(parents=True)
    (home / "share" / "refract" / "plotly.min.js").write_text("/* here it is */")
    assert report().returncode == 0
    assert "/* here it is */" in (tmp_path / "run" / "report.html").read_text()


def test_train_leaves_its_report(refract, recipe, tmp_path):
    refract("train", recipe, "train.steps=10")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>Run run</h1>" in page and "Plotly" in page
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC, refract \d", facts["trained"]) and "train.steps=10" in facts["command"]
    assert re.fullmatch(r"[\d,]+", facts["parameters"]) and facts["device"].endswith(", fp32")
    flops = json.loads(refract("inspect", recipe, "train.steps=10", "--json").stdout)["training_flops"]
    assert float(facts["training FLOPs"]) == pytest.approx(flops, rel=5e-3)
    assert re.match(r"\d+:\d\d, \d+:\d\d of it training steps", facts["wall time"])
    assert re.search(r"<footer>Written on 20.* by refract \d.*train .*train.steps=10</code></footer>", page)
    version = refract("--version").stdout.split()[1]
    root = pathlib.Path(__file__).parents[2]
    assert f"VERSION {version} " in (root / "CMakeLists.txt").read_text() and f"by refract {version}:" in page
    sample = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[-1])
    assert sample["step"] == 10 and sample["text"]


def test_a_missing_plotly_fails_the_report_but_not_the_run(refract, recipe, tmp_path, monkeypatch):
    plotly = tmp_path / "none.js"
    monkeypatch.setenv("REFRACT_PLOTLY", str(plotly))
    done = refract("train", recipe, "train.steps=5")
    assert "no report was written: REFRACT_PLOTLY" in done.stderr
    done = refract("report", "run", code=2)
    assert f"REFRACT_PLOTLY = '{plotly}': no such file" in done.stderr


@pytest.mark.parametrize("arguments, message", [
    (["empty"], "holds no run"),
    (["nowhere"], "is not a folder of a run"),
])
def test_refuses_what_is_no_run(refract, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    assert message in refract("report", *arguments, code=2).stderr
