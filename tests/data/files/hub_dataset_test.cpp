// Data sets in the Hugging Face cache.
#include "data/files/hub_dataset.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "data/source_paths.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace hub_dataset_test {

using testing::expect_error;
using testing::TemporaryFolder;
using testing::write_text;

using Strings = std::vector<std::string>;

class HubDatasetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::setenv("HF_HUB_CACHE", folder_.path().c_str(), 1), 0);
    write_text(folder_ / "datasets--org--set/refs/main", "0123abcd\n");
  }
  void TearDown() override { ::unsetenv("HF_HUB_CACHE"); }

  // As huggingface_hub lays it out: a link to the blob.
  void add(const std::string& name, const std::string& text = "text") {
    const auto repository = folder_ / "datasets--org--set";
    const auto link = repository / "snapshots/0123abcd" / name;
    const auto blob = repository / "blobs" / std::to_string(blobs_++);
    write_text(blob, text);
    std::filesystem::create_directories(link.parent_path());
    std::filesystem::create_symlink(blob, link);
  }

  // Paths below the snapshot.
  Strings found(const std::string& name) {
    const std::string place = folder_.str("datasets--org--set/snapshots/0123abcd/");
    Strings files = expand_paths({name}).text;
    for (std::string& file : files) {
      EXPECT_TRUE(file.starts_with(place)) << file;
      file.erase(0, place.size());
    }
    return files;
  }

  TemporaryFolder folder_;
  int blobs_ = 0;
};

TEST_F(HubDatasetTest, TheTrainingSplitIsTakenUnlessAnotherIsNamed) {
  for (const char* name : {"README.md", "data/train-00000-of-00002.parquet",
                           "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet",
                           "data/validation-00000-of-00001.parquet", ".gitattributes"})
    add(name);
  EXPECT_EQ(found("org/set"),
            (Strings{"data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"}));
  EXPECT_EQ(found("org/set@main"), found("org/set"));
  EXPECT_EQ(found("org/set@0123abcd"), found("org/set:train"));
  EXPECT_EQ(found("org/set:validation"), Strings{"data/validation-00000-of-00001.parquet"});
  EXPECT_EQ(found("org/set:dev"), found("org/set:validation"));
  EXPECT_EQ(found("org/set/data:test"), Strings{"data/test-00000-of-00001.parquet"});
  EXPECT_EQ(found("org/set/data/test-00000-of-00001.parquet"), found("org/set:test"));
  expect_error([&] { found("org/set:other"); },
               {"no split 'other'", "test, train, validation", "org/set:test"});
  expect_error([&] { found("org/set@v2"); },
               {"hf download --repo-type dataset org/set --revision v2"});
  expect_error([&] { found("org/set/nothing"); }, {"has no 'nothing'", "--repo-type dataset"});
}

TEST_F(HubDatasetTest, SplitsAreToldByFolderAndFile) {
  for (const char* name : {"train/a.jsonl", "Valid/a.jsonl.gz", "my_test.jsonl", "LICENSE.txt"})
    add(name);
  EXPECT_EQ(found("org/set"), Strings{"train/a.jsonl"});
  EXPECT_EQ(found("org/set:validation"), Strings{"Valid/a.jsonl.gz"});
  EXPECT_EQ(found("org/set:test"), Strings{"my_test.jsonl"});
}

TEST_F(HubDatasetTest, ASplitMayStandAnywhereInAName) {
  for (const char* name : {"corpus.train.jsonl", "corpus.valid.jsonl.gz", "corpus.test.jsonl",
                           "snli_1.0_dev.jsonl", "wikitext-2.train.jsonl"})
    add(name);
  EXPECT_EQ(found("org/set"), (Strings{"corpus.train.jsonl", "wikitext-2.train.jsonl"}));
  EXPECT_EQ(found("org/set:validation"), (Strings{"corpus.valid.jsonl.gz", "snli_1.0_dev.jsonl"}));
  EXPECT_EQ(found("org/set:test"), Strings{"corpus.test.jsonl"});
}

TEST_F(HubDatasetTest, FilesWithoutASplitAreLeftOutBesideOthers) {
  for (const char* name : {"pages.jsonl", "test.jsonl"}) add(name);
  expect_error([&] { found("org/set"); }, {"no split 'train'; it has test", "org/set/pages.jsonl"});
  EXPECT_EQ(found("org/set/pages.jsonl"), Strings{"pages.jsonl"});
  add("train.jsonl");
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(found("org/set"), Strings{"train.jsonl"});
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("left out: pages.jsonl;"), std::string::npos) << said;
}

