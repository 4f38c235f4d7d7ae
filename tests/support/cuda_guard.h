// REFRACT_CUDA_OR_SKIP() at the head of a test that needs a GPU: skips where there is none, or
// fails where REFRACT_REQUIRE_CUDA=1 says there must be one.
#pragma once

#include <gtest/gtest.h>

#include <string>

namespace refract::testing {

// Empty where CUDA tensors and our kernels can be used, otherwise why not. The first call opens
// librefract_cuda.so (beside librefract_ops.so, or the file in REFRACT_CUDA_LIBRARY).
const std::string& cuda_unavailable();

bool cuda_required();

}  // namespace refract::testing

#define REFRACT_CUDA_OR_SKIP()                                                              \
  do {                                                                                      \
    if (!::refract::testing::cuda_unavailable().empty()) {                                  \
      if (::refract::testing::cuda_required()) {                                            \
        FAIL() << "REFRACT_REQUIRE_CUDA=1, but " << ::refract::testing::cuda_unavailable(); \
      }                                                                                     \
      GTEST_SKIP() << ::refract::testing::cuda_unavailable();                               \
    }                                                                                       \
  } while (false)
