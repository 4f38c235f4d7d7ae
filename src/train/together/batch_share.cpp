#include "train/together/batch_share.h"

#include <bit>

#include "core/error.h"

namespace refract {
namespace {

constexpr int64_t kMostGroups = 64;  // what every part of the arena is a multiple of

bool power_of_two(int64_t n) { return std::has_single_bit(static_cast<uint64_t>(n)); }

}  // namespace

void check_reduction_groups(const RunConfig& config) {
  const int64_t groups = config.train.reduction_groups, batch = config.train.batch;
  if (groups == 0) return;
  if (!power_of_two(groups) || groups > kMostGroups) {
    fail_usage("train.reduction_groups = {} is not a power of two up to {} (0: off)", groups,
               kMostGroups);
  }
  if (batch % groups != 0) {
    fail_usage("train.batch = {} is not a multiple of train.reduction_groups = {}", batch, groups);
  }
  const int64_t micro = config.train.micro_batch;
  if (micro > 0 && batch / groups % micro != 0) {
    fail_usage(
        "train.micro_batch = {} does not divide the {} sequences of each of the "
        "train.reduction_groups = {}",
        micro, batch / groups, groups);
  }
}

BatchShare share_of_batch(const RunConfig& config, int64_t rank, int64_t size) {
  const int64_t groups = config.train.reduction_groups, batch = config.train.batch;
  BatchShare share;
  if (groups > 0) {
    if (!power_of_two(size) || size > groups) {
      fail_usage(
          "train.reduction_groups = {} can't be divided among {} processes: start a power of two "
          "of them, at most {}",
          groups, size, groups);
    }
    share.fixed_groups = true;
    share.groups = groups / size;
  } else if (batch % size != 0) {
    fail_usage("train.batch = {} can't be divided among {} processes", batch, size);
  }
  const int64_t group = batch / (share.groups * size);
  share.micro_batch = config.train.micro_batch > 0 ? config.train.micro_batch : group;
  if (group % share.micro_batch != 0) {
    fail_usage("train.micro_batch = {} does not divide the {} sequences of each of {} processes",
               config.train.micro_batch, group, size);
  }
  share.per_group = group / share.micro_batch;
  share.first = rank * share.sequences();
  return share;
}

}  // namespace refract
