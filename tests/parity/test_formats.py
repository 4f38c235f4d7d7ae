"""Our safetensors files, configurations and model folders against the libraries that define them."""

import json
import os
import shutil
import struct

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from probe import probe, probe_error  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM  # noqa: E402


def small_gpt2(**settings):
    torch.manual_seed(3)
    return GPT2LMHeadModel(GPT2Config(**{**dict(vocab_size=31, n_positions=16, n_embd=16, n_layer=2, n_head=2,
                                                bos_token_id=0, eos_token_id=1), **settings}))


def small_llama(**settings):
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**{**dict(vocab_size=31, hidden_size=16, intermediate_size=24,
                                                  num_hidden_layers=2, num_attention_heads=2), **settings}))


@pytest.fixture
def gpt2(tmp_path):
    small_gpt2().save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


@pytest.fixture
def llama(tmp_path):
    small_llama().save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def edit(folder, **keys):
    config = json.loads((folder / "config.json").read_text())
    for key, value in keys.items():
        if value is Ellipsis:
            config.pop(key, None)
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def settings(folder):
    return json.loads(probe("config", folder))


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.float8_e4m3fn,
          torch.float8_e5m2, torch.complex64]


def test_every_dtype_is_copied_to_the_same_bytes(tmp_path):
    tensors = {f"t.{str(d)[6:]}": (torch.arange(15) % 2).reshape(3, 5).to(d) for d in DTYPES}
    tensors["empty"] = torch.empty(0, 4)
    tensors["scalar"] = torch.tensor(3.5)
    tensors['quote " backslash \\ é'] = torch.ones(2)
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    probe("copy", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    copied = load_file(tmp_path / "b.safetensors")
    assert set(copied) == set(tensors)
    for name, tensor in tensors.items():
        assert copied[name].dtype == tensor.dtype and copied[name].shape == tensor.shape, name
        assert bytes(copied[name].contiguous().view(torch.uint8).numpy() if tensor.dim() else
                     struct.pack("f", copied[name])) == \
               bytes(tensor.contiguous().view(torch.uint8).numpy() if tensor.dim() else struct.pack("f", tensor)), name
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_file_whose_data_is_not_aligned_is_read(tmp_path):
    header = b'{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'
    header += b" " * ((5 - len(header)) % 8)  # data begins at 5 modulo 8
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<3f", 1, 2, 3))
    probe("copy", tmp_path / "a", tmp_path / "b")
    assert load_file(tmp_path / "b")["x"].tolist() == [1, 2, 3]


def test_metadata_and_alignment_of_what_we_write(gpt2, tmp_path):
    probe("save", gpt2, tmp_path / "ours")
    path = tmp_path / "ours/model.safetensors"
    with safe_open(path, "pt") as f:
        assert f.metadata() == {"format": "pt"}
        assert "lm_head.weight" not in f.keys()
    assert struct.unpack("<Q", path.read_bytes()[:8])[0] % 8 == 0
    assert not list((tmp_path / "ours").glob("*.partial"))


# --- config.json ---

def test_version_4_spelling_reads_the_same(llama):
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512}
    edit(llama, rope_parameters={**rope, "rope_theta": 5e5})
    five = settings(llama)
    edit(llama, rope_parameters=..., rope_theta=5e5, rope_scaling=rope, dtype=..., torch_dtype="float32")
    assert settings(llama) == five
    assert five["rope_scaling"] == "llama3" and five["rope_theta"] == 5e5 and five["rope_factor"] == 8
    edit(llama, rope_scaling={"type": "linear", "factor": 2.0})  # as old version 4 files have it
    assert settings(llama)["rope_scaling"] == "linear"
    edit(llama, rope_scaling=None)
    assert settings(llama)["rope_scaling"] == "none" and settings(llama)["rope_theta"] == 5e5


def test_what_we_write_holds_both_spellings(tmp_path):
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512, "rope_theta": 5e5}
    model = small_llama(rope_parameters=rope)
    model.save_pretrained(tmp_path / "hf")
    probe("save", tmp_path / "hf", tmp_path / "ours", "bfloat16")
    written = json.loads((tmp_path / "ours/config.json").read_text())
    assert written["rope_parameters"] == rope
    assert written["rope_theta"] == 5e5
    assert written["rope_scaling"] == {k: v for k, v in rope.items() if k != "rope_theta"}
    assert written["dtype"] == written["torch_dtype"] == "bfloat16"
    opened = AutoConfig.from_pretrained(tmp_path / "ours")
    assert opened.rope_parameters == rope and opened.dtype == torch.bfloat16
    assert (tmp_path / "ours/generation_config.json").exists()


