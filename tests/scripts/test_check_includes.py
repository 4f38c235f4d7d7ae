"""scripts/check-includes accepts this tree and refuses every kind of planted violation."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(root, *options):
    return subprocess.run([sys.executable, ROOT / "scripts/check-includes", "--root", root, *options], capture_output=True, text=True)


def plant(root, path, line, header=True):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if header and file.suffix == ".cpp":
        file.with_suffix(".h").write_text("// planted\n")
    file.write_text(f"// planted\n{line}\n")


def test_this_tree_passes():
    result = check(ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "path, line",
    [
        ("src/cli/train.cpp", '#include "train/trainer.h"'),
        ("src/model/decoder.h", '#include "model/layer.h"'),
        ("src/model/decoder.cpp", '#include "ops/common/philox.h"'),
        ("src/core/toml.cpp", "#include <toml++/toml.h>"),
        ("src/report/json.h", "#include <nlohmann/json_fwd.hpp>"),
        ("ops/dense/loss/loss.cpp", "#include <ATen/ops/add.h>"),
        ("ops/dense/loss/loss_kernel.cu", '#include "ops/common/philox.h"'),
        ("ops/dense/loss/loss_kernel.cu", '#include "ops/device/reduce.cuh"'),
        ("ops/many/batched_loss.cpp", '#include "ops/dense/loss/loss.h"'),
        ("ops/optical/linear/linear.cpp", '#include "ops/optical/matmul/product.h"'),
        ("tests/core/test_toml.cpp", '#include "train/trainer.h"'),
    ],
)
def test_allowed(tmp_path, path, line):
    plant(tmp_path, path, line)
    result = check(tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "path, line, why",
    [
        ("src/core/toml.cpp", '#include "text/tokenizer.h"', "core/ comes before text/"),
        ("src/model/decoder.h", "#  include <train/trainer.h>", "model/ comes before train/"),
        ("src/extra/x.cpp", "", "no place in the order"),
        ("src/x.cpp", "", "no place in the order"),
        ("src/train/trainer.cpp", '#include "../core/toml.h"', "instead of"),
        ("src/core/config.h", "#include <toml++/toml.h>", "slow to parse"),
        ("src/transforms/kinds/lora.cpp", '#include "train/trainer.h"', "transforms/ comes before train/"),
        ("ops/dense/loss/loss.cpp", '#include "core/error.h"', "ops/ uses nothing of src/"),
        ("ops/dense/loss/loss.cpp", '#include "src/core/error.h"', "ops/ uses nothing of src/"),
        ("src/core/toml.cpp", '#include "src/text/tokenizer.h"', "start below it"),
        ("src/core/toml.cpp", '#include "tests/support/errors.h"', "nothing of tests/"),
        ("ops/dense/loss/loss_kernel.cu", "#include <ATen/core/Tensor.h>", "no torch header"),
        ("ops/common/check.h", '#include "ops/dense/loss/loss.h"', "ops/common/ comes before ops/dense/"),
        ("ops/device/reduce.cuh", '#include "ops/dense/loss/online_loss.cuh"', "ops/device/ comes before ops/dense/"),
        ("ops/dense/loss/loss.cpp", '#include "ops/many/split.h"', "ops/dense/ comes before ops/many/"),
        ("ops/many/split.cpp", '#include "ops/structured/block_linear.h"', "ops/many/ and ops/structured/ stand side by side"),
        ("ops/common/launch.cuh", "#include <c10/cuda/CUDAStream.h>", "no torch header"),
        ("tests/core/test_toml.cpp", "#include <torch/torch.h>", "ATen/ops"),
        ("src/model/decoder.cpp", "#include <ATen/ATen.h>", "ATen/ops"),
        ("src/model/decoder.cpp", "#include <torch/nn/module.h>", "ATen/ops"),
    ],
)
def test_refused(tmp_path, path, line, why):
    plant(tmp_path, path, line)
    result = check(tmp_path)
    assert result.returncode == 1
    assert path in result.stderr and why in result.stderr


@pytest.mark.parametrize(
    "path",
    ["src/cli/main.cpp", "src/cli/train_command.cpp", "src/transforms/kinds/lora.cpp"],
)
def test_stands_without_a_header(tmp_path, path):
    plant(tmp_path, path, "", header=False)
    result = check(tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", ["src/core/toml.cpp", "src/cli/arguments.cpp", "src/model/many/tree.cpp", "ops/dense/norm/norm_cpu.cpp"])
def test_a_source_without_a_header_is_refused(tmp_path, path):
    plant(tmp_path, path, "", header=False)
    result = check(tmp_path)
    assert result.returncode == 1
    assert f"{path}: has no header" in result.stderr


def test_a_part_of_an_op_has_the_ops_header(tmp_path):
    plant(tmp_path, "ops/dense/norm/norm_cpu.cpp", "", header=False)
    (tmp_path / "ops/dense/norm/norm.h").write_text("// planted\n")
    result = check(tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("folder", ["src/core", "src/core/system", "ops/dense/loss"])
def test_a_crowded_folder_is_refused(tmp_path, folder):
    for number in range(25):
        plant(tmp_path, f"{folder}/x{number}.h", "")
    assert check(tmp_path).returncode == 0
    plant(tmp_path, f"{folder}/one_more.h", "")
    result = check(tmp_path)
    assert result.returncode == 1 and f"{folder}: holds 26 sources" in result.stderr


def test_sizes_are_those_of_the_files(tmp_path):
    for name, lines in (("src/cli/a.h", 10), ("src/core/b.h", 301), ("ops/common/c.h", 20)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("//\n" * lines)
    printed = check(tmp_path, "--sizes").stdout
    assert "3 sources of src/ and ops/, 331 lines" in printed and "median file 20 lines, longest 301 (src/core/b.h)" in printed
    assert "1 files above 300 lines" in printed and "src/cli: 10 lines in 1 files" in printed


def test_an_empty_tree_is_no_success(tmp_path):
    assert check(tmp_path).returncode == 1
