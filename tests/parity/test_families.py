"""The table of docs/models.md: every family against every thing that is done with it. Each cell is a test."""

import json
import pathlib
import subprocess

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from probe import find_program, probe  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from test_model_parity import (TOLERANCE, VARIANTS, assert_same_numbers, make_model, make_tokens,  # noqa: E402
                               reference, relative_error)
from transformers import AutoModelForCausalLM  # noqa: E402

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "models.md"
# With what sets the family apart: windows, norms of heads, parallel layers, stretched positions.
FAMILIES = {"gpt2": "gelu_new", "llama": "llama3", "mistral": "window", "qwen2": "layer_types", "qwen3": "all_slide_yarn",
            "gpt_neox": "parallel_partial"}

# Of the families that GGUF files hold, what transformers reads in them: no window, no stretched positions, and of Qwen3 only heads of
# the width that it takes for granted.
GGUF = {"llama": "gqa", "mistral": "plain", "qwen2": "plain", "qwen3": "wide_heads"}


class Case:
    def __init__(self, family, folder):
        self.family, self.folder = family, folder
        self.model = make_model(family, FAMILIES[family])
        self.model.save_pretrained(folder / "hf")
        self.tokens = make_tokens(self.model, folder / "tokens.safetensors")
        self.expected = reference(self.model, self.tokens)
        self._numbers = None

    def numbers(self):
        if self._numbers is None:
            probe("run", self.folder / "hf", self.folder / "tokens.safetensors", self.folder / "out.safetensors")
            self._numbers = load_file(self.folder / "out.safetensors")
        return self._numbers


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    made = {}

    def case(family):
        if family not in made:
            made[family] = Case(family, tmp_path_factory.mktemp(family))
        return made[family]

    return case


def loads(case):
    """Every number of the file is a parameter of ours, under names of one family."""
    probe("save", case.folder / "hf", case.folder / "own", "float32", 5000000000, "refract")
    ours = load_file(case.folder / "own/model.safetensors")
    parameters = list(case.model.parameters())  # a tied weight once
    assert sum(t.numel() for t in ours.values()) == sum(p.numel() for p in parameters)
    assert sum(t.double().sum() for t in ours.values()).item() == \
        pytest.approx(sum(p.double().sum() for p in parameters).item(), rel=1e-9)
    assert "model.layers.2.self_attn.k_proj.weight" in ours and "model.embed_tokens.weight" in ours


def saves(case):
    """The same bytes as transformers writes, and a config.json from which it makes the same model."""
    probe("save", case.folder / "hf", case.folder / "ours", "float32", 5000000000, case.family)
    assert (case.folder / "hf/model.safetensors").read_bytes() == (case.folder / "ours/model.safetensors").read_bytes()
    assert json.loads((case.folder / "ours/config.json").read_text())["model_type"] == case.family
    loaded, report = AutoModelForCausalLM.from_pretrained(
        case.folder / "ours", output_loading_info=True, attn_implementation=case.model.config._attn_implementation)
    assert not any(report.get(k) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert type(loaded) is type(case.model)
    assert torch.equal(loaded.eval()(case.tokens).logits, case.expected["logits"])


def has_its_logits(case):
    assert relative_error(case.numbers()["logits"], case.expected["logits"]) < TOLERANCE
    assert relative_error(case.numbers()["loss"], case.expected["loss"]) < TOLERANCE


def has_its_gradients(case):
    assert sum(name.startswith("grad.") for name in case.expected) == len(list(case.model.parameters()))
    assert_same_numbers(case.numbers(), case.expected)


def decodes(case):
    """The likeliest tokens with a cache, past every window and past the length of the prompt."""
    count = 20
    probe("decode", case.folder / "hf", case.folder / "tokens.safetensors", case.folder / "made.safetensors", count)
    # No token ends a text here.
    theirs = case.model.generate(case.tokens, max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert load_file(case.folder / "made.safetensors")["tokens"].tolist() == theirs[:, case.tokens.shape[1]:].tolist()


def export_gguf(source, file):
    return subprocess.run([find_program("refract"), "export", str(source), "--format", "gguf", "--out", str(file)], capture_output=True, text=True)


def goes_through_gguf(case):
    """transformers opens the file with the same bits, and refract; a family that GGUF does not hold here is refused by its name."""
    pytest.importorskip("gguf")
    folder = case.folder / "gguf"
    file = folder / "m.gguf"
    if case.family not in GGUF:
        refused = export_gguf(case.folder / "hf", file)
        assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1, refused.stderr
        assert f"family {case.family} can't be written as GGUF" in refused.stderr and not file.exists()
        return
    model = make_model(case.family, GGUF[case.family])
    model.save_pretrained(folder / "hf")
    done = export_gguf(folder / "hf", file)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model(case.tokens).logits
        opened = AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf", dtype=torch.float32)
        assert torch.equal(opened.eval()(case.tokens).logits, expected)
    probe("run", file, case.folder / "tokens.safetensors", folder / "out.safetensors")
    assert relative_error(load_file(folder / "out.safetensors")["logits"], expected) < TOLERANCE


COLUMNS = {"load": loads, "save": saves, "logits and loss": has_its_logits, "gradients": has_its_gradients, "decode": decodes,
           "GGUF": goes_through_gguf}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_table(cases, family, column):
    COLUMNS[column](cases(family))


def test_the_page_has_the_table():
    assert list(FAMILIES) == list(VARIANTS)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()
             if line.startswith("|")]
    head = next(i for i, cells in enumerate(lines) if cells[1] == "`model_type`")
    assert lines[head][3:] == list(COLUMNS)
    rows = lines[head + 2:head + 2 + len(FAMILIES)]
    assert [row[1] for row in rows] == [f"`{family}`" for family in FAMILIES]
    for row, family in zip(rows, FAMILIES):
        assert row[3:] == ["yes"] * (len(COLUMNS) - 1) + ["yes" if family in GGUF else "refused"]


@pytest.mark.parametrize("family", GGUF)
def test_windows_and_positions_come_back_from_gguf(cases, family):
    """What transformers does not read of such files refract does: Llama 3's positions, a window, layers with and without one."""
    case = cases(family)
    file = case.folder / "own.gguf"
    done = export_gguf(case.folder / "hf", file)
    if family == "qwen3":  # yarn
        assert done.returncode == 1 and "no yarn scaling of positions" in done.stderr and not file.exists()
        return
    assert done.returncode == 0, done.stderr
    assert ("attend to everything" in done.stderr) == (family != "llama"), done.stderr
    probe("run", file, case.folder / "tokens.safetensors", case.folder / "own.safetensors")
    assert relative_error(load_file(case.folder / "own.safetensors")["logits"], case.expected["logits"]) < TOLERANCE
