#include "train/state/train_position.h"

#include <charconv>
#include <limits>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {
namespace {

// Steps and sequences are multiplied and added to; seeds are not.
constexpr int64_t kMostDone = int64_t{1} << 48, kMostSeed = std::numeric_limits<int64_t>::max();

int64_t metadata_number(const std::map<std::string, std::string>& metadata, const std::string& key,
                        int64_t most, const std::filesystem::path& file) {
  const auto found = metadata.find(key);
  if (found == metadata.end())
    fail("'{}' has no '{}'; it is not a train state of this program", file.string(), key);
  const std::string& text = found->second;
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && stop == text.data() + text.size() && value >= 0 && value <= most)
    return value;
  fail("'{}' is damaged: its '{}' is '{}', which is not a number from 0 to {}", file.string(), key,
       shown(text), most);
}

}  // namespace

std::map<std::string, std::string> to_metadata(const TrainPosition& position) {
  return {{"step", std::to_string(position.step)},
          {"sequences", std::to_string(position.sequences)},
          {"seed", std::to_string(position.seed)},
          {"order_seed", std::to_string(position.order_seed)},
          {"noise_seed", std::to_string(position.noise_seed)}};
}

TrainPosition read_train_position(const std::map<std::string, std::string>& metadata,
                                  const std::filesystem::path& file) {
  TrainPosition position{metadata_number(metadata, "step", kMostDone, file),
                         metadata_number(metadata, "sequences", kMostDone, file),
                         metadata_number(metadata, "seed", kMostSeed, file)};
  const auto or_seed = [&](const char* key) {  // files of earlier versions have one seed for all
    return metadata.contains(key) ? metadata_number(metadata, key, kMostSeed, file) : position.seed;
  };
  position.order_seed = or_seed("order_seed");
  position.noise_seed = or_seed("noise_seed");
  return position;
}

}  // namespace refract
