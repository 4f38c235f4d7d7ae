#include "formats/load_weights.h"

#include <map>

#include "core/error.h"
#include "formats/checkpoint.h"
#include "formats/gguf/gguf_config.h"
#include "formats/safetensors.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

bool is_weight(at::ScalarType dtype) {
  return dtype == at::kDouble || dtype == at::kFloat || dtype == at::kHalf ||
         dtype == at::kBFloat16;
}

// What a medium learns, by the end of its name; 0 where it has learned nothing.
bool learned_in_medium(const std::string& name) {
  for (const char* end : {"_log_scale", "_clip", ".turn", ".turn_outputs"}) {
    if (name.ends_with(end)) return true;
  }
  return false;
}

// Complaints about many tensors in one line: the first few and how many more.
class Complaints {
 public:
  void add(std::string text) {
    if (++count_ <= 4) shown_.push_back(std::move(text));
  }
  bool any() const { return count_ > 0; }
  std::string text() const {
    std::string all = fmt::format("{}", fmt::join(shown_, "; "));
    if (count_ > shown_.size()) all += fmt::format("; and {} more", count_ - shown_.size());
    return all;
  }

 private:
  std::vector<std::string> shown_;
  size_t count_ = 0;
};

// A tensor's name and shape where its buffer expects something else; empty if it fits.
std::string buffer_complaint(const BufferStore::Buffer& buffer, const TensorInfo& info) {
  if (buffer.tensor.sizes() == at::IntArrayRef(info.shape)) return "";
  return fmt::format("'{}' is {}, the model has [{}]", info.name, info.describe(),
                     fmt::join(buffer.tensor.sizes(), ", "));
}

void load_buffer_file(Decoder& decoder, const fs::path& path, Complaints& complaints) {
  if (!fs::exists(path)) return;
  const SafetensorsFile file(path);
  for (const TensorInfo& info : file.tensors()) {
    const auto buffers = decoder.buffers().find(info.name);
    if (!buffers) {
      complaints.add(fmt::format("'{}' of {} is no buffer of the model", info.name, kBufferFile));
    } else if (std::string wrong = buffer_complaint(*buffers, info); !wrong.empty()) {
      complaints.add(std::move(wrong));
    } else {
      buffers->tensor.copy_(file.tensor(info.name));
    }
  }
}

// What loading found out before it wrote anything.
struct LoadPlan {
  std::vector<const Parameter*> parameters;      // that the folder holds as they are
  std::vector<const Parameter*> zeros;           // that it lacks and that start at 0
  std::vector<BufferStore::Buffer*> buffers;     // of our own format, among the parameters
  std::vector<const TransformedLayer*> started;  // that take over a dense weight
};

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

class LoadPlanner {
 public:
  LoadPlanner(Decoder& decoder, const CheckpointReader& reader, bool starting)
      : decoder_(decoder), reader_(reader) {
    for (const std::string& name : reader.names())
      holds_learned_ = holds_learned_ || learned_in_medium(name);
    if (starting) find_started();
    for (const Parameter& parameter : decoder.arena().parameters()) check(parameter);
    for (const std::string& name : reader.names()) check_stored(name);
  }

  LoadPlan take(const fs::path& folder) {
    std::string complaint;
    if (missing_.any()) complaint += "; missing: " + missing_.text();
    if (wrong_.any()) complaint += "; of another shape or type: " + wrong_.text();
    if (unexpected_.any()) complaint += "; not part of the model: " + unexpected_.text();
    if (!complaint.empty())
      fail("the weights in '{}' don't fit the model{}", folder.string(), complaint);
    return std::move(plan_);
  }

 private:
  using Layers = std::map<std::string, const TransformedLayer*>;

  void find_started() {
    Layers layers;
    for (const TransformedLayer& entry : decoder_.transformed()) {
      if (reader_.contains(entry.spec.name + ".weight")) layers.emplace(entry.spec.name, &entry);
    }
    for (const Parameter& parameter : decoder_.arena().parameters()) {
      const TransformedLayer* entry = owner(layers, parameter.name);
      if (entry && !reader_.contains(parameter.name)) started_.emplace(entry->spec.name, entry);
    }
    for (const TransformedLayer& entry : decoder_.transformed()) {
      if (started_.contains(entry.spec.name)) plan_.started.push_back(&entry);
    }
  }

