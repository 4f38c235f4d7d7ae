#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cstring>
#include <vector>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/dense/embedding/embedding.h"

namespace refract {
namespace {

constexpr int64_t kGrainElements = 1 << 14;
constexpr int64_t kColumnStep = 16;  // a cache line of floats: tasks never share one

// Token ids as int64, each checked to be in [0, rows).
std::vector<int64_t> checked_tokens(const char* op, const at::Tensor& tokens, int64_t rows) {
  const at::Tensor wide = tokens.to(at::kLong).contiguous();
  const int64_t* first = wide.const_data_ptr<int64_t>();
  std::vector<int64_t> ids(first, first + wide.numel());
  for (const int64_t id : ids) {
    TORCH_CHECK_INDEX(id >= 0 && id < rows, "refract::", op, ": expected tokens in [0, ", rows,
                      "), got ", id);
  }
  return ids;
}

int64_t row_grain(int64_t width) {
  return std::max<int64_t>(kGrainElements / std::max<int64_t>(width, 1), 1);
}

template <class T>
void gather(const std::vector<int64_t>& ids, const T* wte, const T* wpe, int64_t length,
            int64_t width, T* out) {
  using A = Accumulate<T>;
  at::parallel_for(
      0, static_cast<int64_t>(ids.size()), row_grain(width), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const T* token = wte + ids[i] * width;
          T* to = out + i * width;
          if (wpe == nullptr) {
            std::memcpy(to, token, width * sizeof(T));
            continue;
          }
          const T* position = wpe + i % length * width;
          for (int64_t c = 0; c < width; ++c) {
            to[c] = static_cast<T>(static_cast<A>(token[c]) + static_cast<A>(position[c]));
          }
        }
      });
}

at::Tensor embed_cpu(const EmbedInputs& in) {
  embedding::check(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::Tensor wte = in.wte.contiguous();
  const bool positions = in.wpe && in.wpe->defined();
  const at::Tensor wpe = positions ? in.wpe->contiguous() : at::Tensor();
  const int64_t length = in.tokens.size(1), width = wte.size(1);
  const auto ids = checked_tokens("embed", in.tokens, wte.size(0));
  at::Tensor out = at::empty({in.tokens.size(0), length, width}, wte.options());
  dispatch_floating(wte.scalar_type(), "embed", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* p = positions ? wpe.const_data_ptr<T>() + in.position_offset * width : nullptr;
    gather(ids, wte.const_data_ptr<T>(), p, length, width, out.mutable_data_ptr<T>());
  });
  return out;
}

// Each task owns columns and walks all positions in order: no two tasks write the same element and
// every sum has one order.
template <class T, class A>
void scatter(const std::vector<int64_t>& ids, const T* grad, int64_t width, A* sum) {
  const int64_t steps = (width + kColumnStep - 1) / kColumnStep;
  const int64_t positions = static_cast<int64_t>(ids.size());
  const int64_t grain =
      std::max<int64_t>(kGrainElements / std::max<int64_t>(positions * kColumnStep, 1), 1);
  at::parallel_for(0, steps, grain, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kColumnStep, last = std::min(end * kColumnStep, width);
    for (int64_t i = 0; i < positions; ++i) {
      const T* from = grad + i * width;
      A* to = sum + ids[i] * width;
      for (int64_t c = first; c < last; ++c) to[c] += static_cast<A>(from[c]);
    }
  });
}

at::Tensor embed_backward_cpu(const EmbedBackwardInputs& in) {
  embedding::check_backward(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::Tensor grad = in.grad.contiguous();
  const auto ids = checked_tokens("embed_backward", in.tokens, in.rows);
  return dispatch_floating(grad.scalar_type(), "embed_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    at::Tensor sum = at::zeros({in.rows, grad.size(-1)},
                               grad.options().dtype(c10::CppTypeToScalarType<A>::value));
    scatter(ids, grad.const_data_ptr<T>(), grad.size(-1), sum.mutable_data_ptr<A>());
    return sum.to(grad.scalar_type());
  });
}

}  // namespace

// The positions' gradient is ATen's sum over the batch, which is fast and ordered already.
TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, embed).cpu<embed_cpu>();
  forms(m, embed_backward).cpu<embed_backward_cpu>();
}

}  // namespace refract
