"""Files that are not what their names say: pointers of Git LFS, pages of failed downloads, files that are cut off."""
import shutil

import pytest

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 12345\n"
PAGE = b"\n<!doctype HTML>\n<html><head><title>403 Forbidden</title></head></html>\n"


@pytest.fixture(scope="module")
def exported(program, tmp_path_factory):
    import os
    import subprocess
    folder = tmp_path_factory.mktemp("model")
    (folder / "r.toml").write_text('[run]\ndir = "run"\n[data]\npath = "stories:20KB"\ntokenizer = "bytes"\ncontext = 8\n[model]\n'
                                   'hidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\n[train]\nsteps = 1\nbatch = 2\n'
                                   'device = "cpu"\n[eval]\nsamples = 0\n')
    environment = dict(os.environ, XDG_CACHE_HOME=str(folder / "cache"))
    for arguments in (["tokenizer", "train", "stories:50KB", "--vocab-size", "300", "--out", "tok/tokenizer.json"],
                      ["train", "r.toml", "data.tokenizer=tok"], ["export", "run", "--out", "hf"]):
        subprocess.run([program, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    return folder / "hf"


@pytest.mark.parametrize("content, words", [(POINTER, "a Git LFS pointer"), (PAGE, "an HTML page")], ids=["pointer", "page"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_stand_in_for_a_file_of_a_model(refract, exported, tmp_path, name, content, words):
    shutil.copytree(exported, tmp_path / "m")
    (tmp_path / "m" / name).write_bytes(content)
    done = refract("generate", "m", "--max-tokens", "2", code=1)
    assert words in done.stderr and name in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.99])
def test_a_file_of_a_model_that_is_cut_off(refract, exported, tmp_path, name, kept):
    shutil.copytree(exported, tmp_path / "m")
    whole = (tmp_path / "m" / name).read_bytes()
    (tmp_path / "m" / name).write_bytes(whole[:int(len(whole) * kept)])
    try:
        done = refract("generate", "m", "--max-tokens", "2", code=1)
    except AssertionError:
        done = refract("generate", "m", "--max-tokens", "2", code=2)
    assert name in done.stderr and len(done.stderr.splitlines()) == 1
    for library in ("[json.exception", "std::", "c10::", "toml::"):
        assert library not in done.stderr


@pytest.mark.parametrize("content, words", [
    (POINTER, "a Git LFS pointer"), (b"\x93NUMPY\x01\x00" + bytes(200), "a NumPy array"), (b"PK\x03\x04" + bytes(100), "a zip archive"),
    (PAGE, "an HTML page"), (b"GGUF" + bytes(100), "a GGUF model")])
def test_a_stand_in_for_token_shards(refract, recipe, tmp_path, content, words):
    (tmp_path / "train.bin").write_bytes(content)
    done = refract("train", recipe, "data.path=train.bin", "data.tokenizer=bytes", code=1)
    assert "'train.bin' is not a token shard: it is " + words in done.stderr and len(done.stderr.splitlines()) == 1
