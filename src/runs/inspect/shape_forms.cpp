#include "runs/inspect/shape_forms.h"

#include <ATen/ExpandUtils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/result_type.h>
#include <torch/library.h>

#include <cstdint>
#include <vector>

namespace refract {
namespace {

std::vector<int64_t> common_size(const at::Tensor& a, const at::Tensor& b) {
  return at::infer_size(a.sizes(), b.sizes());
}

at::Tensor where(const at::Tensor& condition, const at::Tensor& a, const at::Tensor& b) {
  return at::empty(at::infer_size(condition.sizes(), common_size(a, b)),
                   condition.options().dtype(at::result_type(a, b)));
}

at::Tensor index_select(const at::Tensor& x, int64_t dim, const at::Tensor& index) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.at(static_cast<size_t>(dim < 0 ? dim + x.dim() : dim)) = index.numel();
  return at::empty(sizes, x.options());
}

at::Tensor& unary_out(const at::Tensor& x, at::Tensor& out) {
  out.resize_(x.sizes());
  return out;
}

at::Tensor& binary_out(const at::Tensor& a, const at::Tensor& b, at::Tensor& out) {
  out.resize_(common_size(a, b));
  return out;
}

}  // namespace

void add_shape_forms() {
  static torch::Library* const forms = [] {
    auto* aten = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__,
                                    __LINE__);
    aten->impl("where.self", where);
    aten->impl("index_select", index_select);
    aten->impl("abs.out", unary_out);
    aten->impl("logical_not.out", unary_out);
    aten->impl("logical_and.out", binary_out);
    aten->impl("logical_or.out", binary_out);
    return aten;
  }();
  static_cast<void>(forms);
}

}  // namespace refract
