#include "model/parameters.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/random.h"
#include "model/arena_alignment.h"

namespace refract {
namespace {

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

// Two standard normal numbers by Box and Muller's method from one Philox block; in double, so that
// every platform rounds to the same float.
std::pair<double, double> normal_pair(PhiloxKey key, uint64_t attempt, uint64_t index, double std) {
  const PhiloxBlock block = philox(key, attempt, index);
  const double u = (block.word[0] + 0.5 + block.word[1] * 0x1p-32) * 0x1p-32;
  const double angle = 2 * std::numbers::pi * (block.word[2] * 0x1p-32);
  const double radius = std * std::sqrt(-2 * std::log(u));
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

void fill_normal(float* out, int64_t n, PhiloxKey key, double std) {
  at::parallel_for(0, (n + 1) / 2, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto [first, second] = normal_pair(key, 0, static_cast<uint64_t>(i), std);
      out[2 * i] = static_cast<float>(first);
      if (2 * i + 1 < n) out[2 * i + 1] = static_cast<float>(second);
    }
  });
}

// Each number has its own attempts, so that none depends on what became of another.
void redraw_beyond(float* out, int64_t n, PhiloxKey key, double std, double cut) {
  const auto bound = static_cast<float>(cut);
  at::parallel_for(0, n, 8192, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (uint64_t attempt = 1; std::abs(out[i]) > bound; ++attempt) {
        const auto [first, second] = normal_pair(key, attempt, static_cast<uint64_t>(i / 2), std);
        out[i] = static_cast<float>(i % 2 == 0 ? first : second);
      }
    }
  });
}

}  // namespace

at::Tensor draw_normal(at::IntArrayRef shape, uint64_t seed, const std::string& name, double std) {
  at::Tensor drawn = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  fill_normal(drawn.mutable_data_ptr<float>(), drawn.numel(), philox_key(seed, stream_id(name)),
              std);
  return drawn;
}

at::Tensor draw_truncated_normal(at::IntArrayRef shape, uint64_t seed, const std::string& name,
                                 double std, double cut) {
  at::Tensor drawn = draw_normal(shape, seed, name, std);
  redraw_beyond(drawn.mutable_data_ptr<float>(), drawn.numel(), philox_key(seed, stream_id(name)),
                std, cut);
  return drawn;
}

int64_t Parameter::numel() const { return product(shape); }

int64_t Parameter::stored_numel() const {
  return numel() / std::max<int64_t>(shape[0], 1) * padded_rows;
}

Parameter* ParameterArena::declare(const ParameterSpec& spec, int64_t pad_rows_to) {
  if (allocated()) throw std::logic_error("parameter declared after allocation: " + spec.name);
  if (find(spec.name))
    fail("two layers declare the parameter '{}'; each layer needs its own name", spec.name);
  Parameter parameter{spec.name, spec.shape, spec.init, spec.trainable, spec.adapter, spec.table};
  parameter.padded_rows = round_up(spec.shape[0], pad_rows_to);
  count_in(parameter);
  places_.emplace(parameter.name, parameters_.size());
  parameters_.push_back(std::move(parameter));
  return &parameters_.back();
}

Parameter* ParameterArena::declare_guide(const ParameterSpec& spec) {
  if (allocated()) throw std::logic_error("guide declared after allocation: " + spec.name);
  Parameter guide{spec.name, spec.shape, spec.init};
  guide.padded_rows = spec.shape[0];
  count_in(guide);
  guides_.push_back(std::move(guide));
  return &guides_.back();
}

// Every size that follows from shapes (bytes, FLOPs, offsets) is then far from overflowing.
void ParameterArena::count_in(const Parameter& parameter) {
  constexpr int64_t kMost = int64_t{1} << 46;
  int64_t size = std::max<int64_t>(1, parameter.padded_rows);
  bool fits = parameter.padded_rows >= 0;
  for (size_t i = 1; i < parameter.shape.size(); ++i)
    fits = fits && !__builtin_mul_overflow(size, parameter.shape[i], &size) && size <= kMost;
  fits = fits && size <= kMost - declared_;
  if (!fits) {
    fail_usage(
        "the model is too large: with '{}' [{}] it has more than 2^46 values, which no machine "
        "holds; are its sizes right?",
        parameter.name, fmt::join(parameter.shape, ", "));
  }
  declared_ += size;
}

std::vector<Parameter*> ParameterArena::declare_group(const std::vector<ParameterSpec>& specs) {
  std::vector<Parameter*> group;
  for (const ParameterSpec& spec : specs) {
    group.push_back(declare(spec));
    group.back()->joined = group.size() > 1;
  }
  return group;
}

void ParameterArena::freeze_all_but_adapters() {
  if (allocated()) throw std::logic_error("parameters are frozen before allocation");
  const auto is_adapter = [](const Parameter& p) { return p.adapter; };
  if (std::none_of(parameters_.begin(), parameters_.end(), is_adapter)) return;
  for (Parameter& parameter : parameters_) parameter.trainable = parameter.adapter;
}

