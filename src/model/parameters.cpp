#include "model/parameters.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace refract {
namespace {

constexpr int64_t kAlignment = 64;  // elements: 128 bytes of bf16, whole cache lines

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

// Standard normal numbers by Box and Muller's method, two from one Philox block; in double, so that
// every platform rounds to the same float.
void fill_normal(float* out, int64_t n, uint64_t seed, const std::string& name, double std) {
  const PhiloxKey key = philox_key(seed, stream_id(name));
  at::parallel_for(0, (n + 1) / 2, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const PhiloxBlock block = philox(key, 0, static_cast<uint64_t>(i));
      const double u = (block.word[0] + 0.5 + block.word[1] * 0x1p-32) * 0x1p-32;
      const double angle = 2 * std::numbers::pi * (block.word[2] * 0x1p-32);
      const double radius = std * std::sqrt(-2 * std::log(u));
      out[2 * i] = static_cast<float>(radius * std::cos(angle));
      if (2 * i + 1 < n) out[2 * i + 1] = static_cast<float>(radius * std::sin(angle));
    }
  });
}

}  // namespace

int64_t Parameter::numel() const { return product(shape); }

int64_t Parameter::stored_numel() const {
  return numel() / std::max<int64_t>(shape[0], 1) * padded_rows;
}

Parameter* ParameterArena::declare(const ParameterSpec& spec, int64_t pad_rows_to) {
  if (allocated()) throw std::logic_error("parameter declared after allocation: " + spec.name);
  if (find(spec.name))
    fail("two layers declare the parameter '{}'; each layer needs its own name", spec.name);
  Parameter parameter{spec.name, spec.shape, spec.init, spec.trainable, spec.adapter};
  parameter.padded_rows = round_up(spec.shape[0], pad_rows_to);
  parameters_.push_back(std::move(parameter));
  return &parameters_.back();
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
  auto place_if = [&](auto&& wanted) {
    for (Parameter& parameter : parameters_) {
      if (!wanted(parameter)) continue;
      if (!parameter.joined) size_ = round_up(size_, kAlignment);
      parameter.offset = size_;
      size_ += parameter.stored_numel();
    }
    size_ = round_up(size_, kAlignment);
    return size_;
  };
  matrix_size_ = place_if([](const Parameter& p) { return p.trainable && p.shape.size() > 1; });
  trainable_size_ = place_if([](const Parameter& p) { return p.trainable && p.shape.size() <= 1; });
  place_if([](const Parameter& p) { return !p.trainable; });
}

void ParameterArena::allocate(at::Device device, at::ScalarType master_dtype,
                              at::ScalarType compute_dtype) {
  if (allocated())
    throw std::logic_error("the parameter arena is allocated already; layers hold its leaves");
  place();
  const auto options = at::TensorOptions().device(device);
  master_ = at::zeros({size_}, options.dtype(master_dtype));
  compute_ =
      master_dtype == compute_dtype ? master_ : at::zeros({size_}, options.dtype(compute_dtype));
  grads_ = at::zeros({trainable_size_}, options.dtype(compute_dtype));
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
        at::Tensor drawn = at::empty(parameter.shape, at::TensorOptions().dtype(at::kFloat));
        fill_normal(drawn.mutable_data_ptr<float>(), drawn.numel(), seed, "init:" + parameter.name,
                    parameter.init.std);
        target.copy_(drawn);
        break;
      }
    }
  }
  refresh_compute();
}

void ParameterArena::refresh_compute() {
  if (!compute_.is_same(master_)) compute_.copy_(master_);
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
    if (a->trainable != b->trainable || a->offset + a->stored_numel() != b->offset) return false;
  }
  return true;
}

at::Tensor ParameterArena::joint_leaf(std::span<Parameter* const> parameters) {
  std::string key;
  int64_t rows = 0, numel = 0;
  for (const Parameter* parameter : parameters) {
    key += parameter->name + "\n";
    rows += parameter->padded_rows;
    numel += parameter->stored_numel();
  }
  for (const auto& [name, tensor] : leaves_) {
    if (name == key) return tensor;
  }
  if (!adjacent(parameters)) throw std::logic_error("parameters are not adjacent: " + key);
  const Parameter* first = parameters.front();
  std::vector<int64_t> shape = first->shape;
  shape[0] = rows;
  at::Tensor tensor = compute_.narrow(0, first->offset, numel).view(shape).detach();
  if (first->trainable) {
    tensor.requires_grad_(true);
    tensor.mutable_grad() = grads_.narrow(0, first->offset, numel).view(shape);
  }
  leaves_.emplace_back(key, tensor);
  return tensor;
}

at::Tensor ParameterArena::value(const Parameter* parameter) const {
  return view(master_, parameter).narrow(0, 0, parameter->shape[0]);
}

at::Tensor ParameterArena::gradient(const Parameter* parameter) const {
  return view(grads_, parameter).narrow(0, 0, parameter->shape[0]);
}

Parameter* ParameterArena::find(std::string_view name) {
  for (Parameter& parameter : parameters_) {
    if (parameter.name == name) return &parameter;
  }
  return nullptr;
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
  return text;
}

BufferStore::Buffer* BufferStore::declare(std::string name, at::Tensor start) {
  if (find(name)) fail("two layers declare the buffer '{}'", name);
  buffers_.push_back({std::move(name), std::move(start)});
  return &buffers_.back();
}

BufferStore::Buffer* BufferStore::find(std::string_view name) {
  for (Buffer& buffer : buffers_) {
    if (buffer.name == name) return &buffer;
  }
  return nullptr;
}

void BufferStore::to(at::Device device) {
  for (Buffer& buffer : buffers_) buffer.tensor = buffer.tensor.to(device);
}

}  // namespace refract
