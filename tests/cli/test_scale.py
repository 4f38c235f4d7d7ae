"""refract scale on real finished runs: the program trains them, then fits."""
import pytest

TINY = ["train.steps=6", "eval.every=0", "checkpoint.every=0", "eval.samples=0", "log.every=3"]
LOW_RANK = 'transform=[{match=\'.*mlp.*\',kind="low_rank",rank=4}]'


def train(refract, recipe, name, width, *more):
    refract("train", recipe, f"run.dir={name}", f"model.hidden_size={width}", *TINY, *more)
    return name


@pytest.fixture
def runs(refract, recipe):
    dense = [train(refract, recipe, f"dense{width}", width) for width in (16, 32, 64)]
    return dense + [train(refract, recipe, f"low{width}", width, LOW_RANK) for width in (16, 32, 64)]


def test_fits_dense_and_structured_runs(refract, refract_json, runs, tmp_path):
    out = refract_json("scale", *runs, "--out", "page")
    by_name = {run["folder"]: run for run in out["runs"]}
    assert {run["group"] for run in out["runs"]} == {"dense", "low_rank"}
    inspected = refract_json("inspect", "recipe.toml", "model.hidden_size=64", *TINY, LOW_RANK)
    assert by_name["low64"]["training_flops"] == inspected["training_flops"]
    assert by_name["low64"]["parameters"] == inspected["parameters_without_embeddings"]
    assert by_name["low64"]["tokens"] == 6 * 4 * 16
    fits = {(fit["group"], fit["x"]): fit for fit in out["fits"]}
    for group in ("dense", "low_rank"):
        fit = fits[group, "training_flops"]
        assert fit["points"] == 3 and fit["law"] == "plain"
        assert fit["alpha"]["low"] < fit["alpha"]["value"] < fit["alpha"]["high"]
        losses = [run["loss"] for run in out["runs"] if run["group"] == group]
        assert min(losses) * 0.9 < fit["A"]["value"] < max(losses) * 1.1  # the loss in the middle
    assert {slope["x"] for slope in out["slopes_against_dense"]} == {"training_flops", "parameters"}
    assert any("tokens" in why for why in out["left_out"])  # all have trained on as many
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Loss against training FLOPs" in page and "low_rank" in page
    assert "alpha of low_rank less that of dense" in refract("scale", *runs).stdout


def test_refusals(refract, recipe, runs):
    assert "takes 3 runs" in refract("scale", "dense16", "dense32", code=1).stderr
    assert "takes 4 runs" in refract("scale", *runs[:3], "--law", "offset", code=1).stderr
    assert "no config.toml" in refract("scale", "nothing", code=2).stderr
    settings = recipe.parent / "dense16" / "config.toml"
    settings.write_text(settings.read_text().replace("steps = 6", "steps = 9"))
    assert "not finished" in refract("scale", *runs[:3], code=1).stderr


def test_takes_sweeps_and_folders_of_runs(refract, refract_json, recipe, tmp_path):
    refract("sweep", recipe, "--over", "model.hidden_size=16,32,64", *TINY, "--out", "sizes")
    runs = [f"sizes/hidden_size={width}" for width in (16, 32, 64)]
    by_hand = refract_json("scale", *runs)
    assert refract_json("scale", "sizes") == by_hand
    assert refract_json("scale", "sizes", *runs) == by_hand  # each run counts once
    # A sweep's unfinished runs are left out, and that is said.
    sweep = tmp_path / "sizes" / "sweep.json"
    sweep.write_text(sweep.read_text().replace('"finished"', '"stopped"', 1))
    done = refract("scale", "sizes", code=1)
    assert "sizes/hidden_size=16 is left out: it is stopped" in done.stderr and "takes 3 runs" in done.stderr
    sweep.unlink()
    assert refract_json("scale", "sizes") == by_hand
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refract("scale", "empty", code=2).stderr
