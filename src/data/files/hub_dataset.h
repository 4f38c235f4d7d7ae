// Data sets of the Hub, as `hf download --repo-type dataset org/name` leaves them in the cache.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/system/hub_repository.h"

namespace refract {

struct HubDataset {
  HubRepository repository;
  std::string part;             // a file or folder of the repository; empty: all of it
  std::string split = "train";  // the files of this split
};

// "org/name", with a revision (@main), a part (/folder/of/it) and a split (:validation) where
// wanted, in this order. A revision that begins with refs/ is the longest that the cache has of
// what follows ("org/name@refs/convert/parquet/default"). Nothing for what can be none.
std::optional<HubDataset> parse_hub_dataset(const std::string& text);

// Whether `path` is no file or folder here and names a data set that the cache has.
bool names_hub_dataset(const std::string& path);

// The files of the data set, sorted: of the kinds .parquet, .jsonl and .txt the first that it has,
// and of these the split's, by the names of files and folders ("train-00000-of-00002.parquet",
// "corpus.train.jsonl", "data/train/a.jsonl"). Where no file names a split all are for training;
// where one does, those that name none are left out. What is left out is said once. Fails (usage)
// where the cache has not got it, with the command that downloads it; for a split that is not
// there, and where several folders hold the split and no part is named, with what there is; and for
// text beside data that is not read (.csv, .tsv, .json, .arrow).
std::vector<std::filesystem::path> hub_dataset_files(const std::string& name,
                                                     const HubDataset& dataset);

}  // namespace refract