void ParameterArena::place() {
  size_ = 0;
  auto place_if = [&](auto&& wanted, std::deque<Parameter>& among) {
    bool placed_before = false;  // whether the one declared before was placed in this pass
    for (Parameter& parameter : among) {
      const bool here = wanted(parameter);
      if (here) {
        if (!parameter.joined || !placed_before) size_ = round_up(size_, kArenaAlignment);
        parameter.offset = size_;
        size_ += parameter.stored_numel();
      }
      placed_before = here;
    }
    size_ = round_up(size_, kArenaAlignment);
    return size_;
  };
  const auto matrix = [](const Parameter& p) { return p.trainable && p.shape.size() > 1; };
  const auto vector = [](const Parameter& p) { return p.trainable && p.shape.size() <= 1; };
  matrix_size_ = place_if(matrix, parameters_);
  core_size_ = place_if(vector, parameters_);
  trainable_size_ = place_if(matrix, guides_);
  place_if([](const Parameter& p) { return !p.trainable && !p.borrowed; }, parameters_);
}

void ParameterArena::allocate(at::Device device, at::ScalarType master_dtype,
                              at::ScalarType compute_dtype) {
  if (allocated())
    throw std::logic_error("the parameter arena is allocated already; layers hold its leaves");
  place();
  const auto options = at::TensorOptions().device(device);
  compute_ = at::zeros({size_}, options.dtype(compute_dtype));
  // What never changes needs no wider values: they would only be rounded again.
  master_ = master_dtype == compute_dtype
                ? compute_
                : at::zeros({trainable_size_}, options.dtype(master_dtype));
  grads_ = at::zeros({trainable_size_}, options.dtype(compute_dtype));
}

void ParameterArena::allocate_beside(ParameterArena& other, const std::set<std::string>& shared,
                                     at::Device device, at::ScalarType dtype) {
  for (Parameter& parameter : parameters_) {
    parameter.trainable = false;
    parameter.borrowed = shared.contains(parameter.name);
  }
  allocate(device, dtype, dtype);
  std::vector<Parameter*> group;  // that was declared together
  for (Parameter& parameter : parameters_) {
    if (!parameter.joined) {
      borrow(other, group);
      group.clear();
    }
    if (parameter.borrowed) group.push_back(&parameter);
  }
  borrow(other, group);
}

// Makes the leaves of each, and the joint one where it is a leaf of `other` too.
void ParameterArena::borrow(ParameterArena& other, const std::vector<Parameter*>& group) {
  std::vector<Parameter*> lent;
  const auto add = [&](std::string key, const Parameter* first, const at::Tensor& leaf) {
    leaves_.emplace(std::move(key), Leaf{first, leaf.numel(), leaf.sizes().vec(), leaf.detach()});
  };
  std::string all;
  for (Parameter* parameter : group) {
    Parameter* own = other.find(parameter->name);
    if (!own || own->trainable || own->shape != parameter->shape ||
        own->padded_rows != parameter->padded_rows)
      throw std::logic_error("the other model doesn't hold this parameter: " + parameter->name);
    parameter->offset = own->offset;
    lent.push_back(own);
    all += parameter->name + "\n";
    add(parameter->name + "\n", parameter, other.leaf(own));
  }
  if (group.size() > 1 && other.adjacent(lent)) add(all, group.front(), other.joint_leaf(lent));
}

void ParameterArena::initialize(uint64_t seed) {
  for (const Parameter& parameter : parameters_) {
    at::Tensor target = value(&parameter);
    switch (parameter.init.kind) {
      case Init::Kind::kZeros:
        target.zero_();
        break;
      case Init::Kind::kOnes:
        target.fill_(1);
        break;
      case Init::Kind::kNormal: {
        const std::string stream = "init:" + parameter.name;
        const auto& [kind, std, cut] = parameter.init;
        target.copy_(cut > 0 ? draw_truncated_normal(parameter.shape, seed, stream, std, cut)
                             : draw_normal(parameter.shape, seed, stream, std));
        break;
      }
    }
  }
  refresh_compute();
}

void ParameterArena::drop_guides() {
  if (guides_.empty()) return;
  std::set<const Parameter*> going;
  for (const Parameter& guide : guides_) going.insert(&guide);
  std::erase_if(leaves_, [&](const auto& entry) { return going.contains(entry.second.first); });
  guides_.clear();
  if (!allocated()) return;
  const int64_t removed = trainable_size_ - core_size_;
  // Every region ends at a multiple of the alignment, so what follows only moves.
  const auto cut = [&](const at::Tensor& flat) {
    return at::cat({flat.narrow(0, 0, core_size_),
                    flat.narrow(0, trainable_size_, flat.numel() - trainable_size_)});
  };
  const bool same = compute_.is_same(master_);
  master_ = cut(master_);
  compute_ = same ? master_ : cut(compute_);
  grads_ = grads_.narrow(0, 0, core_size_).clone();
  trainable_size_ = core_size_;
  size_ -= removed;
  for (Parameter& parameter : parameters_) {
    if (!parameter.trainable) parameter.offset -= removed;
  }
  for (auto& [key, leaf] : leaves_) point(leaf);
}

