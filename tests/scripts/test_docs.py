"""The pages: links resolve, every page is listed, and what a page names (files, commands, targets of make) exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
# A path from the root of the checkout, in backticks: `src/core/error.h`, `ops/optical/attention/attention_*_sm90a.cu`.
PATH = re.compile(r"`((?:src|ops|tests|recipes|scripts|cmake|python|benchmarks|docs)/[\w./*+-]*)`")
PLACEHOLDER = re.compile(r"(?:/|/test_)x[._]")  # src/cli/x_command.cpp: x is a name of the reader's choice
COMMAND = re.compile(r"(?:`|\./)refract +([a-z]+)(?: +([a-z]+))?")
GROUPS = {"bench", "data", "tokenizer"}  # commands of two words: refract bench mlp


def name(page):
    return str(page.relative_to(ROOT))


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them: in lower case, without punctuation, spaces as dashes."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def commands():
    """The names of the program's commands, from their source files."""
    found = set()
    for file in (ROOT / "src/cli").rglob("*_command.cpp"):
        found |= set(re.findall(r'std::string name\(\) const override \{ return "([a-z ]+)"; \}', file.read_text(encoding="utf-8")))
    assert {"train", "eval", "bench mlp", "tokenizer train"} <= found, "how a command says its name has changed"
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_is_listed():
    listed = {(DOCS / target).resolve() for target in LINK.findall((DOCS / "README.md").read_text(encoding="utf-8"))}
    assert {page for page in DOCS.rglob("*.md") if page.name != "README.md"} <= listed


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page):
    paths = [path for path in PATH.findall(page.read_text(encoding="utf-8")) if not PLACEHOLDER.search(path)]
    assert not [path for path in paths if not any(ROOT.glob(path))]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_commands_exist(page, commands):
    known = commands | GROUPS
    named = [f"{first} {second}" if first in GROUPS and second else first for first, second in COMMAND.findall(page.read_text(encoding="utf-8"))]
    assert not set(named) - known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_targets_of_make_exist(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert not set(named) - targets


def test_recipes_of_commands_exist():
    """Every recipe in a command of a page is there; capitals stand for a name of the reader's choice."""
    missing = []
    for page in PAGES:
        for recipe in re.findall(r"\brecipes/[\w./-]+\.toml", page.read_text(encoding="utf-8")):
            if not (ROOT / recipe).exists() and not re.search(r"[A-Z]", recipe):
                missing.append(f"{name(page)}: {recipe}")
    assert not missing


def test_the_designs_sizes_are_those_of_the_tree():
    """Within an eighth, so that a new file needs no edit of the page, and a new room does."""
    text = (DOCS / "design.md").read_text(encoding="utf-8").replace(",", "")
    told = re.search(r"had (\d+) sources and (\d+) lines\. The median file has (\d+) lines\. (\d+) files have more than 300;"
                     r"[^.]*?\(`\S+` (\d+)\).*?`src/cli` has (\d+) commands in (\d+) lines", text, re.DOTALL)
    found = subprocess.run([sys.executable, ROOT / "scripts/check-includes", "--sizes"], capture_output=True, text=True, check=True).stdout
    there = re.search(r"(\d+) sources of src/ and ops/, (\d+) lines\s+median file (\d+) lines, longest (\d+) .*\s+(\d+) files above 300 lines"
                      r".*\s+.*\s+src/cli: (\d+) lines", found)
    sources, lines, median, longest, above, cli = map(int, there.groups())
    listed = len(re.findall(r"^  X\(\w+\)", (ROOT / "src/cli/commands.cpp").read_text(), re.MULTILINE))
    for written, counted in zip(map(int, told.groups()), (sources, lines, median, above, longest, listed, cli)):
        assert abs(written - counted) <= counted / 8, f"docs/design.md says {written}, and it is {counted}"


def test_the_citation_is_of_the_programs_version():
    (version,) = re.findall(r"^project\(refract VERSION (\S+) ", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and citation["license"] == "Apache-2.0" and citation["authors"]
