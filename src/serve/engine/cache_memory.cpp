#include "serve/engine/cache_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "core/error.h"
#include "core/progress.h"
#include "model/layer_plan.h"

namespace refract {
namespace {

// The number that stands in a file of the kernel; none for "max" and for a file that isn't there.
std::optional<double> number_in(const char* path) {
  std::ifstream file(path);
  double number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

std::optional<double> available() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  double kibibytes = 0;
  while (file >> name >> kibibytes && std::getline(file, unit)) {
    if (name == "MemAvailable:") return kibibytes * 1024;
  }
  return std::nullopt;
}

// As a container shows its own group. What files take of it is given back when it is needed.
std::optional<double> left_of_group() {
  const auto limit = number_in("/sys/fs/cgroup/memory.max");
  const auto used = number_in("/sys/fs/cgroup/memory.current");
  if (!limit || !used) return std::nullopt;
  std::ifstream file("/sys/fs/cgroup/memory.stat");
  std::string name;
  double bytes = 0, files = 0;
  while (file >> name >> bytes) {
    if (name == "inactive_file" || name == "active_file") files += bytes;
  }
  return std::max(0.0, *limit - *used + files);
}

}  // namespace

double cache_bytes(const Decoder& model, int64_t slots, int64_t context) {
  const auto width = static_cast<double>(model.arena().compute().element_size());
  double bytes = 0;
  for (const LayerPlan& layer : model.plan().layers) {
    bytes += 2 * width * static_cast<double>(layer.attention.num_kv_heads) *
             static_cast<double>(layer.attention.head_dim);
  }
  return bytes * static_cast<double>(slots) * static_cast<double>(context);
}

std::optional<double> free_memory() {
  const auto system = available(), group = left_of_group();
  if (system && group) return std::min(*system, *group);
  return system ? system : group;
}

void fail_for_caches(const Decoder& model, int64_t slots, int64_t context) {
  std::string free;
  if (const auto bytes = model.device().is_cpu() ? free_memory() : std::nullopt)
    free = fmt::format(", and {} are free", format_bytes(*bytes));
  fail(
      "the caches of {} slots of {} tokens need {} of memory{}; serve fewer with --slots, or "
      "shorter ones with --context",
      slots, context, format_bytes(cache_bytes(model, slots, context)), free);
}

void check_cache_memory(const Decoder& model, int64_t slots, int64_t context) {
  if (!model.device().is_cpu()) return;
  const auto free = free_memory();
  if (free && cache_bytes(model, slots, context) > *free) fail_for_caches(model, slots, context);
}

}  // namespace refract
