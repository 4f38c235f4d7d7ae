#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/gguf/gguf_header.h"
#include "formats/gguf/dequantize.h"
#include "formats/gguf/gguf_config.h"
#include "fuzz/fuzz_target.h"
#include "text/gguf/gguf_tokenizer.h"

// What is accepted lies within the file, tensors beside each other, and whole blocks of it can be
// read. Its configuration and its tokenizer may be refused by themselves.
FUZZ_TARGET(gguf) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  const refract::GgufHeader header = refract::read_gguf_header(bytes, "x.gguf");
  uint64_t all = 0;
  for (const refract::GgufTensor& tensor : header.tensors) {
    if (tensor.begin > tensor.end || tensor.end > text.size() || tensor.numel() < 1) std::abort();
    if (header.find(tensor.name) != &tensor) std::abort();
    all += tensor.end - tensor.begin;
    if (!refract::is_dequantized(*tensor.type)) continue;
    const auto block = static_cast<int64_t>(tensor.type->elements);
    std::vector<float> values(static_cast<size_t>(block));
    refract::dequantize(*tensor.type, bytes.data() + tensor.begin, block, values.data());
  }
  if (all > text.size()) std::abort();
  const auto read_tokenizer = [&] {
    if (refract::has_gguf_tokenizer(header.settings))
      refract::make_gguf_tokenizer(header.settings)->encode("One day, 42 c\xc3\xa4ts.");
  };
  try {
    refract::gguf_config(header, bytes).dump();
  } catch (const refract::Error&) {
    return read_tokenizer();  // no model of ours, but its tokenizer may be one
  }
  read_tokenizer();
}
