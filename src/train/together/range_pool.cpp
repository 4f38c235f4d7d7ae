#include "train/together/range_pool.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"
#include "transforms/legacy/legacy.h"
#include "transforms/model_builder.h"

namespace refract {
namespace {

at::Tensor set_rows(const at::Tensor& ranges) {
  return ranges.select(1, 0).le(ranges.select(1, 1)).unsqueeze(1);
}

bool asks_for_quantiles(const nlohmann::json& node) {
  if (!node.is_structured()) return false;
  if (node.is_object() && node.contains("q_quantiles") && !node["q_quantiles"].empty()) return true;
  return std::any_of(node.begin(), node.end(), asks_for_quantiles);
}

}  // namespace

void refuse_quantile_ranges(const RunConfig& config) {
  if (config.transform.empty()) return;
  nlohmann::json rules = nlohmann::json::parse(config.transform);
  if (rules.is_object() && rules.contains("legacy")) {
    const auto path = rules["legacy"].get<std::string>();
    rules = nlohmann::json::parse(legacy_rules(path, module_names(config.model)));
  }
  if (!asks_for_quantiles(rules)) return;
  fail_usage(
      "q_quantiles: ranges that are quantiles can't be shared by several processes or by "
      "train.reduction_groups; leave q_quantiles empty, or train in one process, without groups");
}

RangePool::RangePool(BufferStore& buffers, World& world) : world_(world) {
  std::vector<at::Tensor> rows;
  for (const BufferStore::Buffer& buffer : buffers.all()) {
    const at::Tensor& tensor = buffer.tensor;
    if (tensor.scalar_type() != at::kFloat || tensor.dim() == 0 || tensor.size(-1) != 2) {
      fail_usage(
          "'{}' is no range that several processes or train.reduction_groups could share; train "
          "this model in one process, without groups",
          buffer.name);
    }
    rows.push_back(tensor.reshape({-1, 2}));
  }
  ranges_ = at::cat(rows);
  int64_t first = 0;
  for (BufferStore::Buffer& buffer : buffers.all()) {
    const int64_t count = buffer.tensor.numel() / 2;
    buffer.tensor = ranges_.narrow(0, first, count).view(buffer.tensor.sizes());
    first += count;
  }
  start_ = ranges_.clone();
  widest_ =
      at::full({2, ranges_.size(0)}, std::numeric_limits<float>::infinity(), ranges_.options());
}

bool RangePool::all_set() const { return set_rows(ranges_).all().item<bool>(); }

void RangePool::begin_setting() { start_.copy_(ranges_); }

void RangePool::end_setting() { ranges_.copy_(at::where(set_rows(start_), start_, ranges_)); }

void RangePool::begin_step() {
  start_.copy_(ranges_);
  widest_.fill_(std::numeric_limits<float>::infinity());
}

void RangePool::after_call() {
  const at::Tensor moved = ranges_.ne(start_).any(1);
  const at::Tensor ends = at::stack({ranges_.select(1, 0), ranges_.select(1, 1).neg()});
  widest_.copy_(at::where(moved, at::minimum(widest_, ends), widest_));
  ranges_.copy_(start_);
}

void RangePool::end_step() {
  world_.all_reduce_(widest_, Reduction::kMin);
  const at::Tensor found = at::stack({widest_.select(0, 0), widest_.select(0, 1).neg()}, 1);
  ranges_.copy_(at::where(set_rows(found), found, start_));
}

}  // namespace refract
