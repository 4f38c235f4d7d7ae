"""Data sets of the Hub's cache, Parquet, several corpora with weights, and isolated documents, through whole runs."""
import json
import os
import subprocess

import pytest

from several import clean_environment


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def weights_of(run, step):
    return (run / f"checkpoints/step-{step:08}/model.safetensors").read_bytes()


def lines(word, count):
    return "".join(json.dumps({"text": f"{word} {i} of {count}, and {i * i % 97} more"}) + "\n" for i in range(count))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Adds files to the data set org/set of an empty cache, as huggingface_hub lays them out."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub/datasets--org--set"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123abcd")
    (repository / "blobs").mkdir()

    def add(name, content):
        blob = repository / "blobs" / str(len(list((repository / "blobs").iterdir())))
        blob.write_text(content) if isinstance(content, str) else content(blob)
        link = repository / "snapshots/0123abcd" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(os.path.relpath(blob, link.parent), link)

    return add


SMALL = ["train.steps=4", "eval.every=2", "eval.samples=0", "data.tokenizer=bytes", "checkpoint.every=2"]


def test_a_run_trains_on_a_data_set_and_is_judged_from_anywhere(refract, refract_json, program, recipe, hub, tmp_path):
    hub("README.md", "a card")
    hub("train.jsonl", lines("train", 80))
    hub("validation.jsonl", lines("held out", 20))
    refract("train", recipe, "data.path=org/set", "data.validation=org/set:validation", *SMALL)
    settings = (tmp_path / "run/config.toml").read_text()
    assert 'path = ["org/set"]' in settings and 'validation = ["org/set:validation"]' in settings
    record = json.loads((tmp_path / "run/corpus.json").read_text())
    assert [file["name"].rsplit("/", 1)[1] for file in record["files"]] == ["train.jsonl"]
    here = refract_json("eval", "run")
    (tmp_path / "elsewhere").mkdir()
    there = subprocess.run([program, "eval", tmp_path / "run", "--json"], cwd=tmp_path / "elsewhere", text=True, capture_output=True,
                           env=dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache")), timeout=120)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["loss"] == here["loss"]
    refract("train", "run", "--resume", "train.steps=6")
    missing = refract("train", recipe, "data.path=org/other", "run.dir=more", code=2)
    assert "hf download --repo-type dataset org/other" in missing.stderr and missing.stderr.count("\n") == 1


def test_parquet_and_jsonl_give_the_same_run(refract, recipe, hub, program, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    if not (program.parents[1] / "lib/librefract_parquet.so").exists():
        pytest.skip("the program was built before pyarrow was installed")
    rows = [json.loads(line) for line in lines("train", 80).splitlines()]
    hub("data/train-00000-of-00001.parquet", lambda blob: pq.write_table(pyarrow.Table.from_pylist(rows), blob, row_group_size=9))
    (tmp_path / "c.jsonl").write_text(lines("train", 80))
    refract("train", recipe, "data.path=org/set", "run.dir=a", *SMALL)
    refract("train", recipe, "data.path=c.jsonl", "run.dir=b", *SMALL)
    assert weights_of(tmp_path / "a", 4) == weights_of(tmp_path / "b", 4)
    done = refract("train", recipe, "data.path=org/set", "data.text_field=body", "run.dir=c", *SMALL, code=1)
    assert "it has no column 'body' (there are: text)" in done.stderr


@pytest.fixture
def mixed(recipe, tmp_path):
    (tmp_path / "a.jsonl").write_text(lines("aaa", 60))
    (tmp_path / "b.jsonl").write_text(lines("bbb", 200))
    recipe.write_text(recipe.read_text().replace('path = "stories:40KB"', 'path = ["a.jsonl", "b.jsonl"]\nweights = [3, 1]'))
    return recipe


def test_a_mixture_goes_on_as_if_it_had_not_stopped(refract, mixed, tmp_path):
    steps = ["eval.samples=0", "schedule.kind=constant", "schedule.warmup=0", "checkpoint.every=4"]
    refract("train", mixed, "train.steps=12", "run.dir=whole", *steps)
    refract("train", mixed, "train.steps=8", "run.dir=parts", *steps)
    refract("train", "parts", "--resume", "train.steps=12")
    assert weights_of(tmp_path / "whole", 12) == weights_of(tmp_path / "parts", 12)
    refract("train", mixed, "train.steps=12", "run.dir=other", "data.weights=[1,3]", *steps)
    assert weights_of(tmp_path / "whole", 12) != weights_of(tmp_path / "other", 12)
    before = files_of(tmp_path / "parts")
    refused = refract("train", "parts", "--resume", "train.steps=16", "data.weights=[1,1]", code=2)
    assert "data.weights was [3.0,1.0], and is [1.0,1.0]" in refused.stderr
    assert files_of(tmp_path / "parts") == before
    alone = refract("train", mixed, "run.dir=none", "data.path=a.jsonl", code=2)
    assert "data.weights has 2 numbers for 1 corpora" in alone.stderr


def test_a_mixture_remembers_where_its_corpora_end(refract, mixed, tmp_path):
    (tmp_path / "v.jsonl").write_text(lines("vvv", 20))
    refract("train", mixed, "run.dir=parts", "data.validation=v.jsonl", *SMALL)
    one, two = (tmp_path / "a.jsonl").read_text().splitlines(True), (tmp_path / "b.jsonl").read_text()
    (tmp_path / "a.jsonl").write_text("".join(one[:-1]))
    (tmp_path / "b.jsonl").write_text(one[-1] + two)
    refused = refract("train", "parts", "--resume", "train.steps=6", code=2)
    assert "its corpora had [" in refused.stderr


def test_a_mixture_is_the_same_in_two_processes(refract, mixed, program, tmp_path):
    if not (program.parents[1] / "lib/librefract_gloo.so").exists():
        pytest.skip("librefract_gloo.so is not built; install libgloo-dev")
    steps = ["train.steps=5", "eval.every=0", "checkpoint.every=5", "train.batch=8", "train.reduction_groups=4"]
    refract("train", mixed, "run.dir=one", *steps)
    done = subprocess.run([program, "launch", "-n", "2", "train", mixed, "run.dir=two", *steps], cwd=tmp_path, text=True,
                          env=clean_environment(tmp_path), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert weights_of(tmp_path / "one", 5) == weights_of(tmp_path / "two", 5)


def test_isolated_documents(refract, refract_json, recipe, tmp_path):
    (tmp_path / "c.jsonl").write_text(lines("short", 300))
    settings = ["data.path=c.jsonl", "data.documents=isolated", "data.context=64", "eval.samples=0", "schedule.kind=constant",
                "schedule.warmup=0", "checkpoint.every=4"]
    refused = refract("train", recipe, *settings, "run.dir=chars", code=2)
    assert "no end-of-text token" in refused.stderr and "data.document_token" in refused.stderr
    refract("train", recipe, *settings, "data.tokenizer=bytes", "train.steps=8", "run.dir=whole")
    assert "document_token = 256" in (tmp_path / "whole/config.toml").read_text()
    refract("train", recipe, *settings, "data.tokenizer=bytes", "train.steps=4", "run.dir=parts")
    refract("train", recipe, *settings, "data.tokenizer=bytes", "train.steps=8", "run.dir=parts", "--resume")
    assert "changed on the way: train.steps = 8 (was 4)\n" in (tmp_path / "parts/log.txt").read_text()
    assert weights_of(tmp_path / "whole", 8) == weights_of(tmp_path / "parts", 8)
    refused = refract("train", recipe, "data.tokenizer=bytes", "data.document_token=9", "run.dir=no", code=2)
    assert "data.document_token = 9 does nothing" in refused.stderr
    isolated = refract_json("eval", "whole")
    joined = refract_json("eval", "whole", "data.documents=joined")
    assert isolated["tokens"] == joined["tokens"] and abs(isolated["loss"] - joined["loss"]) > 1e-6
    refract("train", recipe, *settings, "data.tokenizer=bytes", "data.documents=joined", "train.steps=8", "run.dir=joined")
    assert weights_of(tmp_path / "whole", 8) != weights_of(tmp_path / "joined", 8)
    optical = 'transform=[{match="model\\\\.layers\\\\.0\\\\.self_attn", kind="optical"}]'
    refused = refract("train", recipe, *settings, "data.tokenizer=bytes", "run.dir=optical", optical, code=2)
    assert "'model.layers.0.self_attn' is of the kind \"optical\", which can't keep documents apart" in refused.stderr
    assert not (tmp_path / "optical").exists()
    beyond = refract("train", recipe, *settings, "data.tokenizer=bytes", "run.dir=beyond", "data.document_token=99999", code=2)
    assert "data.document_token = 99999 is beyond the model's" in beyond.stderr and not (tmp_path / "beyond").exists()
