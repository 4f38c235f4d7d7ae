// Windows that hold several documents which do not see each other (data.documents = "isolated").
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace refract {

// Where the documents of a batch of windows [B, T] lie.
struct Documents {
  at::Tensor starts;  // int64 [B, T]: the place in its window at which each token's document begins
  // Tokens of each document, row by row. Known on the CPU alone, where each is then computed by
  // itself; elsewhere a mask parts them.
  std::vector<int64_t> lengths;

  // int64 [B * T]: how many tokens of its document stand before each token in its window.
  at::Tensor places() const;
  // bool [B, 1, T, T]: whether query i and key j are of one document.
  at::Tensor same() const;
};

// A document begins at each token `beginning`, and at the begin of a window. Nothing is read back
// from a device.
Documents documents_of(const at::Tensor& tokens_BT, int64_t beginning);

}  // namespace refract
