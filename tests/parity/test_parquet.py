"""Parquet files are read as pyarrow reads them, and what can't be read is named."""
import json
import random
import subprocess

import pytest

from probe import find_program

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (scripts/bootstrap --full)")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def probe():
    path = find_program("data_probe")
    if not (path.parents[1] / "lib/librefract_parquet.so").exists():
        pytest.skip("the program was built before pyarrow was installed; run make test")
    return path


def run(probe, *paths, field="text", min_chars=0):
    return subprocess.run([probe, "documents", field, str(min_chars), *map(str, paths)], capture_output=True, timeout=120)


def documents(probe, *paths, **options):
    done = run(probe, *paths, **options)
    assert done.returncode == 0, done.stderr.decode()
    return [part.decode() for part in done.stdout.split(b"\0")[:-1]]


def error(probe, *paths, **options):
    done = run(probe, *paths, **options)
    assert done.returncode in (1, 2)
    message = done.stderr.decode()
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def texts(count, seed=1):
    draw = random.Random(seed)
    words = ["light", "bends", "é", "日本", "\n", "a" * 40, "🙂", '"quoted"']
    return [" ".join(draw.choices(words, k=draw.randrange(60))) for _ in range(count)]


TEXTS = texts(3000) + [None, "", "the longest " * 300_000, None] + texts(500, seed=2)
KEPT = [text for text in TEXTS if text]


@pytest.mark.parametrize("options", [
    {},
    {"compression": "zstd", "row_group_size": 100},
    {"compression": "gzip", "data_page_version": "2.0"},
    {"compression": "brotli", "use_dictionary": False},
    {"compression": "lz4", "data_page_size": 1000},
    {"compression": "none", "use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    {"compression": "snappy", "use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}},
    {"write_page_checksum": True, "version": "1.0"},
])
def test_what_pyarrow_writes_is_read(probe, tmp_path, options):
    table = pyarrow.table({"id": range(len(TEXTS)), "text": TEXTS})
    pq.write_table(table, tmp_path / "t.parquet", **options)
    assert documents(probe, tmp_path / "t.parquet") == KEPT
    assert [text for text in pq.read_table(tmp_path / "t.parquet")["text"].to_pylist() if text] == KEPT


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.binary(), pyarrow.large_binary(), pyarrow.string_view(),
                                  pyarrow.dictionary(pyarrow.int32(), pyarrow.string())], ids=str)
def test_every_kind_of_text_column(probe, tmp_path, kind):
    values = pyarrow.array(["one", None, "two", "one"]).cast(kind)
    pq.write_table(pyarrow.table({"text": values}), tmp_path / "t.parquet")
    assert documents(probe, tmp_path / "t.parquet") == ["one", "two", "one"]


def test_texts_inside_structures(probe, tmp_path):
    rows = [{"meta": {"body": {"text": f"document {i}"}, "id": i}} for i in range(50)]
    rows[3] = {"meta": None}
    rows[4] = {"meta": {"body": None, "id": 4}}
    rows[5] = {"meta": {"body": {"text": None}, "id": 5}}
    expected = [f"document {i}" for i in range(50) if i not in (3, 4, 5)]
    pq.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert documents(probe, tmp_path / "t.parquet", field="meta.body.text") == expected
    lines = [json.dumps(row) for i, row in enumerate(rows) if i not in (3, 4, 5)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert documents(probe, tmp_path / "t.jsonl", field="meta.body.text") == expected
    message = error(probe, tmp_path / "t.parquet", field="meta")
    assert "'meta' is no text but has columns of its own (there are: meta.body.text, meta.id)" in message


def test_folders_mix_kinds_and_short_documents_can_be_left_out(probe, tmp_path):
    pq.write_table(pyarrow.table({"text": ["short", "五文字です", "long enough"]}), tmp_path / "b.parquet")
    (tmp_path / "a.jsonl").write_text('{"text":"first of all"}\n{"text":"no"}\n')
    assert documents(probe, tmp_path) == ["first of all", "no", "short", "五文字です", "long enough"]
    assert documents(probe, tmp_path, min_chars=5) == ["first of all", "short", "五文字です", "long enough"]
    assert documents(probe, tmp_path, min_chars=6) == ["first of all", "long enough"]


def test_a_table_without_rows(probe, tmp_path):
    pq.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "t.parquet")
    assert documents(probe, tmp_path / "t.parquet") == []


