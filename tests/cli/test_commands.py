"""eval, generate, data, tokenize, tokenizer train, inspect, export: each on real input."""
import json
import math
import re
import time

import numpy
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

COMMANDS = [["train"], ["eval"], ["generate"], ["inspect"], ["export"], ["data", "stories"], ["tokenize"],
            ["tokenizer", "train"]]


def test_help_says_what_a_group_of_commands_is_for(refract):
    text = refract("--help").stdout
    assert re.search(r"\n  data +stories: Write", text) and re.search(r"\n  bench +\w+, \w+", text)
    assert "see refract" not in text


def test_version_names_what_the_program_was_built_from(refract):
    text = refract("--version").stdout
    assert re.fullmatch(r"refract \d+\.\d+\.\d+ \(commit (unknown|[0-9a-f]{10}( with changes)?), torch 2\.11\.0, (CUDA 13\.\d+|no CUDA kernels)\)\n", text)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(refract, command):
    assert re.search(r"Example:\n  \S*refract " + " ".join(command), refract(*command, "--help").stdout)


def test_eval_equals_the_runs_own_figure(refract_json, recipe):
    trained = refract_json("train", recipe, "eval.batches=all")
    evaluated = refract_json("eval", "run")
    for key in ("loss", "accuracy", "tokens"):
        assert evaluated[key] == pytest.approx(trained["validation"][key], rel=1e-6)
    assert evaluated["perplexity"] == pytest.approx(math.exp(evaluated["loss"]))


def test_eval_on_other_text_counts_every_token(refract, refract_json, recipe, tmp_path):
    refract("train", recipe)
    story = refract("data", "stories", "--size", "1KB", "--seed", "9").stdout.strip()
    (tmp_path / "story.txt").write_text(story)
    result = refract_json("eval", "run", "--data", "story.txt")
    assert result["tokens"] == len(story) - 1
    shorter = refract_json("eval", "run", "data.context=5", "--data", "story.txt")
    assert shorter["tokens"] == len(story) - 1 and shorter["loss"] != result["loss"]


def test_generate_is_seeded(refract, recipe):
    refract("train", recipe, "train.steps=5")
    first = refract("generate", "run", "--prompt", "The", "--max-tokens", "40", "--seed", "5").stdout
    assert first.startswith("The") and len(first) == len("The") + 40 + 1
    assert first == refract("generate", "run", "--prompt", "The", "--max-tokens", "40", "--seed", "5").stdout
    assert first != refract("generate", "run", "--prompt", "The", "--max-tokens", "40", "--seed", "6").stdout
    made = json.loads(refract("generate", "run", "--prompt", "The", "--max-tokens", "9", "--top-k", "1", "--json").stdout)
    assert len(made["tokens"]) == 9
    assert "--top-p 2" in refract("generate", "run", "--top-p", "2", code=2).stderr


def test_prompts_of_unequal_lengths_are_continued_as_if_alone(refract, refract_json, recipe):
    refract("train", recipe, "train.steps=5")
    prompts, greedy = ["The", "On a day", "A"], ["--temperature", "0", "--max-tokens", "12"]
    together = refract_json("generate", "run", *greedy, *[word for p in prompts for word in ("--prompt", p)])["samples"]
    assert together == [refract_json("generate", "run", *greedy, "--prompt", prompt) for prompt in prompts]
    assert refract("generate", "run", *greedy, "--prompt", "The").stdout == "The" + together[0]["text"] + "\n"


def test_stories_are_the_same_for_a_seed(refract, tmp_path):
    refract("data", "stories", "--size", "30KB", "--out", "a.jsonl")
    refract("data", "stories", "--size", "30KB", "--out", "b.jsonl")
    a = (tmp_path / "a.jsonl").read_text()
    assert a == (tmp_path / "b.jsonl").read_text() and len(a) > 30_000
    assert all(80 <= len(json.loads(line)["text"].split()) <= 260 for line in a.splitlines())
    refract("data", "stories", "--size", "30KB", "--out", "c.NDJSON")
    assert a == (tmp_path / "c.NDJSON").read_text()
    assert "compressed" in refract("data", "stories", "--size", "30KB", "--out", "d.jsonl.gz", code=2).stderr
    assert not list(tmp_path.glob("d.*"))


