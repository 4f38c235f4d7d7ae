// What tests of corpora share: files of a test's own, a token cache, all tokens of a stream.
#pragma once
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/config.h"
#include "data/tokens.h"
#include "support/temporary_folder.h"

namespace refract::testing {

inline std::vector<int32_t> all_tokens(const TokenStream& stream) {
  std::vector<int32_t> tokens(static_cast<size_t>(stream.size()));
  stream.read(0, tokens);
  return tokens;
}

// A corpus and a token cache of the test's own.
class CorpusTest : public ::testing::Test {
 protected:
  CorpusTest() { config_.cache = folder_.str("cache"); }
  std::string add(const std::string& name, const std::string& text) {
    write_text(folder_ / name, text);
    return folder_.str(name);
  }
  size_t cached() const {
    size_t folders = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.str("cache"))) {
      EXPECT_EQ(entry.path().string().find(".partial"), std::string::npos);
      folders += entry.is_directory();
    }
    return folders;
  }
  TemporaryFolder folder_;
  DataConfig config_;
};

}  // namespace refract::testing
