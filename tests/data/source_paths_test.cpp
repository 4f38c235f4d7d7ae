#include "data/source_paths.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace source_paths_test {

using testing::TemporaryFolder;
using testing::write_text;

TEST(Source, ShardsAreSortedIntoTrainingAndValidation) {
  const TemporaryFolder folder;
  for (const char* name : {"n/train.bin", "n/val.bin", "l/f_train_000001.bin",
                           "l/f_train_000000.bin", "l/f_val_000000.bin"}) {
    write_text(folder / name, "abcd");
  }
  const SourcePaths nano = expand_paths({folder.str("n")});
  ASSERT_EQ(nano.shards.size(), 1u);
  EXPECT_EQ(nano.validation_shards.size(), 1u);
  const SourcePaths llmc = expand_paths({folder.str("l/f_*.bin")});
  ASSERT_EQ(llmc.shards.size(), 2u);
  EXPECT_EQ(llmc.shards[0].filename(), "f_train_000000.bin");
  EXPECT_EQ(llmc.validation_shards.size(), 1u);
}

TEST(Source, KindsAreToldByNamesInAnyCase) {
  for (const char* name : {"a.txt", "a.TXT", "b/a.Txt.Gz", "a.txt.zst", "a.text", "a.TEXT.gz"})
    EXPECT_EQ(corpus_kind(name), CorpusKind::kText) << name;
  for (const char* name : {"a.jsonl", "a.JsonL", "a.b.jsonl.GZ", "a.ndjson", "a.NDJSON.zst",
                           "a.jsonlines", "a.jsonlines.gz"})
    EXPECT_EQ(corpus_kind(name), CorpusKind::kJsonLines) << name;
  EXPECT_EQ(corpus_kind("a.BIN"), CorpusKind::kShard);
  EXPECT_EQ(corpus_kind("a/b.Parquet"), CorpusKind::kParquet);
  for (const char* name :
       {"a.bin.gz", "a.gz", "txt", "a.txt~", "a.json", "a.txt.bz2", "a.parquet.gz"})
    EXPECT_EQ(corpus_kind(name), CorpusKind::kOther) << name;
}

TEST(Source, WhatIsOftenMetAndNotReadSaysWhatToDo) {
  const TemporaryFolder folder;
  for (const auto& [name, advice] :
       {std::pair("a.bin.gz", "gunzip"), std::pair("a.BIN.zst", "unzstd"),
        std::pair("a.json", "jq -c"), std::pair("a.jsonl.xz", "as .gz or .zst"),
        std::pair("a.txt.bz2", "as .gz or .zst"), std::pair("a.tar.gz", "into a folder"),
        std::pair("a.zip", "into a folder"), std::pair("a.npy", "tofile"),
        std::pair("a.csv", "read_csv"), std::pair("a.md", "end in .txt")}) {
    write_text(folder / name, "abcd");
    const std::string error = testing::usage_error_of([&] { expand_paths({folder.str(name)}); });
    EXPECT_NE(error.find(advice), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
  write_text(folder / "only/b.ndjson.xz", "abcd");
  const std::string error = testing::usage_error_of([&] { expand_paths({folder.str("only")}); });
  EXPECT_NE(error.find("it has 'b.ndjson.xz' (unpack it"), std::string::npos) << error;
  write_text(folder / "odd.foo", "abcd");
  const std::string plain = testing::usage_error_of([&] { expand_paths({folder.str("odd.foo")}); });
  EXPECT_NE(plain.find("can be read: use .txt"), std::string::npos) << plain;
}

TEST(Source, AFolderIsEnteredOnceByItsOwnName) {
  const TemporaryFolder folder;
  write_text(folder / "c/sub/b.txt", "b");
  write_text(folder / "c/a.txt", "a");
  for (const auto& [link, target] :
       {std::pair("c/sub/up", ".."), std::pair("c/again", "sub"), std::pair("c/me", ".")})
    std::filesystem::create_directory_symlink(target, folder / link);
  EXPECT_EQ(expand_paths({folder.str("c")}).text,
            (std::vector<std::string>{folder.str("c/a.txt"), folder.str("c/sub/b.txt")}));
  std::filesystem::create_symlink("nowhere", folder / "c/sub/gone.txt");
  EXPECT_THROW(expand_paths({folder.str("c")}), Error);
}

TEST(Source, SizesAreReadInPowersOfTen) {
  EXPECT_EQ(parse_size("20MB"), 20'000'000);
  EXPECT_EQ(parse_size("1.5 gb"), 1'500'000'000);
  EXPECT_EQ(parse_size("300KB"), 300'000);
  EXPECT_EQ(parse_size("7k"), 7'000);
  EXPECT_EQ(parse_size("12345"), 12'345);
  for (const char* bad : {"", "MB", "-1MB", "0", "5TBs", "nan", "inf", "1e300", "20 M B"}) {
    EXPECT_THROW(parse_size(bad), Error) << bad;
  }
}

}  // namespace source_paths_test
}  // namespace refract
