#include "report/run_ranges.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "formats/safetensors.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// Folders "step-00001000" of a run by step.
std::map<int64_t, fs::path> checkpoints(const fs::path& run_folder) {
  std::map<int64_t, fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run_folder / "checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || name.size() < 6 || name.size() > 23) continue;
    if (name.find_first_not_of("0123456789", 5) != std::string::npos) continue;
    found[std::stoll(name.substr(5))] = entry.path();
  }
  return found;
}

bool holds_pairs(const TensorInfo& info) {
  const bool floating = at::isFloatingType(info.dtype);
  int64_t count = 1;
  for (const int64_t extent : info.shape) count *= extent;
  return floating && info.name.find("range") != std::string::npos && count > 0 && count % 2 == 0;
}

// Of an attention's "ranges" [5, 2], in the order of transforms/optical/optical_attention.h.
constexpr std::array<const char*, 5> kAttentionRoles = {"q", "k", "scores", "v", "output"};

// "model.layers.0.mlp.up_proj.x_range" -> module "model.layers.0.mlp.up_proj", role "x_range"; of a
// tensor with several pairs "ranges 0", "ranges 1", ..., or what they stand for where that is
// known.
RangeTrack named_track(const std::string& tensor, int64_t pair, int64_t pairs) {
  const size_t dot = tensor.rfind('.');
  RangeTrack track;
  if (dot != std::string::npos) track.module = tensor.substr(0, dot);
  track.role = dot == std::string::npos ? tensor : tensor.substr(dot + 1);
  if (track.role == "ranges" && pairs == static_cast<int64_t>(kAttentionRoles.size())) {
    track.role = std::string("attention, ") + kAttentionRoles.at(static_cast<size_t>(pair));
  } else if (pairs > 1) {
    track.role += " " + std::to_string(pair);
  }
  return track;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Layer 2 before layer 10: a run of digits counts as its number.
bool natural_less(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      size_t end_a = i, end_b = j;
      while (end_a < a.size() && is_digit(a[end_a])) ++end_a;
      while (end_b < b.size() && is_digit(b[end_b])) ++end_b;
      if (end_a - i != end_b - j) return end_a - i < end_b - j;  // names carry no leading zeros
    }
    if (a[i] != b[j]) return a[i] < b[j];
    ++i, ++j;
  }
  return a.size() - i < b.size() - j;
}

class Tracks {
 public:
  void add(int64_t step, const SafetensorsFile& file) {
    for (const TensorInfo& info : file.tensors()) {
      if (!holds_pairs(info)) continue;
      const at::Tensor values = file.tensor(info.name).to(at::kDouble).reshape({-1, 2});
      for (int64_t pair = 0; pair < values.size(0); ++pair) {
        RangeTrack& track = find(info.name, pair, values.size(0));
        track.steps.push_back(static_cast<double>(step));
        const double* ends = values.const_data_ptr<double>() + 2 * pair;
        track.low.push_back(ends[0]);
        track.high.push_back(ends[1]);
      }
    }
  }
  std::vector<RangeTrack> take() {
    std::ranges::stable_sort(tracks_, [](const RangeTrack& a, const RangeTrack& b) {
      return natural_less(a.module, b.module);
    });
    return std::move(tracks_);
  }

 private:
  RangeTrack& find(const std::string& tensor, int64_t pair, int64_t pairs) {
    const auto [place, fresh] = places_.try_emplace({tensor, pair}, tracks_.size());
    if (fresh) tracks_.push_back(named_track(tensor, pair, pairs));
    return tracks_[place->second];
  }
  std::map<std::pair<std::string, int64_t>, size_t> places_;
  std::vector<RangeTrack> tracks_;
};

}  // namespace

std::vector<RangeTrack> read_ranges(const fs::path& run_folder) {
  Tracks tracks;
  for (const auto& [step, folder] : checkpoints(run_folder)) {
    // A model without a Hugging Face form keeps its buffers among the weights.
    for (const char* name : {"buffers.safetensors", "model.safetensors"}) {
      try {
        if (fs::exists(folder / name)) tracks.add(step, SafetensorsFile(folder / name));
      } catch (const Error& error) {  // a report of a damaged run is better than none
        log_warning("{}", error.what());
      }
    }
  }
  return tracks.take();
}

}  // namespace refract
