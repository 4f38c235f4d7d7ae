#include "train/repair/train_only.h"

#include "core/error.h"
#include "text/regex.h"

namespace refract {
namespace {

Regex whole_name(const std::string& expression, const std::string& where) {
  try {
    return Regex("\\A(?:" + expression + ")\\z");
  } catch (const Error& error) {
    fail_usage("{}: train.only is not a regular expression: {}", where, error.what());
  }
}

}  // namespace

void train_only(Decoder& model, const std::string& expression, const std::string& where) {
  if (expression.empty()) return;
  const Regex regex = whole_name(expression, where);
  Matcher matcher(regex);
  bool any = false;
  for (Parameter& parameter : model.arena().parameters()) {
    parameter.trainable = matcher.contains(parameter.name);
    any = any || parameter.trainable;
  }
  for (const BufferStore::Buffer& buffer : model.buffers().all())
    any = any || matcher.contains(buffer.name);
  if (any) return;
  fail_usage(
      "{}: train.only = '{}' matches no parameter of the model and no range of a medium; a name is "
      "for example '{}'",
      where, expression, model.arena().parameters().front().name);
}

}  // namespace refract
