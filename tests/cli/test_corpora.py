"""Corpora as people have them: compressed, mixed folders, links, odd .jsonl, names that are not UTF-8."""
import bz2
import gzip
import json
import os
import subprocess

import numpy
import pytest


def tokenize(refract, *arguments, code=0):
    return refract("tokenize", *arguments, "--tokenizer", "bytes", "--out", "shards", "--validation-fraction", "0", "--json",
                   code=code)


def text_of(tmp_path):
    (shard,) = (tmp_path / "shards").glob("*.bin")
    return bytes(token for token in numpy.fromfile(shard, dtype="<u2", offset=1024).tolist() if token < 256)


def zstd(data, block=100_000):
    """A frame that holds the data as they are; every zstd reads it, and none is needed to write it."""
    parts = [data[at:at + block] for at in range(0, len(data), block)]
    blocks = b"".join((len(part) << 3 | (i == len(parts) - 1)).to_bytes(3, "little") + part for i, part in enumerate(parts))
    return b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little") + blocks


TEXT = "".join(f"a line, the {i}th\n" for i in range(100_000)).encode()


@pytest.mark.parametrize("name", ["t.txt.gz", "t.TXT.GZ", "t.jsonl.gz", "T.Jsonl.Gz"])
def test_gzip_is_read(refract, tmp_path, name):
    data = TEXT if "txt" in name.lower() else b"".join(
        json.dumps({"text": line.decode()}).encode() + b"\n" for line in TEXT.splitlines(keepends=True))
    (tmp_path / name).write_bytes(gzip.compress(data[:100_000]) + gzip.compress(data[100_000:]) + bytes(512))
    tokenize(refract, name)
    assert text_of(tmp_path) == TEXT


@pytest.mark.parametrize("name", ["t.txt.zst", "t.JSONL.zst"])
def test_zstd_is_read(refract, tmp_path, name):
    data = TEXT if "txt" in name else b"".join(
        json.dumps({"text": line.decode()}).encode() + b"\n" for line in TEXT.splitlines(keepends=True))
    (tmp_path / name).write_bytes(zstd(data[:150_000]) + zstd(data[150_000:]))
    tokenize(refract, name)
    assert text_of(tmp_path) == TEXT
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-20])
    done = refract("tokenize", name, "--tokenizer", "bytes", "--out", "more", code=1)
    assert f"'{name}' is cut off" in done.stderr