def test_columns_that_are_no_text_are_named(probe, tmp_path):
    table = pyarrow.table({"id": [1], "body": ["x"], "parts": [["a", "b"]], "price": pyarrow.array([1.5])})
    pq.write_table(table, tmp_path / "t.parquet")
    file = tmp_path / "t.parquet"
    missing = error(probe, file)
    assert "t.parquet' can't be read as Parquet: it has no column 'text' (there are: id, body, parts.list.element, price)" in missing
    assert "data.text_field" in missing
    assert "'id' holds no text but INT64" in error(probe, file, field="id")
    assert "'parts.list.element' holds lists" in error(probe, file, field="parts.list.element")
    assert documents(probe, file, field="body") == ["x"]


def test_damaged_files_are_named(probe, tmp_path):
    file = tmp_path / "t.parquet"
    pq.write_table(pyarrow.table({"text": TEXTS[:2000]}), file, write_page_checksum=True, compression="none")
    whole = file.read_bytes()
    for data, words in [
        (whole[:-1000], "is cut off"),
        (whole[:3], "no Parquet file"),
        (whole[:4], "is cut off"),
        (b"", "no Parquet file"),
        (b"PARE" + whole[4:], "is encrypted"),
        (whole[:-4] + b"PARE", "is encrypted"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b'{"text": "x"}\n', "no Parquet file"),
        (whole[:200] + whole[900:], "can't be read as Parquet"),
        (whole[:5000] + b"?" + whole[5001:], "can't be read as Parquet"),
        (whole[:-8] + b"\xff\xff\xff\x7fPAR1", "can't be read as Parquet"),
    ]:
        file.write_bytes(data)
        assert words in error(probe, file), words


def test_any_byte_may_be_wrong(probe, tmp_path):
    pq.write_table(pyarrow.table({"text": TEXTS[:40], "id": range(40)}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    draw = random.Random(7)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 1, 1, 8])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / "t.parquet").write_bytes(data)
        done = run(probe, tmp_path / "t.parquet")
        assert done.returncode in (0, 1), done  # no signal
        refused += done.returncode
        assert done.returncode == 0 or b"t.parquet'" in done.stderr
    assert refused > 5


def peak_at(child, wanted):
    """The most memory, in KB, that a program took until it had written that many bytes; it goes on to its end."""
    read = 0
    while read < wanted:
        read += len(child.stdout.read(1_000_000))
    with open(f"/proc/{child.pid}/status") as status:
        (peak,) = [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
    child.communicate()
    assert child.returncode == 0
    return peak


def test_memory_stays_flat_where_one_long_value_stands_in_all_rows(probe, tmp_path):
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), pyarrow.array(["x" * 500_000]))
    pq.write_table(pyarrow.table({"text": values}), tmp_path / "t.parquet", compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 10_000
    child = subprocess.Popen([probe, "documents", "text", "0", tmp_path / "t.parquet"], stdout=subprocess.PIPE)
    peak = peak_at(child, 400_000_000)
    assert peak < 80_000, f"{peak} KB for a value of 500 KB"


def test_memory_stays_flat(probe, tmp_path):
    text = " ".join(texts(20, seed=3))
    rows = 100_000_000 // len(text.encode())
    with pq.ParquetWriter(tmp_path / "t.parquet", pyarrow.schema([("text", pyarrow.string())]), compression="zstd",
                          use_dictionary=False) as writer:
        writer.write_table(pyarrow.table({"text": [f"{i} {text}" for i in range(rows)]}), row_group_size=rows)
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 1
    child = subprocess.Popen([probe, "documents", "text", "0", tmp_path / "t.parquet"], stdout=subprocess.PIPE)
    peak = peak_at(child, 90_000_000)
    assert peak < 80_000, f"{peak} KB for one row group of 100 MB"
