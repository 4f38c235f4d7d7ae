#include "formats/gguf/gguf_config.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_rope.h"
#include "formats/gguf/gguf_window.h"

namespace refract {
namespace {

using nlohmann::json;

// Behind the architecture's name: whole numbers that have the same meaning in config.json.
constexpr std::pair<const char*, const char*> kWholes[] = {
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"}};
constexpr const char* kKvHeads = "attention.head_count_kv";
constexpr const char* kEpsilon = "attention.layer_norm_rms_epsilon";
constexpr const char *kKeyWidth = "attention.key_length", *kValueWidth = "attention.value_length",
                     *kRotaryWidth = "rope.dimension_count";
constexpr const char* kTheta = "rope.freq_base";
constexpr const char *kScaling = "rope.scaling.type", *kScalingFactor = "rope.scaling.factor",
                     *kOriginal = "rope.scaling.original_context_length";
// Of Llama 3's scaling, where they are not 1 and 4; other programs read rope_freqs alone.
constexpr const char *kLow = "refract.rope.low_freq_factor",
                     *kHigh = "refract.rope.high_freq_factor";

// Settings that change what a model computes and that refract's decoder lacks.
constexpr const char* kRefused[] = {
    "expert_count",   "attention.scale",     "logit_scale",  "embedding_scale",
    "residual_scale", "attention.clamp_kqv", "pooling_type", "attention.max_alibi_bias"};

constexpr std::pair<const char*, const char*> kGgufIds[] = {
    {"tokenizer.ggml.bos_token_id", "bos_token_id"},
    {"tokenizer.ggml.padding_token_id", "pad_token_id"},
    {"tokenizer.ggml.unknown_token_id", "unk_token_id"}};
constexpr const char *kEos = "tokenizer.ggml.eos_token_id", *kEot = "tokenizer.ggml.eot_token_id",
                     *kEom = "tokenizer.ggml.eom_token_id";
// refract's own: no pair of positions need be stretched by the whole factor.
constexpr const char* kLlama3Factor = "refract.rope.factor";

class GgufConfigReader {
 public:
  GgufConfigReader(const GgufHeader& header, std::span<const std::byte> file)
      : header_(header),
        settings_(header.settings),
        file_(file),
        architecture_(
            gguf_architecture(settings_.text("general.architecture", ""), settings_.where())) {}

  json read() {
    refuse();
    tree_["model_type"] = architecture_.family;
    for (const auto& [theirs, ours] : kWholes) tree_[ours] = settings_.whole(key(theirs));
    tree_["num_key_value_heads"] =
        settings_.whole(key(kKvHeads), settings_.whole(key("attention.head_count")));
    if (!settings_.has(key(kEpsilon))) settings_.complain(key(kEpsilon), "there");
    tree_["rms_norm_eps"] = settings_.number(key(kEpsilon), 0);
    tree_["vocab_size"] = vocab_size();
    tree_["tie_word_embeddings"] = header_.find("output.weight") == nullptr;
    tree_["hidden_act"] = "silu";
    read_biases();
    read_head_width();
    read_rope();
    read_gguf_window(settings_, architecture_.name, tree_);
    read_ids();
    return std::move(tree_);
  }

 private:
  std::string key(std::string_view name) const {
    return fmt::format("{}.{}", architecture_.name, name);
  }

  void refuse() const {
    if (settings_.whole("split.count", 1) > 1)
      fail("'{}' is one of {} parts of a model; join them first (llama-gguf-split --merge)",
           settings_.where(), settings_.whole("split.count"));
    if (!settings_.flag(key("attention.causal"), true))
      settings_.complain(key("attention.causal"), "true");
    for (const char* name : kRefused) {
      const std::string full = key(name);
      if (settings_.has(full) && settings_.number(full, 0) != 0)
        fail("'{}': the setting {} = {} is not supported by refract's decoder", settings_.where(),
             full, settings_.number(full, 0));
    }
  }

  int64_t vocab_size() const {
    const GgufTensor* embedding = header_.find("token_embd.weight");
    if (!embedding || embedding->shape.size() != 2)
      fail("'{}' has no token embedding (token_embd.weight with two dimensions)",
           settings_.where());
    return embedding->shape[0];
  }

  void read_biases() {
    if (architecture_.family != "llama") return;
    tree_["attention_bias"] = header_.find("blk.0.attn_q.bias") != nullptr;
    tree_["mlp_bias"] = header_.find("blk.0.ffn_up.bias") != nullptr;
  }

  void read_head_width() {
    const int64_t heads = settings_.whole(key("attention.head_count"));
    if (heads < 1) settings_.complain(key("attention.head_count"), "a number from 1 on");
    const int64_t usual = settings_.whole(key("embedding_length")) / heads;
    const int64_t rotary = settings_.whole(key(kRotaryWidth), 0);
    const int64_t width = settings_.whole(key(kKeyWidth), rotary > 0 ? rotary : usual);
    if (settings_.whole(key(kValueWidth), width) != width)
      settings_.complain(key(kValueWidth), fmt::format("{}, the width of the keys", width));
    if (rotary != 0 && rotary != width)
      settings_.complain(key(kRotaryWidth), fmt::format("{}, the width of a head", width));
    tree_["head_dim"] = head_dim_ = width;
  }

  void read_rope() {
    const double theta = settings_.number(key(kTheta), 10000);
    json rope = {{"rope_theta", theta}, {"rope_type", "default"}};
    // llama.cpp takes a factor without a type as a linear one.
    const std::string type =
        settings_.text(key(kScaling), settings_.has(key(kScalingFactor)) ? "linear" : "none");
    if (type != "none" && type != "linear") settings_.complain(key(kScaling), "none or linear");
    // Old files say the factor alone.
    const double factor = type == "linear" ? settings_.number(key(kScalingFactor), 1)
                                           : settings_.number(key("rope.scale_linear"), 1);
    if (factor != 1) {
      rope["rope_type"] = "linear";
      rope["factor"] = factor;
    }
    if (const GgufTensor* divisors = header_.find(kRopeDivisors)) {
      if (factor != 1)
        fail("'{}' has both {} and a linear scaling of positions", settings_.where(),
             kRopeDivisors);
      read_llama3(*divisors, theta, rope);
    }
    tree_["rope_parameters"] = rope;
  }

  void read_llama3(const GgufTensor& tensor, double theta, json& rope) const {
    Llama3Rope known;
    known.theta = theta;
    known.head_dim = head_dim_;
    known.original = settings_.whole(key(kOriginal), 0);
    known.low = settings_.number(kLow, 1);
    known.high = settings_.number(kHigh, 4);
    known.factor = settings_.number(kLlama3Factor, 0);
    std::optional<Llama3Rope> found;
    if (tensor.type->number == kGgufF32) {
      std::vector<float> divisors(static_cast<size_t>(tensor.numel()));
      std::memcpy(divisors.data(), file_.data() + tensor.begin, divisors.size() * sizeof(float));
      found = llama3_of_divisors(divisors, known);
    }
    if (!found)
      fail(
          "'{}': the tensor '{}' ({}) is not what Llama 3's scaling of positions gives; no other "
          "is "
          "supported",
          settings_.where(), kRopeDivisors, tensor.describe());
    rope["rope_type"] = "llama3";
    rope["factor"] = found->factor;
    rope["low_freq_factor"] = found->low;
    rope["high_freq_factor"] = found->high;
    rope["original_max_position_embeddings"] = found->original;
  }

  void read_ids() {
    for (const auto& [theirs, ours] : kGgufIds) {
      if (settings_.has(theirs)) tree_[ours] = settings_.whole(theirs);
    }
    if (!settings_.has(kEos)) return;
    const int64_t end = settings_.whole(kEos);
    json ends = json::array({end});
    for (const char* other : {kEot, kEom}) {
      const int64_t id = settings_.whole(other, end);
      if (std::find(ends.begin(), ends.end(), json(id)) == ends.end()) ends.push_back(id);
    }
    tree_["eos_token_id"] = ends.size() == 1 ? json(end) : ends;
  }

  const GgufHeader& header_;
  const GgufMetadata& settings_;
  std::span<const std::byte> file_;
  const GgufArchitecture& architecture_;
  json tree_ = json::object();
  int64_t head_dim_ = 0;
};

uint32_t whole32(const json& value, std::string_view what) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() > UINT32_MAX)
    fail("GGUF can't hold {} = {}", what, value.dump());
  return static_cast<uint32_t>(value.get<int64_t>());
}

// Biases, which others' readers of a llama leave out without a word.
void refuse_biases(const json& config) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (config.value("model_type", "") != "qwen2" && config.value(key, false))
      fail(
          "a model of this family with biases ({}) can't be written as GGUF: programs that read it "
          "would leave "
          "them out",
          key);
  }
}

