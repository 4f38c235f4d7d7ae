"""Paths between models and the instability analysis: exact ends, refusals, resuming, reuse."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

SMALL = ["train.steps=20", "eval.every=0", "checkpoint.every=0", "eval.samples=0"]


@pytest.fixture
def two_runs(refract, recipe):
    for seed in (1, 2):
        refract("train", recipe, f"run.dir=r{seed}", f"run.seed={seed}", *SMALL)
    return "r1", "r2"


def path(refract_json, *arguments):
    result = refract_json("interpolate", *arguments)
    assert result.pop("seconds") > 0
    return result


def test_ends_are_what_eval_says_and_files_agree(refract, refract_json, two_runs, tmp_path):
    result = path(refract_json, *two_runs, "--alphas", 5, "--out", "out")
    losses = result["splits"]["val"]["loss"]
    for alpha, run in ((0, "r2"), (-1, "r1")):
        alone = refract_json("eval", run)
        assert losses[alpha] == alone["loss"]
        assert result["splits"]["val"]["error"][alpha] == 1 - alone["accuracy"]
        assert result["splits"]["val"]["perplexity"][alpha] == alone["perplexity"]
    assert result["alphas"] == [0, 0.25, 0.5, 0.75, 1]
    mean = (losses[0] + losses[-1]) / 2
    barrier = result["splits"]["val"]["loss_barrier"]
    assert barrier["instability"] == pytest.approx(max(losses) - mean, rel=1e-12)
    assert barrier["instability_relative"] == pytest.approx((max(losses) - mean) / mean, rel=1e-12)
    out = tmp_path / "out"
    written = json.loads((out / "path.json").read_text())
    assert written.pop("seconds") > 0 and written == result
    lines = (out / "path.csv").read_text().splitlines()
    assert lines[0] == "alpha,split,loss,perplexity,error" and len(lines) == 11
    assert "plotly" in (out / "report.html").read_text()
    text = refract("interpolate", *two_runs, "--alphas", 3, "--batches", 2, "--splits", "val").stdout
    assert "instability" in text and "alpha (0: B, 1: A)" in text


def test_merging_evaluates_its_path_and_writes_the_best(refract, refract_json, two_runs, tmp_path):
    made = refract_json("merge", *two_runs, "--method", "slerp", "--points", 3, "--best", "--batches", 4, "--out", "merged")
    losses = [point["loss"] for point in made["points"]]
    assert [point["t"] for point in made["points"]] == [0, 0.5, 1]
    assert made["t"] == made["points"][losses.index(min(losses))]["t"]
    assert refract_json("eval", "merged", "--batches", 4)["loss"] == pytest.approx(min(losses), rel=1e-6)
    text = refract("merge", *two_runs, "--points", 2, "--batches", 4, "--weights", "1,3", "--out", "mean").stdout
    assert re.search(r"weight +loss", text) and len(text.splitlines()) > 10
    assert json.loads((tmp_path / "mean/merge.json").read_text())["weight"] == 0.75
    error = refract("merge", *two_runs, "--weights", "1;3", "--out", "third", code=2).stderr
    assert "--weights takes a number, not '1;3'" in error and not (tmp_path / "third").exists()


def test_alignment_is_shown_beside_what_was_before(refract, refract_json, two_runs, tmp_path):
    options = ("--alphas", 5, "--batches", 4, "--splits", "val")
    plain = path(refract_json, *two_runs, *options)
    aligned = path(refract_json, *two_runs, *options, "--align", "weights")
    assert "before_alignment" not in plain
    before = aligned["before_alignment"]
    assert before["splits"] == plain["splits"] and before["distance"] == plain["distance"]
    assert aligned["distance"] <= plain["distance"]
    assert aligned["splits"]["val"]["loss"][0] == pytest.approx(plain["splits"]["val"]["loss"][0], rel=1e-5)
    text = refract("interpolate", *two_runs, *options, "--align", "weights", "--out", "both").stdout
    assert "val, before alignment" in text and "val, aligned" in text
    page = (tmp_path / "both" / "report.html").read_text()
    loss = json.loads(re.search(r'data-figure="figure-1">(.*?)</script>', page).group(1))
    assert [trace["name"] for trace in loss["data"] if trace["showlegend"]] == ["val, before alignment", "val, aligned"]
    assert {"A", "B"} <= {note["text"] for note in loss["notes"]}


def test_learned_matching_writes_both_models_of_a_tied_pair(refract, refract_json, two_runs, tmp_path):
    found = refract_json("align", *two_runs, "--out", "aligned", "--learn", 3)
    assert found["residual"] == "orthogonal" and found["heads"] == "invertible" and found["learned"]["steps"] == 3
    assert found["a"] == "aligned-a" and found["learned"]["loss_half_way_after"] > 0
    options = ("--alphas", 3, "--batches", 4, "--splits", "val")
    plain = path(refract_json, *two_runs, *options)["splits"]["val"]["loss"]
    aligned = path(refract_json, "aligned-a", "aligned", *options)["splits"]["val"]["loss"]
    assert aligned[0] == pytest.approx(plain[0], rel=1e-4) and aligned[-1] == pytest.approx(plain[-1], rel=1e-4)
    at_once = path(refract_json, *two_runs, *options, "--align", "weights", "--learn", 3)
    assert at_once["splits"]["val"]["loss"][1] == pytest.approx(aligned[1], rel=1e-4)
    assert at_once["before_alignment"]["splits"]["val"]["loss"] == plain
    assert "--learn are ways to align" in refract("interpolate", *two_runs, "--learn", 3, "--out", "x", code=2).stderr


def test_a_split_has_one_colour_and_its_barriers_one_note(refract, two_runs, tmp_path):
    refract("interpolate", *two_runs, "--alphas", 5, "--batches", 4, "--align", "weights", "--out", "both")
    page = (tmp_path / "both" / "report.html").read_text()
    figures = [json.loads(found) for found in re.findall(r'data-figure="figure-\d+">(.*?)</script>', page)]
    assert len(figures) == 3
    for figure in figures:
        colours = {trace["name"]: trace["line"]["color"] for trace in figure["data"] if trace["showlegend"]}
        assert set(colours) == {f"{split}, {what}" for split in ("train", "val") for what in ("before alignment", "aligned")}
        assert colours["train, aligned"] == colours["train, before alignment"] != colours["val, aligned"] == colours["val, before alignment"]
        assert colours == {trace["name"]: trace["line"]["color"] for trace in figures[0]["data"] if trace["showlegend"]}
    barriers = [note["text"] for note in figures[0]["notes"] if "barrier" in note["text"]]
    assert 1 <= len(barriers) <= 2 and all("(train)" in text or "(val)" in text for text in barriers)


def test_a_run_with_itself_is_flat(refract_json, two_runs):
    result = path(refract_json, "r1", "r1", "--alphas", 4, "--batches", 3)
    assert result["distance"] == 0 and result["cosine"] == pytest.approx(1, abs=1e-12)
    for split in result["splits"].values():
        assert max(split["loss"]) - min(split["loss"]) < 1e-6
        assert split["loss_barrier"]["barrier"] < 1e-6


def test_the_same_twice_and_by_every_engine(refract_json, two_runs):
    def by(engine):
        result = path(refract_json, *two_runs, "--alphas", 6, "--batches", 4, "--engine", engine)
        assert result["engine"] == engine or engine == "auto"
        return result

    first = by("auto")
    assert by("auto") == first
    single = by("single")
    for other in (first, by("batched"), by("prefixes")):
        for name, split in single["splits"].items():
            assert split["tokens"] == 4 * 4 * 16
            assert other["splits"][name]["loss"] == pytest.approx(split["loss"], rel=1e-5)
            assert other["splits"][name]["loss"][0] == split["loss"][0]
            assert other["splits"][name]["loss"][-1] == split["loss"][-1]


@pytest.mark.parametrize("settings, words", [
    (["model.num_hidden_layers=1"], "model.num_hidden_layers is 2 in the first and 1 in the second"),
    (["model.hidden_act=gelu"], "model.hidden_act"),
    (["data.tokenizer=bytes"], "model.vocab_size"),
    (["data.validation_fraction=0.3"], None),  # the same characters: the same vocabulary
])
def test_the_first_difference_is_named(refract, recipe, two_runs, settings, words):
    refract("train", recipe, "run.dir=other", *SMALL, *settings)
    done = refract("interpolate", "r1", "other", "--alphas", 3, "--batches", 1, code=2 if words else 0)
    assert words is None or words in done.stderr


@pytest.mark.parametrize("arguments, words", [
    (["--alphas", 1], "--alphas"),
    (["--splits", "test"], "--splits"),
    (["--engine", "fast"], "--engine"),
    (["--batches", "0"], "--batches"),
    (["--buffers", "drop"], "--buffers"),
])
def test_bad_options_are_refused(refract, two_runs, arguments, words):
    done = refract("interpolate", *two_runs, *arguments, code=2)
    assert words in done.stderr and done.stdout == ""


CONNECTIVITY = ["eval.every=0", "checkpoint.every=4", "connectivity.spawn=[0,8]", "connectivity.alphas=3",
                "connectivity.batches=4", "train.steps=16", "eval.batches=1"]


def outcome(folder):
    return json.loads((pathlib.Path(folder) / "connectivity.json").read_text())


def spawned(result):
    return [(entry["seed"], entry["spawn"], entry["pairs"]) for entry in result["spawned"]]


def test_instability_analysis(refract, refract_json, recipe, tmp_path):
    result = refract_json("connectivity", recipe, "run.dir=lmc", *CONNECTIVITY, "connectivity.seeds=[1,2]")
    assert [(e["seed"], e["spawn"]) for e in result["spawned"]] == [(1, 0), (1, 8), (2, 0), (2, 8)]
    by_spawn = {row["spawn"]: row for row in result["summary"] if row["split"] == "train"}
    assert by_spawn[0]["pairs"] == 2 and by_spawn[0]["distance"]["deviation"] is not None
    assert 0 < by_spawn[8]["distance"]["mean"] < by_spawn[0]["distance"]["mean"]
    # A pair's path is that of refract interpolate, and says how it came about.
    pair = result["spawned"][0]["pairs"][0]
    folder = tmp_path / "lmc" / "seed-1" / "spawn-00000000"
    again = path(refract_json, folder / "copy-1", folder / "copy-2", "--alphas", 3, "--batches", 4)
    assert json.loads((folder / "path-copy-1~copy-2.json").read_text())["engine"] == again["engine"] != "auto"
    for name in ("train", "val"):
        assert pair[name]["loss_barrier"] == again["splits"][name]["loss_barrier"]
    assert (tmp_path / "lmc" / "report.html").exists()
    assert len((tmp_path / "lmc" / "connectivity.csv").read_text().splitlines()) == 1 + 4 * 2
    # The same again from nothing, and with all of it there.
    other = refract_json("connectivity", recipe, "run.dir=lmc2", *CONNECTIVITY, "connectivity.seeds=[1,2]")
    assert spawned(other) == spawned(result)
    before = (folder / "copy-1" / "checkpoints").stat().st_mtime_ns
    more = refract_json("connectivity", recipe, "run.dir=lmc", *CONNECTIVITY, "connectivity.seeds=[1,2]",
                        "connectivity.spawn=[0,4,8]")
    assert (folder / "copy-1" / "checkpoints").stat().st_mtime_ns == before
    assert [e for e in spawned(more) if e[1] != 4] == spawned(result)
    done = refract("connectivity", recipe, "run.dir=lmc", *CONNECTIVITY, "optimizer.lr=1e-3", code=2)
    assert "holds an analysis with other settings" in done.stderr and "/optimizer/lr" in done.stderr


def test_interrupted_and_resumed_is_the_same(refract, program, recipe, tmp_path):
    refract("connectivity", recipe, "run.dir=whole", *CONNECTIVITY)
    arguments = [str(program), "connectivity", str(recipe), "run.dir=cut", *CONNECTIVITY]
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    stopped = 0
    for kill in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        checkpoints = len(list((tmp_path / "cut").rglob("step-*")))
        while process.poll() is None and len(list((tmp_path / "cut").rglob("step-*"))) <= checkpoints:
            time.sleep(0.005)
        process.send_signal(kill)
        process.wait(timeout=120)
        stopped += process.returncode != 0
    assert stopped >= 2
    refract("connectivity", recipe, "run.dir=cut", *CONNECTIVITY)
    assert spawned(outcome(tmp_path / "cut")) == spawned(outcome(tmp_path / "whole"))


def test_three_copies_give_a_matrix_and_clusters(refract_json, recipe):
    result = refract_json("connectivity", recipe, "run.dir=three", *CONNECTIVITY, "connectivity.spawn=[0]",
                          "connectivity.copies=3")
    entry = result["spawned"][0]
    assert [(p["a"], p["b"]) for p in entry["pairs"]] == [("copy-1", "copy-2"), ("copy-1", "copy-3"),
                                                           ("copy-2", "copy-3")]
    assert sorted(sum(entry["clusters"], [])) == ["copy-1", "copy-2", "copy-3"]


def test_fine_tuned_copies_and_variants(refract, refract_json, recipe, tmp_path):
    refract("train", recipe, "run.dir=base", *SMALL)
    tuned = refract_json("connectivity", recipe, "run.dir=tuned", *CONNECTIVITY, "connectivity.spawn=[0]",
                         "connectivity.pairs=fine_tune", "init.from=base", "optimizer.lr=1e-5")
    pair = tuned["spawned"][0]["pairs"][0]
    assert pair["connected"] and pair["cosine"] > 0.999
    assert "needs init.from" in refract("connectivity", recipe, "run.dir=x", *CONNECTIVITY,
                                        "connectivity.pairs=fine_tune", code=2).stderr
    across = tmp_path / "across.toml"
    across.write_text(recipe.read_text() + """
