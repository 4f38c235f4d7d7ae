// Which tensors a checkpoint file of each format holds, and how their names translate to ours.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "formats/safetensors_write.h"
#include "model/decoder.h"

namespace refract {

// What a tensor of a checkpoint is made from: parameters by our names, stacked on dimension 0, then
// transposed where the layout stores [in, out] (GPT-2's Conv1D).
struct StoredTensor {
  std::string name;                // in the file
  std::vector<std::string> parts;  // ours
  bool transposed = false;
  bool by_heads = false;  // the parts lie beside each other in every head: join_heads()
};

// The tensors of a checkpoint in `format`, in its order: a family's model_type ("gpt2") needs a
// decoder for which why_not returns nothing; "refract" holds every parameter under its own name.
std::vector<StoredTensor> checkpoint_layout(const Decoder& decoder, const std::string& format,
                                            bool merge = false);

// Why Hugging Face's `format` can't hold this decoder: a setting it has no word for, or a parameter
// of a layer that is not standard. Empty if it can. With `merge` transformed layers count as their
// merged dense weights.
std::string why_not(const Decoder& decoder, const std::string& format, bool merge = false);

// The tensors of a checkpoint with what `read` returns for each parameter (its value, its
// gradient).
std::vector<TensorSource> checkpoint_tensors(
    const Decoder& decoder, const std::string& format, at::ScalarType dtype,
    const std::function<at::Tensor(const Parameter*)>& read, bool merge = false);

// Whether a parameter is of what a kind makes of an attention's products,
// "model.layers.3.self_attn.<name>": no folder of a dense model has it, nor a merged one.
bool is_of_attention(const Decoder& decoder, const std::string& parameter);

// One of our parameters as a part of a stored tensor: rows [part / parts, (part + 1) / parts) after
// transposing.
struct StoredName {
  std::string ours;
  bool transposed = false;
  int64_t part = 0, parts = 1;
  bool by_heads = false;  // the part of every head: part_of_heads()
};

// The reverse of checkpoint_layout(): our parameters in the stored tensor of a family's or a
// "refract" file. None: the tensor means nothing to us and is ignored. A name that is
// not known comes back unchanged.
std::vector<StoredName> our_names(const std::string& format, const std::string& stored);

}  // namespace refract