void add_ids(GgufMetadataWriter& settings, const json& config) {
  const auto add = [&](const char* theirs, const json& id) {
    if (id.is_number_integer() && id.get<int64_t>() >= 0)
      settings.add_whole(theirs, whole32(id, theirs));
  };
  for (const auto& [theirs, ours] : kGgufIds) add(theirs, config.value(ours, json()));
  const json eos = config.value("eos_token_id", json());
  if (!eos.is_array()) return add(kEos, eos);
  if (!eos.empty()) add(kEos, eos[0]);
  if (eos.size() > 1) add(kEot, eos[1]);
  if (eos.size() > 2) add(kEom, eos[2]);
  if (eos.size() > 3)
    fail("GGUF has places for three ids that end a text, and the model has {}", eos.size());
}

std::vector<float> add_rope(GgufMetadataWriter& settings, const json& config,
                            std::string_view prefix) {
  const json& rope = config.at("rope_parameters");
  const std::string type = rope.value("rope_type", "default");
  const auto key = [&](const char* name) { return fmt::format("{}.{}", prefix, name); };
  Llama3Rope llama3;
  llama3.theta = rope.value("rope_theta", 10000.0);
  settings.add_number(key(kTheta), static_cast<float>(llama3.theta));
  if (type == "default") return {};
  if (type == "linear") {
    settings.add_text(key(kScaling), type);
    settings.add_number(key(kScalingFactor), rope.at("factor").get<float>());
    return {};
  }
  if (type != "llama3") {
    fail(
        "a GGUF file has no {} scaling of positions that refract writes; write the model as a "
        "Hugging Face folder (without --format gguf)",
        type);
  }
  llama3.head_dim = config.at("head_dim").get<int64_t>();
  llama3.factor = rope.at("factor").get<double>();
  llama3.low = rope.at("low_freq_factor").get<double>();
  llama3.high = rope.at("high_freq_factor").get<double>();
  llama3.original = rope.at("original_max_position_embeddings").get<int64_t>();
  settings.add_whole(key(kOriginal), whole32(llama3.original, "the original length"));
  settings.add_number(kLlama3Factor, static_cast<float>(llama3.factor));
  if (llama3.low != 1) settings.add_number(kLow, static_cast<float>(llama3.low));
  if (llama3.high != 4) settings.add_number(kHigh, static_cast<float>(llama3.high));
  return llama3_divisors(llama3);
}

}  // namespace

