// What a server's caches take, and what is said where they do not fit.
#include "serve/engine/cache_memory.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "serve/engine/engine.h"
#include "support/errors.h"
#include "support/small_models.h"

namespace refract {
namespace cache_memory_test {

using testing::expect_error;
using testing::make_decoder;

TEST(CacheMemory, IsThatOfTheCaches) {
  for (const auto& [name, config] : testing::every_setting()) {
    const auto decoder = make_decoder(config);
    const KvCache cache = decoder->make_cache(1, 7);
    size_t bytes = 0;
    for (const at::Tensor& keys : cache.keys) bytes += keys.nbytes();
    for (const at::Tensor& values : cache.values) bytes += values.nbytes();
    EXPECT_EQ(cache_bytes(*decoder, 3, 7), 3.0 * static_cast<double>(bytes)) << name;
  }
}

TEST(CacheMemory, LittleFitsAndTooMuchNamesTheOptions) {
  const auto free = free_memory();
  ASSERT_TRUE(free) << "the system says nothing of its memory";
  EXPECT_GT(*free, 1 << 20);
  const auto decoder = make_decoder(testing::small_llama());
  EXPECT_NO_THROW(Engine(*decoder, {3, 12, 5}));
  // Two layers of two heads of four channels: 128 bytes a token.
  expect_error(
      [&] {
        Engine(*decoder, {1024, int64_t{1} << 30, 5});
      },
      {"1024 slots of 1073741824 tokens", "128.0 TiB", "are free", "--slots", "--context"});
}

}  // namespace cache_memory_test
}  // namespace refract