@pytest.mark.parametrize("family,keys,words", [
    ("gpt2", {"activation_function": "relu"}, ["activation_function", "relu"]),
    ("gpt2", {"scale_attn_weights": False}, ["scale_attn_weights", "false"]),
    ("gpt2", {"add_cross_attention": True}, ["add_cross_attention", "true"]),
    ("gpt2", {"n_embd": 0}, ["n_embd", "0"]),
    ("gpt2", {"n_head": 3}, ["hidden_size", "num_attention_heads"]),
    ("gpt2", {"n_layer": "two"}, ["n_layer", "two"]),
    ("gpt2", {"model_type": "bloom"}, ["model_type", "bloom", "llama"]),
    ("gpt2", {"model_type": ...}, ["model_type"]),
    ("gpt2", {"quantization_config": {"bits": 4}}, ["quantization_config"]),
    ("llama", {"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
    ("llama", {"hidden_size": ...}, ["hidden_size"]),
    ("llama", {"rope_parameters": {"rope_type": "longrope", "factor": 4.0}}, ["rope_type", "longrope", "yarn"]),
    ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, ["full_attention"]),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0}}, ["attention_factor", "0"]),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, ["factor"]),
    ("llama", {"rope_scaling": {"type": "dynamic"}}, ["factor"]),
    ("llama", {"model_type": "mistral", "sliding_window": 0}, ["sliding_window", "0"]),
    ("llama", {"model_type": "mistral", "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]},
     ["layer_types", "full_attention"]),
    ("llama", {"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["chunked_attention", "full_attention"]},
     ["layer_types", "chunked_attention"]),
    ("llama", {"model_type": "qwen2", "layer_types": ["sliding_attention", "full_attention"]}, ["layer_types", "use_sliding_window"]),
    ("llama", {"model_type": "qwen2_moe"}, ["qwen2_moe", "gpt2, llama, mistral, qwen2, qwen3, gpt_neox"]),
    ("llama", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "0.5"]),
    ("llama", {"num_key_value_heads": 3}, ["num_key_value_heads", "3"]),
])
def test_what_the_decoder_can_not_do_is_refused_by_name(family, keys, words, tmp_path):
    (small_gpt2() if family == "gpt2" else small_llama()).save_pretrained(tmp_path / "hf")
    edit(tmp_path / "hf", **keys)
    message = probe_error("config", tmp_path / "hf")
    assert "config.json" in message
    for word in words:
        assert word in message, message


# --- weights ---

def test_gpt2_keys_without_the_prefix_and_with_old_masks(gpt2, tmp_path):
    probe("save", gpt2, tmp_path / "before")

    def change(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        for i in range(2):
            tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
            tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)

    edit_weights(gpt2, change)
    probe("save", gpt2, tmp_path / "after")
    assert (tmp_path / "before/model.safetensors").read_bytes() == (tmp_path / "after/model.safetensors").read_bytes()


def test_the_head_of_a_tied_model(gpt2, tmp_path):
    def same(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()

    def only(tensors):
        del tensors["transformer.wte.weight"]

    def other(tensors):
        tensors["transformer.wte.weight"] = tensors["lm_head.weight"] + 1

    probe("save", gpt2, tmp_path / "plain")
    for i, change in enumerate([same, only]):
        edit_weights(gpt2, change)
        probe("save", gpt2, tmp_path / str(i))
        assert (tmp_path / str(i) / "model.safetensors").read_bytes() == \
               (tmp_path / "plain/model.safetensors").read_bytes()
    edit_weights(gpt2, other)
    assert "tie_word_embeddings" in probe_error("save", gpt2, tmp_path / "out")


def test_missing_unexpected_and_misshaped_tensors_are_named(llama, tmp_path):
    def change(tensors):
        del tensors["model.layers.1.self_attn.k_proj.weight"]
        tensors["model.layers.0.mlp.extra.weight"] = torch.zeros(2, 3)
        tensors["model.norm.weight"] = torch.zeros(17)
        tensors["lm_head.weight"] = torch.zeros(31, 16, dtype=torch.int32)

    edit_weights(llama, change)
    message = probe_error("save", llama, tmp_path / "out")
    for words in ["'model.layers.1.self_attn.k_proj.weight' [16, 16]", "'model.layers.0.mlp.extra.weight' F32 [2, 3]",
                  "'model.norm.weight' F32 [17]", "'lm_head.weight' I32 [31, 16]", "[16]"]:
        assert words in message, message
    assert not (tmp_path / "out/model.safetensors").exists()


def test_only_the_first_few_are_listed(llama, tmp_path):
    edit(llama, num_hidden_layers=12)
    message = probe_error("save", llama, tmp_path / "out")
    assert "and 86 more" in message and len(message) < 700, message


def test_a_fused_tensor_of_the_wrong_shape(gpt2, tmp_path):
    edit_weights(gpt2, lambda t: t.update({"transformer.h.0.attn.c_attn.weight": torch.zeros(16, 47)}))
    message = probe_error("save", gpt2, tmp_path / "out")
    assert "transformer.h.0.attn.c_attn.weight" in message and "[16, 47]" in message


def test_shards_are_read_by_the_index_alone(tmp_path):
    model = small_llama()
    model.save_pretrained(tmp_path / "hf", max_shard_size="4KB")
    probe("save", tmp_path / "hf", tmp_path / "before")
    index_path = tmp_path / "hf/model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    renamed = {name: f"part{i}.bin" for i, name in enumerate(sorted(set(index["weight_map"].values())))}
    for old, new in renamed.items():
        os.rename(tmp_path / "hf" / old, tmp_path / "hf" / new)
    index["weight_map"] = {k: renamed[v] for k, v in index["weight_map"].items()}
    index_path.write_text(json.dumps(index))
    # A stray file with a name of the usual form is no part of the model.
    save_file({"stray": torch.zeros(1)}, tmp_path / "hf/model-00001-of-00009.safetensors")
    probe("save", tmp_path / "hf", tmp_path / "after")
    assert (tmp_path / "before/model.safetensors").read_bytes() == (tmp_path / "after/model.safetensors").read_bytes()

    os.rename(tmp_path / "hf/part1.bin", tmp_path / "hf/gone")
    assert "part1.bin" in probe_error("save", tmp_path / "hf", tmp_path / "out")
    os.rename(tmp_path / "hf/gone", tmp_path / "hf/part1.bin")
    index["weight_map"]["model.norm.weight"] = "../escape"
    index_path.write_text(json.dumps(index))
    assert "../escape" in probe_error("save", tmp_path / "hf", tmp_path / "out")


def test_a_second_save_leaves_nothing_of_the_first(llama, tmp_path):
    out = tmp_path / "out"
    probe("save", llama, out, "float32", 4000)
    assert len(list(out.glob("model-*.safetensors"))) > 2
    probe("save", llama, out)
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]
    probe("save", llama, out, "float32", 4000)
    assert not (out / "model.safetensors").exists()
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = {p.name for p in out.glob("model-*.safetensors")}
    assert set(index["weight_map"].values()) == shards
    total = sum(t.numel() * 4 for s in shards for t in load_file(out / s).values())
    assert index["metadata"]["total_size"] == total


