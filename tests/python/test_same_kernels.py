"""A served model in a medium against `transformers` with the same rules: the same scores where both compute with the same kernels.

A medium rounds to levels, so two kernels that differ in the last bit of a sum put a number on two sides of a level's edge now and then,
and the scores behind it move. With the ops of this program in place of transformers' own norms, attention and activation nothing is left of that.
"""
import json
import os
import pathlib
import subprocess
import sys
import types
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))
RECIPE = """[run]
dir = "run"
[data]
path = "stories:100KB"
tokenizer = "tokenizer"
context = 64
[model]
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 4
[optimizer]
lr = 3e-3
[train]
steps = 30
batch = 8
device = "cpu"
[eval]
samples = 0
"""
RULES = 'transform=[{match = ".*_proj", kind = "optical", q_levels = 256, noise = false}]'
ANIMALS, PLACES = ["cat", "dog", "bird", "fox", "hen"], ["river", "barn", "old house"]
TEXTS = [f"One day, a {a} met a {b}. The {b} lost a key in the {c} and they looked for it." for a in ANIMALS for b in ANIMALS for c in PLACES]


@pytest.fixture(scope="module")
def folder(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "rules.toml").write_text(RULES)
    for arguments in (["tokenizer", "train", "stories:100KB", "--vocab-size", "400", "--out", "tokenizer"], ["train", "recipe.toml"],
                      ["export", "run", "--out", "hf"]):
        subprocess.run([str(program), *arguments], cwd=folder, check=True, capture_output=True, env=dict(os.environ, XDG_CACHE_HOME=str(folder / "cache")))
    return folder


def in_the_medium(folder):
    import transformers
    refract = pytest.importorskip("refract")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf", dtype="float32").eval()
    refract.apply_rules(model, str(folder / "rules.toml"))
    return model


def with_our_kernels(model):
    """GPT-2's norms, attention and activation by our ops; its sums and its head are torch's in both."""
    from refract.library import ops

    def norm(self, x):
        return ops.norm(x, self.weight, self.bias, self.eps, False)

    def attention(self, hidden_states, *arguments, **options):
        mixed = ops.causal_attention(self.c_attn(hidden_states), self.num_heads, self.num_heads, self.head_dim**-0.5)
        return self.c_proj(mixed), None

    replaced = 0
    for module in model.modules():
        by = {"LayerNorm": norm, "GPT2Attention": attention}.get(type(module).__name__)
        if by:
            module.forward = types.MethodType(by, module)
            replaced += 1
        if type(module).__name__ == "GPT2MLP":
            module.act.forward = lambda x: ops.bias_gelu(x, None, True)
            replaced += 1
    assert replaced == 2 * 4 + 1
    return model


def scores(model, ids):
    import torch
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits[0]
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


def served_scores(server, ids):
    request = {"model": server["model"], "prompt": [ids], "temperature": 0, "max_tokens": 1, "logprobs": 1, "echo": True}
    answer = urllib.request.urlopen(urllib.request.Request(server["url"] + "/v1/completions", json.dumps(request).encode(), {"Content-Type": "application/json"}))
    return json.load(answer)["choices"][0]["logprobs"]["token_logprobs"][1:len(ids)]


def test_the_same_kernels_give_the_same_scores(folder, program, monkeypatch):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("REFRACT_PROGRAM", str(program))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from refract import evaluate
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    plain, same = in_the_medium(folder), with_our_kernels(in_the_medium(folder))
    dense = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf", dtype="float32").eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        apart, apart_plain, moved = [], [], []
        with evaluate.served(folder / "hf", [RULES]) as server:
            for text in TEXTS:
                ids = tokenizer(text)["input_ids"][:64]
                ours = torch.tensor(served_scores(server, ids))
                apart.append((ours - scores(same, ids)).abs().max().item())
                apart_plain.append((ours - scores(plain, ids)).abs())
                moved.append((ours - scores(dense, ids)).abs().max().item())
    finally:
        torch.set_num_threads(threads)
    assert min(moved) > 1e-3, "the medium changes every text's scores"
    assert max(apart) < 1e-4, "the bound that dense models are held to"
    # With transformers' own kernels a text has the same levels, and scores to rounding, or a number on the other side of an edge.
    plain_texts = torch.tensor([difference.max() for difference in apart_plain])
    assert (plain_texts < 1e-5).float().mean() > 0.5 and plain_texts.max() < 0.05
