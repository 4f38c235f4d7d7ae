#include "runs/same_model.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/config.h"

namespace refract {
namespace {

std::string differ(const std::string& what, const std::string& a, const std::string& b) {
  return fmt::format("{} is {} in the first and {} in the second", what, a, b);
}

std::string rules_text(const LoadedModel& model) {
  return model.config.transform.empty() ? "[]" : model.config.transform;
}

}  // namespace

std::string config_difference(const ModelConfig& a, const ModelConfig& b) {
  ModelConfig first = a, second = b;  // fields can be written through
  Fields of_a, of_b;
  describe(of_a, first);
  describe(of_b, second);
  for (size_t i = 0; i < of_a.all().size(); ++i) {
    const Field &x = of_a.all()[i], &y = of_b.all()[i];
    if (x.decides == Decides::kFunction && x.get() != y.get())
      return differ(x.key, x.get().dump(), y.get().dump());
  }
  return "";
}

std::string vocabulary_difference(const Tokenizer& a, const Tokenizer& b) {
  if (a.vocab_size() != b.vocab_size()) {
    return differ("the tokenizer", a.description(), b.description());
  }
  for (TokenId id = 0; id < a.vocab_size(); ++id) {
    const std::string x = a.decode({&id, 1}), y = b.decode({&id, 1});
    if (x != y) {
      return differ(
          fmt::format("token {}", id),
          nlohmann::json(x).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace),
          nlohmann::json(y).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
    }
  }
  return "";
}

std::string first_difference(const LoadedModel& a, const LoadedModel& b) {
  if (std::string found = config_difference(a.config.model, b.config.model); !found.empty())
    return found;
  if (rules_text(a) != rules_text(b)) return differ("[[transform]]", rules_text(a), rules_text(b));
  if (a.tokenizer && b.tokenizer) {
    if (std::string found = vocabulary_difference(*a.tokenizer, *b.tokenizer); !found.empty())
      return found;
  }
  if (a.model->arena().layout() != b.model->arena().layout())
    return "their parameters lie in different places";
  return "";
}

}  // namespace refract