@pytest.mark.parametrize("name, data, words", [
    ("a.txt.gz", gzip.compress(TEXT)[:-30], "'a.txt.gz' is cut off"),
    ("a.jsonl.gz", b"{}\n", "'a.jsonl.gz' is not gzip data"),
    ("a.txt.gz", b"", "'a.txt.gz' is cut off"),
    ("a.txt.gz", gzip.compress(TEXT)[:2000] + bytes(2000), "'a.txt.gz' is damaged"),
    ("a.txt.zst", gzip.compress(b"x"), "'a.txt.zst' is not zstd data: it is gzip data"),
    ("a.txt", gzip.compress(TEXT), "gzip data; name it .txt.gz"),
    ("a.jsonl", bz2.compress(TEXT), "bzip2 data"),
    ("a.txt", "text\n".encode("utf-16"), "UTF-16"),
    ("a.txt", b"%PDF-1.7\n" + TEXT, "PDF"),
    ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    ("a.jsonl", b"<html><body>502 Bad Gateway</body></html>", "a.jsonl:1: the line is not an object"),
    ("a.csv.gz", gzip.compress(TEXT), "not a kind of corpus"),
])
def test_what_is_no_text_is_named(refract, tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    try:
        done = tokenize(refract, name, code=1)
    except AssertionError:
        done = tokenize(refract, name, code=2)
    assert words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list((tmp_path).glob("shards/*.bin*"))


def test_what_a_folder_holds_beside_is_said_once(refract, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.txt", "b.Txt", "c.json", "d.html", "notes", ".hidden.txt"):
        (folder / name).write_text(f"text of {name}\n")
    (folder / "e.jsonl.GZ").write_bytes(gzip.compress(b'{"text": "packed"}\n'))
    done = tokenize(refract, "mixed")
    assert json.loads(done.stdout)["documents"] == 3
    (said,) = [line for line in done.stderr.splitlines() if "left out" in line]
    assert "c.json, d.html, notes;" in said and "a.txt" not in said and "hidden" not in said


@pytest.mark.parametrize("links, documents", [
    ({"sub/up": ".."}, 2), ({"self": "."}, 2), ({"again": "sub"}, 2), ({"sub/far": "../sub/deep"}, 2),
    ({"x": "y", "y": "."}, 2)])
def test_a_folder_is_read_once_however_many_links_lead_to_it(refract, tmp_path, links, documents):
    corpus = tmp_path / "corpus"
    (corpus / "sub/deep").mkdir(parents=True)
    (corpus / "a.txt").write_text("one\n")
    (corpus / "sub/b.txt").write_text("two\n")
    for name, target in links.items():
        (corpus / name).symlink_to(target)
    assert json.loads(tokenize(refract, "corpus").stdout)["documents"] == documents


@pytest.mark.parametrize("name", ["gone.txt", "gone", "sub/gone.jsonl.gz"])
def test_a_broken_link_is_an_error(refract, tmp_path, name):
    (tmp_path / "corpus/sub").mkdir(parents=True)
    (tmp_path / "corpus/a.txt").write_text("one\n")
    (tmp_path / "corpus" / name).symlink_to("nowhere")
    done = tokenize(refract, "corpus", code=2)
    assert f"'corpus/{name}' is a link that leads nowhere" in done.stderr
    assert "leads nowhere" in tokenize(refract, f"corpus/{name}", code=2).stderr


@pytest.mark.parametrize("line", [
    b'{"n": [NaN, -Infinity, {"x": Infinity}], "text": "t"}', b'{"text": "a", "text": "t"}',
    b' {"text" : "t" , "more":{"text":"no"}} \r', b'{"big": -12.5e+300, "text":"t", "e": []}',
    b'{"deep": ' + b"[" * 50_000 + b"]" * 50_000 + b', "text":"t"}', '{"te\\u0078t": "\\u0074"}'.encode()])
def test_lines_that_python_reads(refract, tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "first "}\n' + line + b"\n")
    assert json.loads(tokenize(refract, "a.jsonl").stdout)["documents"] == 2
    assert text_of(tmp_path).endswith(b"t") and text_of(tmp_path).startswith(b"first ")


@pytest.mark.parametrize("line, text", [
    (b'{"text": "\\udc00 low first"}', "\ufffd low first"), (b'{"text": "\\ud83d\\ud83d\\ude00"}', "\ufffd\U0001f600"),
    (b'{"text": "\\ud83dx"}', "\ufffdx"), (b'{"text": "\xff\xfe caf\xe9"}', "\ufffd\ufffd caf\ufffd"),
    (b'{"text": "\\uD83D\\n"}', "\ufffd\n"), (b'{"text": "\\/\\b\\f\\t"}', "/\b\f\t")])
def test_what_is_no_character_becomes_the_replacement(refract, tmp_path, line, text):
    (tmp_path / "a.jsonl").write_bytes(line + b"\n")
    tokenize(refract, "a.jsonl")
    assert text_of(tmp_path).decode() == text


@pytest.mark.parametrize("line, words", [
    (b'{"text": "cut', "the line ends inside its object"), (b'{"text": "a"} {"text": "b"}', "goes on behind its object"),
    (b'{"text": "a",}', "no key in quotes"), (b'{"text": 007}', "no JSON value"), (b'{"text": .5}', "no JSON value"),
    (b"{'text': 'a'}", "quotes"), (b'{"text": true}', "'text' is a truth value, not a text"),
    (b'{"text": null}', "'text' is null, not a text"), (b'{"body": "x"}', "no field 'text' (it has: body)"),
    (b'{"text": "a\tb"}', "control character"), (b'"text"', "not an object"), (b'{"text": "\\x41"}', "escape")])
def test_a_bad_line_is_named_with_its_number(refract, tmp_path, line, words):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "good"}\r\n\n   \n' + line + b'\n{"text": "behind"}\n')
    done = tokenize(refract, "a.jsonl", code=1)
    assert "a.jsonl:4: " in done.stderr and len(done.stderr.splitlines()) == 1
    assert words.replace("no key in quotes", "something else than a key in quotes") in done.stderr


def test_names_that_are_not_utf8(program, tmp_path):
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    for name in (b"in/na\xefve.txt", b"in/\xa4.jsonl"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(b'{"text": "some text"}\n' * 100)

    def call(*arguments):
        done = subprocess.run([program, *arguments], cwd=tmp_path, env=environment, capture_output=True)
        return done

    shards = call("tokenize", "in", "--tokenizer", "bytes", "--out", b"sh\xe4rds", "--json")
    assert shards.returncode == 0 and json.loads(shards.stdout)["documents"] == 101
    small = ["train", "r.toml", "train.steps=1", "eval.samples=0"]
    (tmp_path / "r.toml").write_text('[data]\ncontext = 8\ntokenizer = "bytes"\n[model]\nhidden_size = 16\n'
                                     'num_hidden_layers = 1\nnum_attention_heads = 2\n[train]\nbatch = 2\ndevice = "cpu"\n')
    assert call(*small, "data.path=in", "run.dir=ok").returncode == 0
    assert call("eval", "ok").returncode == 0
    for override in (b"run.dir=r\xfcn", b"data.path=in/na\xefve.txt", b"eval.prompt=caf\xe9"):
        refused = call(*small, "data.path=in", override)
        assert refused.returncode == 2 and b"is not UTF-8" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    moved = os.path.join(os.fsencode(tmp_path), b"m\xf6ved")
    os.rename(tmp_path / "ok", moved)
    assert call("eval", b"m\xf6ved").returncode == 0
    assert call("generate", b"m\xf6ved", "--prompt", b"caf\xe9", "--max-tokens", "2").returncode in (0, 2)