TEST_F(HubDatasetTest, TextBesideUnreadDataIsNotTakenUnasked) {
  for (const char* name : {"LICENSE.txt", "train.csv", "dataset_infos.json"}) add(name);
  expect_error([&] { found("org/set"); },
               {"'train.csv', which can't be read", "org/set/LICENSE.txt"});
  EXPECT_EQ(found("org/set/LICENSE.txt"), Strings{"LICENSE.txt"});
  add("train.jsonl");
  EXPECT_EQ(found("org/set"), Strings{"train.jsonl"});
}

TEST_F(HubDatasetTest, RevisionsMayHaveSlashes) {
  write_text(folder_ / "datasets--org--set/refs/refs/convert/parquet", "0123abcd");
  add("default/train/0000.parquet");
  const Strings expected = {"default/train/0000.parquet"};
  EXPECT_EQ(found("org/set@refs/convert/parquet"), expected);
  EXPECT_EQ(found("org/set@refs/convert/parquet/"), expected);
  EXPECT_EQ(found("org/set@refs/convert/parquet/default:train"), expected);
  expect_error([&] { found("org/set@refs/pr/7/default"); }, {"org/set --revision refs/pr/7"});
}

TEST_F(HubDatasetTest, FilesWithoutASplitAreForTraining) {
  for (const char* name : {"b.txt", "a.txt"}) add(name);
  EXPECT_EQ(found("org/set"), (Strings{"a.txt", "b.txt"}));
  expect_error([&] { found("org/set:test"); }, {"no split 'test'", "its files name none"});
}

TEST_F(HubDatasetTest, SplitsOfTheirOwnNameAreNamed) {
  for (const char* name :
       {"data/train_sft-00000-of-00001.parquet", "data/test_sft-00000-of-00001.parquet"})
    add(name);
  expect_error([&] { found("org/set"); }, {"no split 'train'", "test_sft, train_sft"});
  EXPECT_EQ(found("org/set:train_sft"), Strings{"data/train_sft-00000-of-00001.parquet"});
}

TEST_F(HubDatasetTest, PartsAreNotMixedUnasked) {
  for (const char* name : {"small/train-00000-of-00001.parquet", "small/test/0.parquet",
                           "large/train-00000-of-00001.parquet"})
    add(name);
  expect_error([&] { found("org/set"); }, {"several parts (large, small)", "org/set/large"});
  EXPECT_EQ(found("org/set/small"), Strings{"small/train-00000-of-00001.parquet"});
  EXPECT_EQ(found("org/set:test"), Strings{"small/test/0.parquet"});
}

TEST_F(HubDatasetTest, WhatIsNotThereSaysHowToGetIt) {
  expect_error([&] { found("other/set"); }, {"'other/set'", folder_.path().string(),
                                             "hf download --repo-type dataset other/set"});
  expect_error([&] { found("folder/none.txt"); }, {"no file or folder 'folder/none.txt'"});
  expect_error([&] { found("none"); }, {"no file or folder 'none'"});
  EXPECT_FALSE(names_hub_dataset("org/set"));  // without a snapshot
  add("data.csv");
  EXPECT_TRUE(names_hub_dataset("org/set"));
  expect_error([&] { found("org/set"); }, {"no .parquet, .jsonl or .txt", "data.csv"});
}

TEST_F(HubDatasetTest, AFolderOfThatNameComesFirst) {
  add("a.txt");
  const auto before = std::filesystem::current_path();
  const TemporaryFolder here;
  write_text(here / "org/set/b.txt", "b");
  std::filesystem::current_path(here.path());
  const Strings files = expand_paths({"org/set"}).text;
  EXPECT_FALSE(names_hub_dataset("org/set"));
  std::filesystem::current_path(before);
  EXPECT_EQ(files, Strings{"org/set/b.txt"});
}

TEST(HubDataset, NamesAreTakenApart) {
  const auto full = parse_hub_dataset("org/set@v1/data/en:validation");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->repository.id, "org/set");
  EXPECT_EQ(full->repository.revision, "v1");
  EXPECT_EQ(full->part, "data/en");
  EXPECT_EQ(full->split, "validation");
  EXPECT_EQ(parse_hub_dataset("org/set")->split, "train");
  for (const char* bad : {"", "set", "/a/b", "../a", "org/set/../x", "org/set:", "org/set:a:b",
                          "org/s t", "~/a", "./a/b", "org/set@"})
    EXPECT_FALSE(parse_hub_dataset(bad)) << bad;
}

}  // namespace hub_dataset_test
}  // namespace refract