[[connectivity.variant]]
name = "dense"
[[connectivity.variant]]
name = "lora"
transform = [{match = 'model.layers.\\d+.mlp.up_proj', kind = "lora", r = 2}]
""")
    result = refract_json("connectivity", across, "run.dir=across", *CONNECTIVITY, "connectivity.spawn=[0]",
                          "connectivity.pairs=transforms", "init.from=base", "optimizer.lr=1e-3")
    assert result["members"] == ["dense", "lora"]
    assert result["spawned"][0]["pairs"][0]["distance"] > 0


@pytest.mark.parametrize("override, words", [
    ("connectivity.spawn=[16]", "only 16 steps long"),
    ("connectivity.copies=1", "connectivity.copies"),
    ("connectivity.splits=[test]", "connectivity.splits"),
    ("connectivity.splits=['val','val']", "each once"),
    ("connectivity.batches=foo", "connectivity.batches"),
    ("connectivity.batches=0", "connectivity.batches"),
    ("connectivity.batches=1.5", "connectivity.batches"),
    ("connectivity.batches=-1", "connectivity.batches"),
    ("connectivity.batches=1e30", "connectivity.batches"),
    ("connectivity.alphas=100001", "connectivity.alphas"),
    ("data.validation_fraction=0", "there is no validation split"),
    ("connectivity.pear=1", "connectivity.pair"),
    ("connectivity.pairs=transforms", "connectivity.variant"),
])
def test_bad_connectivity_settings(refract, recipe, override, words):
    done = refract("connectivity", recipe, *CONNECTIVITY, override, code=2)
    assert words in done.stderr and done.stdout == ""


def test_engines_that_rules_rule_out_are_refused(refract, recipe, tmp_path):
    with recipe.open("a") as file:
        file.write("\n[[transform]]\nmatch = 'model.layers.\\d+.mlp.up_proj'\nkind = \"lora\"\nr = 2\n")
    for engine in ("batched", "prefixes"):
        done = refract("connectivity", recipe, "run.dir=ruled", *CONNECTIVITY, f"connectivity.engine={engine}", code=2)
        assert f'connectivity.engine = "{engine}"' in done.stderr and done.stdout == ""
    assert not (tmp_path / "ruled").exists()  # before anything is trained
    refract("train", recipe, "run.dir=ruled", *SMALL)
    assert "--engine batched" in refract("interpolate", "ruled", "ruled", "--engine", "batched", code=2).stderr


LORA = """transform = [{match = 'model.layers.\\d+.mlp.up_proj', kind = "lora", r = RANK}]"""
TUNED = ["eval.every=0", "checkpoint.every=0", "connectivity.alphas=3", "connectivity.batches=1", "train.steps=4",
         "eval.batches=1", "init.from=base"]


def variants(tmp_path, recipe, **rules):
    """A recipe with variants: name=rank of its LoRA layers; 0: dense."""
    text = recipe.read_text() + '[connectivity]\npairs = "transforms"\n'
    for name, rank in rules.items():
        text += f'[[connectivity.variant]]\nname = "{name}"\n' + (LORA.replace("RANK", str(rank)) + "\n" if rank else "")
    path = tmp_path / "variants.toml"
    path.write_text(text)
    return path


@pytest.fixture
def base(refract, recipe):
    refract("train", recipe, "run.dir=base", *SMALL, "train.steps=2")


def test_copies_of_other_settings_are_refused(refract, refract_json, recipe, base):
    tuned = ["connectivity", recipe, "run.dir=tuned", *TUNED, "connectivity.pairs=fine_tune"]
    first = refract_json(*tuned)
    for differ, key in (("noise", "/data/order_seed"), ("order", "/run/noise_seed"), ("nothing", "/data/order_seed")):
        done = refract(*tuned, f"connectivity.differ={differ}", code=2)
        assert "holds a run with other settings" in done.stderr and key in done.stderr
        assert "choose another run.dir" in done.stderr and done.stdout == ""
    assert spawned(refract_json(*tuned, "connectivity.differ=both")) == spawned(first)  # what auto stands for
    more = refract_json(*tuned, "connectivity.copies=3", "connectivity.seeds=[3,4]")
    assert spawned(more)[0][2][0] == spawned(first)[0][2][0] and len(spawned(more)) == 2


def test_variants_of_other_rules_are_refused(refract, refract_json, recipe, base, tmp_path):
    def call(**rules):
        return ["connectivity", variants(tmp_path, recipe, **rules), "run.dir=across", *TUNED]

    first = refract_json(*call(dense=0, lora=2))
    done = refract(*call(dense=0, lora=3), code=2)
    assert "spawn-00000000/lora' holds a run with other settings" in done.stderr and "/transform/0/r" in done.stderr
    more = refract_json(*call(dense=0, lora=2, other=3))
    assert spawned(more)[0][2][0] == spawned(first)[0][2][0] and len(spawned(more)[0][2]) == 3


def test_each_pair_has_a_file_of_its_own(refract, refract_json, recipe, base, tmp_path):
    rules = {"a": 0, "b-c": 1, "a-b": 2, "c": 3}
    result = refract_json("connectivity", variants(tmp_path, recipe, **rules), "run.dir=four", *TUNED,
                          "optimizer.lr=1e-2")
    pairs = result["spawned"][0]["pairs"]
    assert len({pair["path"] for pair in pairs}) == 6
    for pair in pairs:
        saved = json.loads((tmp_path / "four" / pair["path"]).read_text())
        assert [saved["a"].split("/")[-1], saved["b"].split("/")[-1]] == [pair["a"], pair["b"]]
        assert saved["distance"] == pair["distance"]
    for name in (".", "..", "a~b"):
        done = refract("connectivity", variants(tmp_path, recipe, **{"a": 0, name: 0}), *TUNED, code=2)
        assert "can't be the name of a folder" in done.stderr


def test_bad_settings_of_paths_are_found_before_training(refract, recipe, base, tmp_path):
    def refused(recipe, *arguments):
        done = refract("connectivity", recipe, "run.dir=early", *TUNED, *arguments, code=2)
        assert not list((tmp_path / "early").rglob("checkpoints"))
        return done.stderr

    assert "connectivity.variant \"lora\"" in refused(variants(tmp_path, recipe, dense=0, lora=-1))
    with recipe.open("a") as file:
        file.write("[[transform]]\n" + LORA[LORA.index("match"):-2].replace("RANK", "2").replace(", ", "\n"))
    fine_tune = "connectivity.pairs=fine_tune"
    assert "connectivity.align" in refused(recipe, fine_tune, "connectivity.align=weights")
    assert "connectivity.engine" in refused(recipe, fine_tune, "connectivity.engine=batched")


def test_damaged_files_of_an_analysis(refract, refract_json, recipe, tmp_path):
    call = ["connectivity", recipe, "run.dir=lmc", *TUNED[:-1]]
    first = refract_json(*call)
    file = tmp_path / "lmc" / first["spawned"][0]["pairs"][0]["path"]
    good = file.read_text()
    without = json.loads(good)
    del without["splits"]
    for damaged in ("[]", "null", "{", good[:100], json.dumps(without), json.dumps(json.loads(good) | {"splits": {}}),
                    json.dumps(json.loads(good) | {"alphas": "x"})):
        file.write_text(damaged)
        assert spawned(refract_json(*call)) == spawned(first)
        assert json.loads(file.read_text()) == json.loads(good)
    copy = file.parent / "copy-2"
    weights = next(copy.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:3])
    assert "has 3 bytes; remove 'lmc/seed-3/spawn-00000000/copy-2'" in refract(*call, code=1).stderr
    weights.unlink()
    done = refract(*call, code=1)
    assert "has no model.safetensors; remove 'lmc/seed-3/spawn-00000000/copy-2'" in done.stderr
    shutil.rmtree(copy)
    assert spawned(refract_json(*call)) == spawned(first)


def test_train_accepts_the_table_and_checks_it(refract, recipe):
    with recipe.open("a") as file:
        file.write("\n[connectivity]\nspawn = [0, 4]\n")
    refract("train", recipe, *SMALL)
    with recipe.open("a") as file:
        file.write("spwan = 1\n")
    assert "did you mean 'connectivity.spawn'" in refract("train", recipe, *SMALL, "run.dir=b", code=2).stderr
