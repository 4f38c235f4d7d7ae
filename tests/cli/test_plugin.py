"""docs/new-transform.md, block by block: its kind is compiled, trained, resumed, evaluated; and what goes wrong with plug-ins."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "new-transform.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.S | re.M)


def compile_plugin(source, output, **environment):
    done = subprocess.run([ROOT / "scripts" / "plugin", source, "-o", output], capture_output=True, text=True,
                          env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """The page's plug-in, compiled."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "noisy.cpp").write_text(blocks("cpp")[0])
    return compile_plugin(folder / "noisy.cpp", folder / "noisy.so")


def test_the_page_has_one_kind_of_under_100_lines():
    (source,) = blocks("cpp")
    assert len(source.splitlines()) < 100
    assert "noisy.cpp" in PAGE and len(blocks("toml")) == 1 and len(blocks("sh")) >= 3


def test_every_command_of_the_page_works(program, noisy, tmp_path):
    (tmp_path / "noisy.cpp").write_text(blocks("cpp")[0])
    (tmp_path / "noisy.toml").write_text(blocks("toml")[0])
    shutil.copy(noisy, tmp_path / "noisy.so")
    script = "\n".join(blocks("sh")).replace("./refract", str(program))
    # Compiled once by the fixture already.
    script = script.replace("scripts/plugin noisy.cpp", "test -e noisy.so")
    done = subprocess.run(["bash", "-euxc", script], cwd=tmp_path, capture_output=True, text=True,
                          env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path),
                               "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    assert "std" in done.stdout and "relative" in done.stdout  # of `kinds`
    assert "resuming from step 100" in done.stderr
    losses = [float(value) for value in re.findall(r"^loss +([\d.]+) nats", done.stdout, re.M)]
    assert len(losses) == 2 and losses[1] < losses[0] < 3  # without its noise the same model is better
    final = {std: float(re.findall(r"validation_loss\": ?([\d.]+)", (tmp_path / f"runs/noisy-sweep/std={std}/metrics.jsonl").read_text())[-1])
             for std in ("0", "0.05", "0.2")}
    assert final["0"] < final["0.05"] < final["0.2"]
    assert 'kind = "noisy"' in (tmp_path / "runs/noisy/transforms.toml").read_text()


def test_the_program_exports_what_kinds_are_made_of(program):
    """Also what the program itself has no use for, which a linker would leave out."""
    symbols = subprocess.run(["nm", "-DC", "--defined-only", program], capture_output=True, text=True, check=True).stdout
    for name in ("Fields::add_raw(", "ParameterArena::declare_group(", "BufferStore::declare(", "DenseLinear::merged(",
                 "SdpaAttention::forward(", "ComposedProjections::forward(", "append_to_cache(", "apply_epilogue(",
                 "standard_normal(", "register_kind(", "make_kind(", "typeinfo for refract::Kind", "typeinfo for refract::Error",
                 "RandomStream::below("):
        assert name in symbols, name


def exports(library):
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in symbols.splitlines()}


def test_the_pages_file_is_one_of_the_tree_as_it_is(noisy, tmp_path):
    """Compiled for src/transforms/kinds/, where scripts/plugin's version is not defined, the same file has the function that
    the build's table of kinds calls."""
    assert "refract_register" in exports(noisy) and "refract_kind_noisy" not in exports(noisy)
    (tmp_path / "noisy.cpp").write_text(blocks("cpp")[0])
    (tmp_path / "tree.h").write_text("#undef REFRACT_PLUGIN_ABI\n")
    tree = compile_plugin(tmp_path / "noisy.cpp", tmp_path / "tree.so", CXXFLAGS=f"-include {tmp_path / 'tree.h'} -O0 -Werror")
    assert "refract_kind_noisy" in exports(tree) and "refract_register" not in exports(tree)


RULES = ["transform=[{match='.*_proj', kind='noisy', std=0.05}]"]


def test_noise_is_drawn_from_the_runs_streams(refract_json, recipe, noisy):
    """The same losses again, another seed another noise, and cut into micro-batches the same noise."""
    plugin = ["--plugin", noisy, "train.steps=5", "eval.samples=0", *RULES]
    first = refract_json("train", recipe, *plugin)
    again = refract_json("train", recipe, "run.dir=again", *plugin)
    cut = refract_json("train", recipe, "run.dir=cut", "train.micro_batch=1", *plugin)
    quiet = refract_json("train", recipe, "run.dir=quiet", *plugin, "transform.0.std=0")
    assert again["loss"] == first["loss"]
    assert cut["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert abs(quiet["loss"] - first["loss"]) > 1e-3


def test_an_unknown_kind_points_to_plugin(refract, recipe, noisy):
    error = refract("train", recipe, *RULES, code=2).stderr
    assert "there is no kind \"noisy\"" in error and "--plugin" in error
    refract("train", recipe, *RULES, "train.steps=2", "--plugin", noisy)
    assert "--plugin" in refract("eval", "run", code=2).stderr
    assert "loss" in refract("eval", "run", "--plugin", noisy).stdout


def one_line(done):
    (line,) = done.stderr.splitlines()
    return line


def test_bad_plugins_are_one_clear_line(refract, tmp_path):
    assert "no such file" in one_line(refract("kinds", "--plugin", "nowhere.so", code=2))
    (tmp_path / "text.so").write_text("not a library")
    assert "text.so" in one_line(refract("kinds", "--plugin", "text.so", code=2))
    sources = {
        "empty": "",
        "older": '__attribute__((section(".refract.abi"), used)) static const char version[] = "0123";\n'
                 '__attribute__((constructor)) static void early() { __builtin_trap(); }\n'
                 'extern "C" void refract_register() { __builtin_trap(); }',
        "unmarked": '__attribute__((constructor)) static void early() { __builtin_trap(); }\n'
                    'extern "C" void refract_register() { __builtin_trap(); }',
    }
    for name, text in sources.items():
        (tmp_path / f"{name}.cpp").write_text(text)
        subprocess.run(["g++", "-shared", "-fPIC", f"{name}.cpp", "-o", f"{name}.so"], cwd=tmp_path, check=True)
    for name in ("empty", "unmarked"):  # nothing of either runs: the constructor of the second would end the program
        assert "not a plug-in of refract" in one_line(refract("kinds", "--plugin", f"{name}.so", code=2))
    (tmp_path / "cut.so").write_bytes((tmp_path / "older.so").read_bytes()[:-700])
    assert "not a plug-in of refract" in one_line(refract("kinds", "--plugin", "cut.so", code=2))
    error = one_line(refract("kinds", "--plugin", "older.so", code=2))
    assert "version 0123" in error and "scripts/plugin" in error


def test_names_are_taken_once_and_a_plugin_may_be_named_twice(refract, noisy, tmp_path):
    kinds = refract("kinds", "--plugin", noisy, "--plugin", noisy).stdout.splitlines()
    assert sum(line.startswith("noisy ") for line in kinds) == 1
    (tmp_path / "copy.so").write_bytes(pathlib.Path(noisy).read_bytes())
    error = one_line(refract("kinds", "--plugin", noisy, "--plugin", "copy.so", code=2))
    assert 'the kind "noisy" is registered twice' in error
