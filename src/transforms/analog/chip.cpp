#include "transforms/analog/chip.h"

namespace refract {
namespace {

const Chip*& current_chip() {
  static const Chip* chip = nullptr;
  return chip;
}

}  // namespace

const Chip* chip_in_scope() { return current_chip(); }

ChipScope::ChipScope(const Chip& chip) : chip_(chip), before_(current_chip()) {
  current_chip() = &chip_;
}

ChipScope::~ChipScope() { current_chip() = before_; }

}  // namespace refract
