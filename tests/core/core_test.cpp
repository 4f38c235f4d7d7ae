#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <set>

#include "core/error.h"
#include "core/expression.h"
#include "core/files.h"
#include "core/progress.h"
#include "core/random.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

TEST(Expression, ComputesWithNames) {
  EXPECT_DOUBLE_EQ(evaluate_expression("22*N/100", {{"N", 50.0}}), 11.0);
  EXPECT_DOUBLE_EQ(evaluate_expression(" 2 + 3 * (4 - 1) / -2 ", {}), -2.5);
  EXPECT_DOUBLE_EQ(evaluate_expression("1e6", {}), 1e6);
}

TEST(Expression, ErrorsShowThePlace) {
  for (const char* bad : {"", "2*", "(1", "M", "1 1", "1/0"})
    EXPECT_THROW(evaluate_expression(bad, {}), Error) << bad;
  try {
    evaluate_expression("22*M", {{"N", 1.0}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the expression '22*M' needs a number or a name at character 4");
  }
}

// The known-answer vectors of the authors' Random123 library for philox4x32-10.
TEST(Philox, MatchesKnownAnswers) {
  const PhiloxBlock zero = philox({0, 0}, 0, 0);
  EXPECT_EQ(zero.word[0], 0x6627e8d5u);
  EXPECT_EQ(zero.word[1], 0xe169c58du);
  EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
  const PhiloxBlock ones = philox({0xffffffffu, 0xffffffffu}, ~0ull, ~0ull);
  EXPECT_EQ(ones.word[0], 0x408f276du);
  EXPECT_EQ(ones.word[1], 0x41c83b0eu);
  EXPECT_EQ(ones.word[2], 0xa20bc7c6u);
  EXPECT_EQ(ones.word[3], 0x6d5451fdu);
}

// ... and for philox4x32-7.
TEST(Philox, MatchesKnownAnswersOfNoise) {
  const PhiloxBlock zero = noise_block({0, 0}, 0, 0);
  EXPECT_EQ(zero.word[0], 0x5f6fb709u);
  EXPECT_EQ(zero.word[1], 0x0d893f64u);
  EXPECT_EQ(zero.word[2], 0x4f121f81u);
  EXPECT_EQ(zero.word[3], 0x4f730a48u);
  const PhiloxBlock ones = noise_block({0xffffffffu, 0xffffffffu}, ~0ull, ~0ull);
  EXPECT_EQ(ones.word[0], 0x5207ddc2u);
  EXPECT_EQ(ones.word[1], 0x45165e59u);
  EXPECT_EQ(ones.word[2], 0x4d8ee751u);
  EXPECT_EQ(ones.word[3], 0x8c52f662u);
}

TEST(RandomStream, IsUniformAndKeyed) {
  RandomStream a(1, "x"), b(1, "x"), c(2, "x"), d(1, "y");
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = a.uniform();
    EXPECT_EQ(u, b.uniform());
    EXPECT_NE(u, c.uniform());
    EXPECT_NE(u, d.uniform());
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 5 * std::sqrt(1.0 / 12 / 10000));  // five standard errors
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(a.below(7));
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(*seen.rbegin(), 6u);
}

TEST(Files, WriteIsAllOrNothing) {
  const fs::path folder = fs::path(testing::TempDir()) / "refract_files";
  fs::create_directories(folder);
  const fs::path path = folder / "f.txt";
  write_file_atomically(path, "old");
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, old_limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_THROW(write_file_atomically(path, std::string(100000, 'x')), Error);
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);  // nothing partial is left
  fs::remove_all(folder);
}

TEST(Files, MissingFileNamesItself) {
  try {
    read_file("/no/such/file", "the tokenizer");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "can't read the tokenizer '/no/such/file': No such file or directory");
  }
}

TEST(Format, DurationsCountsBytes) {
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(65.4), "1:05");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_bytes(1.5 * 1024 * 1024), "1.5 MiB");
}

}  // namespace
}  // namespace refract
