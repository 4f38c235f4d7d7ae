#include "ops/collectives/collectives.h"

#include <utility>

namespace refract {
namespace {

EngineFactory& registered() {
  static EngineFactory factory;
  return factory;
}

}  // namespace

const EngineFactory& nccl_factory() { return registered(); }
void register_nccl(EngineFactory factory) { registered() = std::move(factory); }

}  // namespace refract