  // The layer that a parameter, other than its bias, lies below.
  static const TransformedLayer* owner(const Layers& layers, const std::string& name) {
    for (size_t dot = name.rfind('.'); dot != std::string::npos && dot > 0;
         dot = name.rfind('.', dot - 1)) {
      const auto found = layers.find(name.substr(0, dot));
      if (found != layers.end()) return name.substr(dot) == ".bias" ? nullptr : found->second;
    }
    return nullptr;
  }

  // The layer that this name belongs to, where it takes over a dense weight; its bias is loaded.
  const TransformedLayer* started(const std::string& name) const { return owner(started_, name); }

  void check(const Parameter& parameter) {
    if (started(parameter.name)) return;
    // A folder that was in no medium that learns has none of them. They start at 0.
    if (!holds_learned_ && learned_in_medium(parameter.name)) {
      plan_.zeros.push_back(&parameter);
      return;
    }
    const std::string wanted = fmt::format("'{}' {}", parameter.name, shape_text(parameter.shape));
    if (!reader_.contains(parameter.name)) {
      missing_.add(wanted);
    } else if (reader_.shape(parameter.name) != parameter.shape ||
               !is_weight(reader_.dtype(parameter.name))) {
      wrong_.add(
          fmt::format("{} where the model has {}", reader_.describe(parameter.name), wanted));
    } else {
      plan_.parameters.push_back(&parameter);
    }
  }

  void check_stored(const std::string& name) {
    if (const TransformedLayer* entry = started(name)) {
      const std::vector<int64_t> dense = {entry->spec.out_features, entry->spec.in_features};
      if (name != entry->spec.name + ".weight") {
        unexpected_.add(reader_.describe(name));
      } else if (reader_.shape(name) != dense || !is_weight(reader_.dtype(name))) {
        wrong_.add(fmt::format("{} where the model has a linear layer {}", reader_.describe(name),
                               shape_text(dense)));
      }
      return;
    }
    if (decoder_.arena().find(name)) return;
    BufferStore::Buffer* buffer = decoder_.buffers().find(name);
    if (!buffer) {
      unexpected_.add(reader_.describe(name));
    } else if (buffer->tensor.sizes() != at::IntArrayRef(reader_.shape(name))) {
      wrong_.add(fmt::format("{} where the model has a buffer {}", reader_.describe(name),
                             shape_text(buffer->tensor.sizes())));
    } else {
      plan_.buffers.push_back(buffer);
    }
  }

  Decoder& decoder_;
  const CheckpointReader& reader_;
  LoadPlan plan_;
  Layers started_;
  bool holds_learned_ = false;
  Complaints missing_, wrong_, unexpected_;
};

std::vector<TakenOver> load(Decoder& decoder, const fs::path& folder, bool starting) {
  const CheckpointReader reader(folder);
  const LoadPlan plan = LoadPlanner(decoder, reader, starting).take(folder);
  Complaints bad_buffers;
  load_buffer_file(decoder, folder / kBufferFile, bad_buffers);
  if (bad_buffers.any())
    fail("the buffers in '{}' don't fit the model: {}", folder.string(), bad_buffers.text());
  for (BufferStore::Buffer* buffer : plan.buffers) buffer->tensor.copy_(reader.read(buffer->name));
  for (const Parameter* parameter : plan.parameters) {
    decoder.arena().value(parameter).copy_(reader.read(parameter->name));
    reader.release(parameter->name);
  }
  for (const Parameter* parameter : plan.zeros) decoder.arena().value(parameter).zero_();
  std::vector<TakenOver> taken;
  for (const TransformedLayer* entry : plan.started) {
    const std::string name = entry->spec.name + ".weight";
    const at::Tensor weight = reader.read(name).to(at::kFloat);
    taken.push_back({entry->spec.name, entry->kind, entry->layer->take_over(weight)});
    reader.release(name);
  }
  decoder.arena().refresh_compute();
  return taken;
}

}  // namespace

void check_weights(Decoder& decoder, const fs::path& folder, bool starting) {
  LoadPlanner(decoder, CheckpointReader(folder), starting).take(folder);
}

void check_layer_count(const ModelConfig& config, const fs::path& folder) {
  const auto held = static_cast<int64_t>(CheckpointReader(folder).names().size());
  if (config.num_hidden_layers <= held) return;
  fail("'{}' says that the model has {} layers, but the folder holds {} tensors",
       config_place(folder), config.num_hidden_layers, held);
}

void load_weights(Decoder& decoder, const fs::path& folder) { load(decoder, folder, false); }

std::vector<TakenOver> start_from_weights(Decoder& decoder, const fs::path& folder) {
  return load(decoder, folder, true);
}

}  // namespace refract