json gguf_config(const GgufHeader& header, std::span<const std::byte> file) {
  return GgufConfigReader(header, file).read();
}

json read_gguf_config(const std::filesystem::path& path) {
  const MappedFile file(path);
  return gguf_config(read_gguf_header(file.bytes(), path), file.bytes());
}

std::string config_place(const std::filesystem::path& folder) {
  return is_gguf_file(folder) ? folder.string() : (folder / "config.json").string();
}

std::vector<float> add_gguf_config(GgufMetadataWriter& settings, const json& config) {
  const std::string family = config.at("model_type").get<std::string>();
  const GgufArchitecture* architecture = gguf_architecture_of(family);
  if (!architecture)
    fail("a model of the family {} can't be written as GGUF; those like Llama can", family);
  refuse_biases(config);
  const std::string_view prefix = architecture->name;
  const auto key = [&](const char* name) { return fmt::format("{}.{}", prefix, name); };
  for (const auto& [theirs, ours] : kWholes)
    settings.add_whole(key(theirs), whole32(config.at(ours), ours));
  settings.add_whole(key(kKvHeads),
                     whole32(config.at("num_key_value_heads"), "num_key_value_heads"));
  settings.add_number(key(kEpsilon), config.at("rms_norm_eps").get<float>());
  settings.add_whole(key("vocab_size"), whole32(config.at("vocab_size"), "vocab_size"));
  const int64_t heads = config.at("num_attention_heads").get<int64_t>();
  const json width =
      config.value("head_dim", json(config.at("hidden_size").get<int64_t>() / heads));
  for (const char* name : {kKeyWidth, kValueWidth, kRotaryWidth})
    settings.add_whole(key(name), whole32(width, "head_dim"));
  add_ids(settings, config);
  return add_rope(settings, config, prefix);
}

}  // namespace refract
