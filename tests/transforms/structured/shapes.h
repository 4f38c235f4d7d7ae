// The shapes and starts that every structured kind is tested with.
#pragma once
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "transforms/one_layer.h"

namespace refract::testing {

// (inputs, outputs)
inline constexpr std::pair<int64_t, int64_t> kShapes[] = {
    {8, 16}, {16, 8}, {12, 12}, {24, 8}, {12, 36}};

// Calls test(layer, x) for a kind at all shapes, numbers of blocks and starts; 0 leaves `blocks` or
// `rank` out.
template <class F>
void for_all(const char* kind, const std::vector<int64_t>& blocks, int64_t rank, const F& test) {
  for (const auto& [in, out] : kShapes) {
    for (const int64_t B : blocks) {
      for (const char* init : {"svd", "ortho", "xavier", "normal"}) {
        SCOPED_TRACE(fmt::format("{} [{}, {}] B {} {}", kind, out, in, B, init));
        std::string table = fmt::format(R"("kind": "{}", "init": "{}")", kind, init);
        if (B > 0) table += fmt::format(R"(, "blocks": {})", B);
        if (rank > 0) table += fmt::format(R"(, "rank": {})", rank);
        OneLayer one("{" + table + "}", in, out);
        test(one, normal({2, 3, in}));
      }
    }
  }
}

}  // namespace refract::testing