void ParameterArena::refresh_compute() {
  if (!compute_.is_same(master_)) compute_.narrow(0, 0, trainable_size_).copy_(master_);
}

at::Tensor ParameterArena::view(const at::Tensor& flat, const Parameter* parameter) const {
  std::vector<int64_t> shape = parameter->shape;
  shape[0] = parameter->padded_rows;
  return flat.narrow(0, parameter->offset, parameter->stored_numel()).view(shape);
}

at::Tensor ParameterArena::leaf(const Parameter* parameter) {
  Parameter* one = const_cast<Parameter*>(parameter);
  return joint_leaf({&one, 1});
}

bool ParameterArena::adjacent(std::span<Parameter* const> parameters) const {
  for (size_t i = 1; i < parameters.size(); ++i) {
    const Parameter *a = parameters[i - 1], *b = parameters[i];
    if (a->trainable != b->trainable || a->borrowed != b->borrowed ||
        a->offset + a->stored_numel() != b->offset) {
      return false;
    }
  }
  return true;
}

at::Tensor ParameterArena::joint_leaf(std::span<Parameter* const> parameters) {
  if (!adjacent(parameters)) {
    // A trained one beside a frozen one (train.only); else they were not declared in a row.
    const Parameter& first = *parameters.front();
    if (std::all_of(parameters.begin(), parameters.end(), [&](const Parameter* one) {
          return one->trainable == first.trainable && one->borrowed == first.borrowed;
        }))
      throw std::logic_error("'" + first.name + "' and what is joined with it lie apart");
    std::vector<at::Tensor> parts;
    for (const Parameter* parameter : parameters) parts.push_back(leaf(parameter));
    return at::cat(parts);
  }
  std::string key;
  int64_t rows = 0, numel = 0;
  for (const Parameter* parameter : parameters) {
    key += parameter->name + "\n";
    rows += parameter->padded_rows;
    numel += parameter->stored_numel();
  }
  if (const auto known = leaves_.find(key); known != leaves_.end()) return known->second.tensor;
  Leaf leaf{parameters.front(), numel, parameters.front()->shape, {}};
  leaf.shape[0] = rows;
  point(leaf);
  return leaves_.emplace(std::move(key), std::move(leaf)).first->second.tensor;
}

// Makes the leaf's tensor, or lets the one that layers hold see the buffers of now.
void ParameterArena::point(Leaf& leaf) {
  const auto view = [&](const at::Tensor& flat) {
    return flat.narrow(0, leaf.first->offset, leaf.numel).view(leaf.shape).detach();
  };
  if (leaf.tensor.defined()) {
    leaf.tensor.set_data(view(compute_));
  } else {
    leaf.tensor = view(compute_);
    leaf.tensor.requires_grad_(leaf.first->trainable);
  }
  if (leaf.first->trainable) leaf.tensor.mutable_grad() = view(grads_);
}

at::Tensor ParameterArena::value(const Parameter* parameter) const {
  if (parameter->borrowed) throw std::logic_error("not in this arena: " + parameter->name);
  const at::Tensor& flat = parameter->trainable ? master_ : compute_;
  return view(flat, parameter).narrow(0, 0, parameter->shape[0]);
}

at::Tensor ParameterArena::gradient(const Parameter* parameter) const {
  return view(grads_, parameter).narrow(0, 0, parameter->shape[0]);
}

Parameter* ParameterArena::find(std::string_view name) {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &parameters_[found->second];
}

int64_t ParameterArena::count() const {
  int64_t n = 0;
  for (const Parameter& parameter : parameters_) n += parameter.numel();
  return n;
}

int64_t ParameterArena::trainable_count() const {
  int64_t n = 0;
  for (const Parameter& parameter : parameters_) n += parameter.trainable ? parameter.numel() : 0;
  return n;
}

std::string ParameterArena::layout() const {
  std::string text;
  for (const Parameter& p : parameters_) {
    text += fmt::format("{} [{}] at {}{}\n", p.name, fmt::join(p.shape, ", "), p.offset,
                        p.trainable ? "" : " frozen");
  }
  for (const Parameter& p : guides_) {
    text += fmt::format("{} [{}] at {} guide\n", p.name, fmt::join(p.shape, ", "), p.offset);
  }
  return text;
}

BufferStore::Buffer* BufferStore::declare(std::string name, at::Tensor start) {
  if (find(name)) fail("two layers declare the buffer '{}'", name);
  places_.emplace(name, buffers_.size());
  buffers_.push_back({std::move(name), std::move(start)});
  return &buffers_.back();
}

BufferStore::Buffer* BufferStore::find(std::string_view name) {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &buffers_[found->second];
}

void BufferStore::to(at::Device device) {
  for (Buffer& buffer : buffers_) buffer.tensor = buffer.tensor.to(device);
}

}  // namespace refract
