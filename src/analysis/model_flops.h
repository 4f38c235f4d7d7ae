// Operations of a model as it is built, its transformed layers and guides included.
#pragma once
#include <cstdint>

#include "analysis/flops.h"

namespace refract {

class Decoder;

// The dimensions of a decoder at a sequence length, with what its transformed linear layers and
// their guides multiply.
DecoderShape shape_of(const Decoder& decoder, int64_t context);

}  // namespace refract
