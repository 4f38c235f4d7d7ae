#include "analysis/merged.h"

#include <set>

#include "core/error.h"

namespace refract {

void copy_merged(Decoder& from, Decoder& to) {
  std::set<std::string> written;
  const auto write = [&](const std::string& name, const at::Tensor& value) {
    const Parameter* target = to.arena().find(name);
    if (!target) return;  // an inner parameter of a transformed layer
    to.arena().value(target).copy_(value);
    written.insert(name);
  };
  for (const Parameter& parameter : from.arena().parameters())
    write(parameter.name, from.arena().value(&parameter));
  for (const TransformedLayer& entry : from.transformed()) {
    const at::Tensor merged = entry.layer->merged();
    if (!merged.defined()) {
      fail("'{}' can't be compared as a product: the kind \"{}\" has no dense weight",
           entry.spec.name, entry.kind);
    }
    write(entry.spec.name + ".weight", merged);
  }
  for (const Parameter& parameter : to.arena().parameters()) {
    if (!written.contains(parameter.name))
      fail("'{}' has no counterpart in the transformed model", parameter.name);
  }
  to.arena().refresh_compute();
}

}  // namespace refract
