#include "model/attention/attention_shapes.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <stdexcept>

namespace refract {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::TensorOptions fp32_like(const at::Tensor& x) { return x.options().dtype(at::kFloat); }

// [B, heads, T, D] of x's type, heads beside one another in memory.
at::Tensor heads_like(const at::Tensor& x, int64_t heads) {
  return at::empty({x.size(0), x.size(2), heads, x.size(3)}, x.options()).transpose(1, 2);
}

struct AttentionShapes : torch::autograd::Function<AttentionShapes> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v) {
    at::AutoDispatchBelowADInplaceOrView below;
    const at::Tensor out = heads_like(q, q.size(1));
    const at::Tensor normalizers = at::empty({q.size(0), q.size(1), q.size(2)}, fp32_like(q));
    ctx->save_for_backward({q, k, v, out, normalizers});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& /*grads*/) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const at::Tensor dq = heads_like(q, q.size(1)), dk = heads_like(k, k.size(1)),
                     dv = heads_like(v, v.size(1));
    const at::Tensor sum = at::empty(q.sizes(), fp32_like(q)),
                     rows = at::empty({q.size(0), q.size(1), q.size(2)}, fp32_like(q));
    variable_list of_each_head;
    if (k.size(1) != q.size(1)) of_each_head = {heads_like(k, q.size(1)), heads_like(v, q.size(1))};
    return {dq, dk, dv};
  }
};

}  // namespace

at::Tensor attention_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  if (!q.is_meta()) throw std::logic_error("attention without numbers wants the meta device");
  return AttentionShapes::apply(q, k, v);
}

}  // namespace refract
