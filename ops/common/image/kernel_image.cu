#include "ops/common/image/kernel_image.h"
#include "ops/common/image/query.h"

namespace refract {
namespace {

__global__ void nothing() {}

}  // namespace

bool has_kernel_image() {
  static ImageQuery query;
  return query.fits(reinterpret_cast<const void*>(nothing));
}

}  // namespace refract
