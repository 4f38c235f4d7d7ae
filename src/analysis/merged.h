// A transformed model as the dense model it multiplies by.
#pragma once
#include "model/decoder.h"

namespace refract {

// Writes the merged dense weights of `from` and its other parameters into the dense decoder `to` of
// the same configuration. Fails, naming the layer, where a kind has no dense weight. Any devices.
void copy_merged(Decoder& from, Decoder& to);

}  // namespace refract
