#include "studies/study_folder.h"

#include <gtest/gtest.h>

#include <optional>

#include "core/files.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace study_folder_test {

using testing::error_of;
using testing::usage_error_of;

TEST(StudyFolder, IsMadeAndHeldWhileItLives) {
  const testing::TemporaryFolder place;
  const std::string out = place.str("a/b");
  std::optional<StudyFolder> first(std::in_place, out);
  EXPECT_TRUE(std::filesystem::is_directory(out));
  EXPECT_EQ(
      error_of([&] { StudyFolder second(out); }),
      "'" + out + "' is being written by another process; wait for it, or choose another --out");
  first.reset();
  EXPECT_EQ(error_of([&] { StudyFolder second(out); }), "");
}

TEST(StudyFolder, IsNeitherARunNorAFileNorNothing) {
  const testing::TemporaryFolder place;
  std::filesystem::create_directories(place / "run");
  write_file_atomically(place / "run/metrics.jsonl", "{\"step\":0,\"loss\":1}\n");
  write_file_atomically(place / "file", "");
  EXPECT_NE(usage_error_of([&] { StudyFolder study(place.str("run")); }).find("is a run"),
            std::string::npos);
  EXPECT_NE(usage_error_of([&] { StudyFolder study(place.str("file/x")); }).find("can't make"),
            std::string::npos);
  EXPECT_NE(usage_error_of([&] { StudyFolder study(""); }).find("can't make"), std::string::npos);
}

}  // namespace study_folder_test
}  // namespace refract
