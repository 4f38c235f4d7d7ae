// Whether a SentencePiece model is one that the library can be given.
#pragma once
#include <string>
#include <string_view>

namespace refract {

// The library trusts what it loads: a damaged table of its normalizer makes it read outside of the
// table, a damaged byte piece makes it abort. So this reads the model (protocol buffers: ModelProto
// of sentencepiece_model.proto; the table is a double array as Darts-clone writes it) and fails,
// naming `where`, for one with a part that the library would not survive.
void check_sentencepiece(std::string_view model, const std::string& where);

}  // namespace refract