def test_folders_without_a_model(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "config.json" in probe_error("config", tmp_path / "empty")
    small_gpt2().save_pretrained(tmp_path / "hf")
    os.rename(tmp_path / "hf/model.safetensors", tmp_path / "hf/pytorch_model.bin")
    assert "pytorch_model.bin" in probe_error("save", tmp_path / "hf", tmp_path / "out")
    os.remove(tmp_path / "hf/pytorch_model.bin")
    assert "model.safetensors" in probe_error("save", tmp_path / "hf", tmp_path / "out")


# --- names of models ---

def make_cache(cache, repository, commit, source, reference="main"):
    """The Hub cache's layout, blobs and links included."""
    root = cache / repository
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in source.iterdir():
        blob = root / "blobs" / f"{commit}{file.name}"
        shutil.copy(file, blob)
        os.symlink(os.path.relpath(blob, snapshot), snapshot / file.name)
    (root / "refs" / reference).write_text(commit)
    return snapshot


def test_hub_ids_are_found_in_the_cache(gpt2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no folder has such a name
    cache = tmp_path / "home/hub"
    snapshot = make_cache(cache, "models--org--name", "abc123", gpt2)
    make_cache(cache, "models--gpt2", "def456", gpt2)
    other = make_cache(cache, "models--org--name", "0ff", gpt2, "v2")
    env = {"HF_HOME": str(tmp_path / "home")}
    unset = {"HF_HUB_CACHE": "", "HF_HOME": "", "XDG_CACHE_HOME": ""}
    assert probe("resolve", "org/name", env={**unset, **env}) == str(snapshot)
    assert probe("resolve", "org/name@v2", env={**unset, **env}) == str(other)
    assert probe("resolve", "org/name@0ff", env={**unset, **env}) == str(other)
    assert probe("resolve", "gpt2", env={**unset, **env}).endswith("def456")
    assert probe("resolve", "org/name", env={**unset, "HF_HUB_CACHE": str(cache)}) == str(snapshot)
    os.makedirs(tmp_path / "xdg/huggingface")
    os.symlink(cache, tmp_path / "xdg/huggingface/hub")
    assert probe("resolve", "org/name", env={**unset, "XDG_CACHE_HOME": str(tmp_path / "xdg")}).endswith("abc123")
    probe("save", snapshot, tmp_path / "out")
    message = probe_error("resolve", "org/absent", env={**unset, **env})
    assert "hf download org/absent" in message and str(cache) in message
    assert "there is no folder" in probe_error("resolve", "some/folder/below", env={**unset, **env})
    os.remove(snapshot / "model.safetensors")
    assert "hf download org/name" in probe_error("resolve", "org/name", env={**unset, **env})


def test_a_run_means_its_newest_finished_checkpoint(gpt2, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    assert "no finished checkpoint" in probe_error("resolve", run)
    for step in (90, 100, 9):
        shutil.copytree(gpt2, run / f"checkpoints/step-{step:08d}")
    shutil.copytree(gpt2, run / "checkpoints/step-00000200.partial")
    (run / "checkpoints/step-00000300").mkdir()
    (run / "checkpoints/step-00000300/config.json").write_text("{}")
    assert probe("resolve", run) == str(run / "checkpoints/step-00000100")
    assert probe("resolve", gpt2) == str(gpt2)
    (tmp_path / "nothing").mkdir()
    assert "config.json" in probe_error("resolve", tmp_path / "nothing")
    assert "is a file" in probe_error("resolve", gpt2 / "config.json")
