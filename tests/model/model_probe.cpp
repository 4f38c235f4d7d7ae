// A test-only program that pytest drives: what the library computes and writes, for comparison with
// Hugging Face.
//   model_probe run FOLDER TOKENS OUT [dtype]
//       logits, loss and every gradient under the checkpoint's names
//   model_probe decode FOLDER TOKENS OUT COUNT
//       the likeliest COUNT tokens behind each row of TOKENS
//   model_probe save FOLDER OUT [dtype [max shard bytes [format]]]
//       load_weights, then save_model
//   model_probe copy FILE OUT
//       reads a safetensors file and writes it again
//   model_probe resolve SPEC
//       resolve_model_path
//   model_probe config FOLDER
//       config.json as read, in our own format
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "decode/generate.h"
#include "formats/checkpoint.h"
#include "formats/checkpoint_layout.h"
#include "formats/hf_config.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"
#include "model/dense.h"

namespace refract {
namespace {

at::ScalarType dtype_of(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  if (name == "float64") return at::kDouble;
  fail_usage("unknown dtype {}", name);
}

std::string format_of(const std::string& folder) {
  return model_type_of(read_config_json(folder), folder);
}

void run(const std::string& folder, const std::string& tokens_file, const std::string& out,
         const std::string& dtype) {
  Decoder decoder(read_model_config(folder), DenseFactory());
  decoder.allocate(at::kCPU, dtype_of(dtype), dtype == "float64" ? at::kDouble : at::kFloat);
  load_weights(decoder, folder);
  const at::Tensor tokens = SafetensorsFile(tokens_file).tensor("input_ids").clone();
  at::Tensor targets = at::full_like(tokens, -100);
  const int64_t length = tokens.size(1);
  targets.narrow(1, 0, length - 1).copy_(tokens.narrow(1, 1, length - 1));
  std::vector<TensorSource> results;
  {
    at::NoGradGuard no_grad;
    results.push_back(source_of("logits", decoder.logits(decoder.hidden({}, tokens))));
  }
  const Decoder::Loss total = decoder.loss({}, tokens, targets);
  const at::Tensor loss = total.sum.div(static_cast<double>(tokens.size(0) * (length - 1)));
  loss.backward();
  results.push_back(source_of("loss", loss.detach().reshape({1})));
  for (TensorSource& gradient : checkpoint_tensors(
           decoder, format_of(folder), decoder.arena().grads().scalar_type(),
           [&](const Parameter* parameter) { return decoder.arena().gradient(parameter); })) {
    gradient.name = "grad." + gradient.name;
    results.push_back(std::move(gradient));
  }
  write_safetensors(out, std::move(results));
}

void decode(const std::string& folder, const std::string& tokens_file, const std::string& out,
            int64_t count) {
  Decoder decoder(read_model_config(folder), DenseFactory());
  decoder.allocate(at::kCPU, at::kFloat);
  load_weights(decoder, folder);
  const at::Tensor tokens = SafetensorsFile(tokens_file).tensor("input_ids").clone();
  std::vector<std::vector<TokenId>> prompts;
  for (int64_t row = 0; row < tokens.size(0); ++row) {
    const int64_t* first = tokens.const_data_ptr<int64_t>() + row * tokens.size(1);
    prompts.emplace_back(first, first + tokens.size(1));
  }
  SamplingOptions greedy;
  greedy.max_tokens = count;
  greedy.temperature = 0;
  const auto made = generate_batch(decoder, prompts, greedy);
  at::Tensor result = at::empty({tokens.size(0), count}, at::kLong);
  int64_t* place = result.mutable_data_ptr<int64_t>();
  for (const std::vector<TokenId>& row : made) place = std::copy(row.begin(), row.end(), place);
  write_safetensors(out, {source_of("tokens", result)});
}

void save(const std::string& folder, const std::string& out, const SaveOptions& options) {
  Decoder decoder(read_model_config(folder), DenseFactory());
  decoder.allocate(at::kCPU, at::kFloat);
  load_weights(decoder, folder);
  save_model(decoder, out, options);
}

void copy(const std::string& file, const std::string& out) {
  const SafetensorsFile in(file);
  std::vector<TensorSource> tensors;
  for (const TensorInfo& info : in.tensors())
    tensors.push_back(source_of(info.name, in.tensor(info.name)));
  write_safetensors(out, std::move(tensors), in.metadata());
}

void dispatch(const std::vector<std::string>& args) {
  auto optional = [&](size_t i, const char* otherwise) {
    return args.size() > i ? args[i] : std::string(otherwise);
  };
  const std::string command = optional(0, "");
  if (command == "run" && args.size() >= 4) {
    run(args[1], args[2], args[3], optional(4, "float32"));
  } else if (command == "decode" && args.size() == 5) {
    decode(args[1], args[2], args[3], std::stoll(args[4]));
  } else if (command == "save" && args.size() >= 3) {
    save(args[1], args[2],
         {dtype_of(optional(3, "float32")), std::stoull(optional(4, "5000000000")),
          optional(5, "auto")});
  } else if (command == "copy" && args.size() == 3) {
    copy(args[1], args[2]);
  } else if (command == "resolve" && args.size() == 2) {
    fmt::print("{}\n", resolve_model_path(args[1]).string());
  } else if (command == "config" && args.size() == 2) {
    fmt::print("{}\n", config_to_json(read_model_config(args[1]), "refract", "float32").dump());
  } else {
    fail_usage(
        "model_probe run|decode|save|copy|resolve|config ...; see the head of model_probe.cpp");
  }
}

}  // namespace
}  // namespace refract

int main(int argc, char** argv) {
  try {
    refract::dispatch({argv + 1, argv + argc});
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
