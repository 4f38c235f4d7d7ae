"""scripts/english-text turns a tree of documentation into a corpus, without a network."""
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROSE = "It is the first of the rules that a reader of this text should keep in mind, and the second is like it. "


def run(*arguments, code=0):
    result = subprocess.run([sys.executable, ROOT / "scripts/english-text", *arguments], capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    return result


def texts(path):
    return [json.loads(line)["text"] for line in gzip.open(path, "rt")]


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "doc").mkdir(parents=True)
    (folder / "doc/plain.txt").write_text("Plain. " + 10 * PROSE)
    (folder / "doc/again.txt").write_text("Plain. " + 10 * PROSE)
    (folder / "doc/packed.rst.gz").write_bytes(gzip.compress(("Packed. " + 10 * PROSE).encode()))
    (folder / "doc/page.html").write_text("<html><head><title>No</title></head><body><nav>Menu</nav><h1>Page &amp; more</h1><p>"
                                          + 10 * PROSE + "</p><script>var x;</script></body></html>")
    (folder / "doc/module.pod").write_text("=head1 NAME\n\nA B<bold> C<word>. " + 10 * PROSE + "\n\n=cut\n")
    (folder / "doc/table.txt").write_text("17 4 32 0x14 9 2\n" * 100)
    (folder / "doc/short.txt").write_text(PROSE)
    (folder / "doc/changelog.txt").write_text(10 * PROSE)
    (folder / "doc/latin.txt").write_bytes("é".encode("latin-1") + 10 * PROSE.encode())
    (folder / "data.noun").write_text("  1 a licence\n" + 10 * ("00001740 03 n 02 entity 0 ice_cream 0 003 ~ 00001930 n 0000 | that which is "
                                                                "known to be of the kind of this and of that  \n"))
    for number in range(300):
        (folder / f"doc/{number:03}.txt").write_text(f"Number {number}. " + 8 * PROSE)
    return folder


def test_the_corpus_is_the_english_of_the_tree(tree, tmp_path):
    run(tmp_path / "out", "--from", tree)
    train, validation = (texts(tmp_path / "out" / f"{name}.jsonl.gz") for name in ("train", "validation"))
    everything = train + validation
    starts = {text.split(".")[0].split(":")[0] for text in everything}
    assert {"Plain", "Packed", "entity, ice cream"} <= starts and len(everything) == len(set(everything)) == 305
    (page,) = (text for text in everything if text.startswith("Page & more"))
    assert "Menu" not in page and "var x" not in page and "No" not in page
    (pod,) = (text for text in everything if "A bold word." in text)
    assert "=head1" not in pod and "=cut" not in pod
    assert 0 < len(validation) < 20, "one in a hundred by their text"
    run(tmp_path / "again", "--from", tree)
    for name in ("train.jsonl.gz", "validation.jsonl.gz"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_long_documents_are_cut_and_the_size_is_bounded(tree, tmp_path):
    (tree / "doc/long.txt").write_text("".join(f"Paragraph {number}. {PROSE}\n\n" for number in range(2500)))
    run(tmp_path / "out", "--from", tree)
    pieces = [text for name in ("train", "validation") for text in texts(tmp_path / "out" / f"{name}.jsonl.gz") if text.startswith("Paragraph")]
    assert len(pieces) == 4 and all(len(text) <= 100_000 for text in pieces)
    assert sum(text.count("Paragraph") for text in pieces) == 2500
    run(tmp_path / "small", "--from", tree, "--megabytes", "0.01")
    assert (tmp_path / "small/train.jsonl.gz").stat().st_size <= 12_000


def test_mistakes_are_named(tmp_path):
    assert "is no folder" in run(tmp_path / "out", "--from", tmp_path / "nothing", code=1).stderr
    (tmp_path / "empty").mkdir()
    assert "no English text" in run(tmp_path / "out", "--from", tmp_path / "empty", code=1).stderr


def test_both_tables_have_the_same_rows():
    """docs/examples/gpt2-media.toml and smollm2-media.toml differ in what repairs their models."""
    rows = []
    for name in ("gpt2", "smollm2"):
        text = (ROOT / f"docs/examples/{name}-media.toml").read_text()
        rows.append(text[text.index("[[row]]"):])
    assert rows[0] == rows[1]
