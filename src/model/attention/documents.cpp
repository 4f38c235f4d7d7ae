#include "model/attention/documents.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cummax.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace refract {

at::Tensor Documents::places() const {
  return at::arange(starts.size(1), starts.options()).sub(starts).reshape({-1});
}

at::Tensor Documents::same() const {
  return starts.unsqueeze(2).eq(starts.unsqueeze(1)).unsqueeze(1);
}

Documents documents_of(const at::Tensor& tokens_BT, int64_t beginning) {
  Documents documents;
  const int64_t length = tokens_BT.size(1);
  const at::Tensor places = at::arange(length, tokens_BT.options().dtype(at::kLong));
  const at::Tensor begins = at::where(tokens_BT.eq(beginning), places, at::zeros_like(places));
  documents.starts = std::get<0>(begins.cummax(1));
  if (!tokens_BT.is_cpu()) return documents;
  const at::Tensor host = documents.starts.contiguous();
  const int64_t* starts = host.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < host.numel(); ++i) {
    // A token begins a document where it stands at its start.
    if (starts[i] == i % length) {
      documents.lengths.push_back(1);
    } else {
      ++documents.lengths.back();
    }
  }
  return documents;
}

}  // namespace refract
