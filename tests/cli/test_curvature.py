"""Curvature around a model, and common frames of several: files, refusals, figures that agree."""
import json

import pytest

SMALL = ["train.steps=20", "eval.every=0", "checkpoint.every=0", "eval.samples=0"]
QUICK = ["--tokens", 64, "--top", 2, "--probes", 3]


@pytest.fixture
def three_runs(refract, recipe):
    for seed in (1, 2, 3):
        refract("train", recipe, f"run.dir=r{seed}", f"run.seed={seed}", *SMALL)
    return "r1", "r2", "r3"


def test_curvature_of_a_run_its_path_and_plane(refract, refract_json, three_runs, tmp_path):
    a, b, _ = three_runs
    options = [a, *QUICK, "--density", 8, "--along", b, "--points", 3, "--plane", 3, "--extent", 0.5, "--out", "out"]
    result = refract_json("curvature", *options)
    assert result["precision"] == "float64" and result["tokens"] == 64 and result["kinds"] == []
    for name in ("hessian", "gauss_newton"):
        found = result[name]
        values = [one["value"] for one in found["eigenvalues"]]
        assert found["converged"] and values == sorted(values, reverse=True) and values[1] > 0
        # The products are differences in float64, so they are as good as exact.
        assert max(found["step_error"].values()) < 1e-5 and found["asymmetry"] < 1e-5
        assert sum(found["density"]["weights"]) == pytest.approx(1)
        mean = sum(x * w for x, w in zip(found["density"]["nodes"], found["density"]["weights"]))
        assert mean * result["parameters"] == pytest.approx(found["trace"]["mean"])
    assert result["gauss_newton"]["smallest"]["value"] > -1e-6
    points = result["along"]["points"]
    assert [point["alpha"] for point in points] == [0, 0.5, 1]
    # The path's end is the model itself.
    assert points[-1]["loss"] == pytest.approx(result["loss"], rel=1e-9)
    assert points[-1]["largest"]["value"] == pytest.approx(result["hessian"]["eigenvalues"][0]["value"], rel=1e-2)
    plane = result["plane"]
    assert plane["axis"] == [-0.5, 0, 0.5] and plane["loss"][1][1] == pytest.approx(result["loss"], rel=1e-12)
    assert len({loss for row in plane["loss"] for loss in row}) == 9
    out = tmp_path / "out"
    assert json.loads((out / "curvature.json").read_text()) == result
    assert "plotly" in (out / "report.html").read_text()
    text = refract("curvature", a, *QUICK, "--of", "gauss-newton").stdout
    assert "Gauss-Newton" in text and "Hessian" not in text and "eigenvalue 2" in text


def test_precision_and_step_agree(refract_json, three_runs):
    def largest(*options):
        found = refract_json("curvature", three_runs[0], *QUICK[:4], "--probes", 0, "--tolerance", "1e-4", *options)
        return [found[name]["eigenvalues"][0]["value"] for name in ("hessian", "gauss_newton")]

    wide = largest()
    assert largest("--step", "1e-5") == pytest.approx(wide, rel=1e-4)
    assert largest("--precision", "fp32") == pytest.approx(wide, rel=1e-2)


def test_a_run_in_a_medium_says_which_gradient(refract, refract_json, recipe):
    rule = 'transform=[{match="model.layers.[0-9]+.mlp.down_proj", kind="analog", x_bits=0, adc_bits=0, w_bits=0, out_noise=0.02}]'
    refract("train", recipe, *SMALL, rule)
    result = refract_json("curvature", "run", *QUICK)
    assert result["kinds"] == ["analog"] and result["precision"] == "fp32" and result["step"] == 3e-5
    # The noise is the same in both halves of a difference, so that it does not drown the product.
    assert result["hessian"]["eigenvalues"][0]["value"] > 0 and result["hessian"]["step_error"]["largest"] < 0.1
    text = refract("curvature", "run", *QUICK).stdout
    assert "straight through" in text and "analog" in text


def test_a_medium_that_quantizes_takes_a_step_over_many_levels(refract, refract_json, recipe):
    refract("train", recipe, *SMALL, 'transform=[{match=".*proj", kind="mx"}]')
    options = ["run", "--tokens", 64, "--top", 1, "--probes", 4, "--of", "hessian"]
    rough, smooth = refract_json("curvature", *options), refract_json("curvature", *options, "transform=[]")
    assert rough["step"] == 1e-3 and smooth["step"] == 1e-7
    # The medium barely changes the loss, and the differences span its levels: within a tenth (2% here), the trace within
    # a fifth of the dense one's (the same probes; 5% here).
    rough, smooth = rough["hessian"], smooth["hessian"]
    assert rough["eigenvalues"][0]["value"] == pytest.approx(smooth["eigenvalues"][0]["value"], rel=0.1)
    assert rough["trace"]["mean"] == pytest.approx(smooth["trace"]["mean"], rel=0.2)


WRONG = [
    (["--top", 0], "--top 0 must be from 1 to 1000"),
    (["--of", "fisher"], "--of fisher is not one of both, hessian, gauss-newton"),
    (["--basis", 6], "--basis 6 is too small: 5 eigenvalues need at least 9 vectors"),
    (["--step", "-1"], "--step -1 must be in [0, 1)"),
    (["--density", 3, "--probes", 0], "--density needs --probes"),
    (["--along", "run", "--probes", 0], "both models have the same weights"),
    (["--out", "run"], "--out run is a run"),
]


def test_wrong_requests(refract, recipe):
    refract("train", recipe, *SMALL)
    for options, error in WRONG:
        assert error in refract("curvature", "run", "--tokens", 16, *options, code=2).stderr
    refract("export", "run", "--out", "exported")
    for command in (["curvature", "exported"], ["universe", "exported", "exported", "--out", "frame"]):
        assert "has no corpus of its own; give one with --data" in refract(*command, code=2).stderr


def test_three_models_in_one_frame(refract, refract_json, three_runs, tmp_path):
    result = refract_json("universe", *three_runs, "--batches", 4, "--alphas", 5, "--out", "frame")
    assert result["spread_after"] < result["spread_before"] and len(result["distances"]) == 3
    before, after = result["barriers"]["before"], result["barriers"]["after"]
    for a in range(3):
        assert before[a][a] == after[a][a] == 0
        for b in range(3):
            assert before[a][b] == before[b][a] and after[a][b] == after[b][a]
    frame = tmp_path / "frame"
    assert json.loads((frame / "universe.json").read_text()) == result
    assert "plotly" in (frame / "report.html").read_text()
    # What was measured is what was saved.
    batches = ["--batches", 4]
    assert refract_json("eval", "frame/barycentre", *batches)["loss"] == pytest.approx(result["barycentre"]["after"], rel=1e-6)
    for i, loss in enumerate(result["losses"]):
        assert refract_json("eval", f"frame/aligned-{i + 1}", *batches)["loss"] == pytest.approx(loss, rel=1e-4)
    path = refract_json("interpolate", "frame/aligned-1", "frame/aligned-2", *batches, "--splits", "val", "--alphas", 5)
    barrier = path["splits"]["val"]["loss_barrier"]["barrier"]
    assert barrier == pytest.approx(after[0][1], abs=1e-5)


def test_no_common_frame(refract, three_runs):
    assert "at least two models" in refract("universe", "r1", "--out", "frame", code=2).stderr
    done = refract("universe", "r1", "r2", "--out", "r3", code=2)
    assert "already holds something" in done.stderr