def test_tokenize_writes_shards_that_decode_to_the_text(refract, refract_json, tmp_path):
    refract("tokenizer", "train", "stories:200KB", "--vocab-size", "400", "--out", "tok")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tok" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 400
    assert AutoTokenizer.from_pretrained(tmp_path / "tok").eos_token == "<|endoftext|>"
    refract("tokenizer", "train", "stories:200KB", "--vocab-size", "400", "--out", "deep/er/mine.json")
    assert (tmp_path / "deep/er/mine.json").read_bytes() == (tmp_path / "tok/tokenizer.json").read_bytes()
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["mine.json"]
    refract("data", "stories", "--size", "20KB", "--out", "s.jsonl")
    summary = refract_json("tokenize", "s.jsonl", "--tokenizer", "tok", "--validation-fraction", "0", "--out", "shards")
    (shard,) = (tmp_path / "shards").glob("*.bin")
    header = numpy.fromfile(shard, dtype="<i4", count=256)
    ids = numpy.fromfile(shard, dtype="<u2", offset=1024)
    assert list(header[:3]) == [20240520, 1, len(ids)] and len(ids) == summary["train_tokens"]
    stories = [json.loads(line)["text"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    end = tokenizer.token_to_id("<|endoftext|>")
    pieces = numpy.split(ids, numpy.flatnonzero(ids == end))
    texts = [tokenizer.decode([i for i in piece if i != end]) for piece in pieces]
    assert [text for text in texts if text] == stories


def test_training_on_shards(refract, refract_json, recipe, tmp_path):
    refract("tokenize", "stories:60KB", "--tokenizer", "bytes", "--out", "shards")
    result = refract_json("train", recipe, "data.path=shards", "data.tokenizer=bytes", "train.steps=10")
    assert result["finished"] and result["validation"]["loss"] < 5.6  # ln 257 = 5.55


def test_tokens_past_the_vocabulary_are_refused(refract, recipe, tmp_path):
    header = numpy.zeros(256, dtype="<i4")
    ids = numpy.arange(2000, dtype="<u2") % 300
    header[:3] = [20240520, 1, len(ids)]
    (tmp_path / "x.bin").write_bytes(header.tobytes() + ids.tobytes())
    try:
        done = refract("train", recipe, "data.path=x.bin", "data.tokenizer=bytes", code=2)
    except AssertionError:
        done = refract("train", recipe, "data.path=x.bin", "data.tokenizer=bytes", code=1)
    assert "299" in done.stderr and "257" in done.stderr


def test_inspect_counts_without_allocating(refract_json, refract, recipe, tmp_path):
    preset = tmp_path / "preset.toml"
    preset.write_text('[model]\npreset = "gpt2"\n[data]\ncontext = 1024\n[train]\nbatch = 4\n')
    figures = refract_json("inspect", preset)
    assert figures["parameters"] == 124_439_808
    assert figures["training_flops_per_token"] == pytest.approx(3 * figures["forward_flops_per_token"]["total"])
    begin = time.monotonic()
    large = refract_json("inspect", preset, "model.preset=clm-1.1b", "train.tokens=22*N/100")
    assert time.monotonic() - begin < 20
    assert large["parameters"] > 1e9 and large["steps"] == round(22 * large["parameters"] / 100 / (4 * 1024))
    rows = refract("inspect", recipe).stdout.splitlines()  # its two layers are equal and stand once
    assert [row.split() for row in rows if "q_proj.weight" in row] == [["model.layers.0-1.self_attn.q_proj.weight", "[32,", "32]", "2", "2,048"]]
    rule = 'transform=[{match="model.layers.1.mlp.up_proj", kind="low_rank", rank=4}]'
    assert "model.layers.0.self_attn.q_proj.weight" in refract("inspect", recipe, rule).stdout


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_export_opens_in_transformers(refract, refract_json, recipe, tmp_path, family):
    settings = [] if family == "gpt2" else ["model.position=rope", "model.hidden_act=gelu"] if family == "gpt_neox" else [
        "model.norm=rmsnorm", "model.position=rope", "model.hidden_act=swiglu", "model.num_key_value_heads=1",
        "model.attention_bias=false", "model.attention_output_bias=false", "model.mlp_bias=false"]
    refract("train", recipe, "data.tokenizer=bytes", *settings)
    assert refract_json("export", "run", "--out", "hf")["family"] == family
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    text = b"Once there was a fox."
    ids = torch.tensor([list(text)])
    (tmp_path / "t.txt").write_bytes(text)
    mine = refract_json("eval", "hf", "--data", "t.txt", "data.tokenizer=bytes", "data.context=16")
    with torch.no_grad():
        logits = model(ids[:, :16]).logits
        theirs = torch.nn.functional.cross_entropy(logits[0], ids[0, 1:17], reduction="sum")
        rest = model(ids[:, 16:-1]).logits
        theirs += torch.nn.functional.cross_entropy(rest[0], ids[0, 17:], reduction="sum")
    assert mine["tokens"] == len(text) - 1
    assert mine["loss"] == pytest.approx(theirs.item() / mine["tokens"], rel=1e-5)


def test_export_refuses_with_the_reason(refract, recipe, tmp_path):
    refract("train", recipe, "model.position=rope", "model.norm=rmsnorm", "train.steps=2")  # with GELU and biases
    error = refract("export", "run", "--out", "hf", code=1).stderr
    assert "can't be exported" in error and "Llama has no hidden_act = gelu_tanh" in error
    assert "GPT-NeoX has no norm = rmsnorm" in error
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("arguments", [["eval", "nothing"], ["generate", "nothing"], ["inspect", "nothing"],
                                       ["export", "nothing", "--out", "x"], ["inspect", "nothing.toml"]])
def test_missing_models_are_named(refract, arguments):
    try:
        done = refract(*arguments, code=2)
    except AssertionError:
        done = refract(*arguments, code=1)
    assert "nothing" in done.stderr and len(done.stderr.splitlines()) == 1


def test_eval_says_what_it_evaluated(refract, refract_json, recipe, tmp_path):
    refract("train", recipe, "data.tokenizer=bytes", "train.steps=5")
    done = refract("eval", "run").stdout
    assert "corpus      the validation split of stories:40KB\n" in done and "context     16\n" in done
    result = refract_json("eval", "run", "--batches", "2")
    assert result["tokens"] == 2 * 4 * 16 and result["context"] == 16 and result["corpus"] == "the validation split of stories:40KB"
    shorter = refract_json("eval", "run", "--batches", "2", "--context", "8", "--data", "stories:20KB")
    assert (shorter["tokens"], shorter["context"], shorter["corpus"]) == (2 * 4 * 8, 8, "stories:20KB")
    assert shorter["loss"] == refract_json("eval", "run", "--batches", "2", "data.context=8", "--data", "stories:20KB")["loss"]
    assert "--batches" in refract("eval", "run", "--batches", "0", code=2).stderr
    assert "--context" in refract("eval", "run", "--context", "-1", code=2).stderr
    assert "max_position_embeddings" in refract("eval", "run", "--context", "17", code=2).stderr
    # A folder that is no run was trained on nobody knows what.
    refract("export", "run", "--out", "hf")
    assert "'hf' is not a run and has no corpus to evaluate on; give one with --data" in refract("eval", "hf", code=2).stderr
    assert refract_json("eval", "hf", "--data", "stories:20KB")["context"] == 16
    assert refract_json("eval", "hf", "data.path=stories:20KB")["corpus"] == "the validation split of stories:20KB"


def test_a_long_evaluation_shows_its_progress(refract, recipe):
    refract("train", recipe, "data.tokenizer=bytes", "train.steps=2")
    lines = refract("eval", "run", "--data", "stories:12MB", "train.threads=1").stderr.splitlines()
    assert any(re.search(r"evaluate: [\d.]+[kM] of [\d.]+M tokens, \d+:\d\d left", line) for line in lines), lines
