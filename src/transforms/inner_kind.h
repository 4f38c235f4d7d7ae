// The kind that a kind multiplies by inside its own layers: its parameter `over`.
#pragma once
#include <memory>
#include <string>

#include "transforms/kind.h"

namespace refract {

class InnerKind {
 public:
  // Adds the parameter `over`: a name, or a table with its parameters.
  void describe(Fields& fields, const std::string& help) { fields.add_raw("over", text_, help); }
  // Makes the kind, once for all layers. Called from Kind::check(), after the parameters were set.
  void check(const std::string& where) const;
  // Null where nothing was set: a dense matrix.
  const Kind* get() const { return kind_.get(); }
  // Kind::energy() of it; where nothing was set, digital arithmetic.
  Energy energy(const ProductShape& product, const EnergyConstants& constants) const;

 private:
  std::string text_;                    // JSON of a kind
  mutable std::unique_ptr<Kind> kind_;  // made by check(), which is const as Kind::check() is
};

// Multiplications of a layer per token: its own count, or a dense layer's of its shape.
int64_t multiplications_of(const LinearLayer& layer, int64_t in_features, int64_t out_features);

}  // namespace refract
