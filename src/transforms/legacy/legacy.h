// Rule files of the published experiments with optical layers and with bit flips (AICrossSim's
// NewComputeBench), read as they are.
//
// TOML: `use_lora`, a table [attention] (both attention matmuls of every layer), a table [fc] (all
// its linear layers), and with use_lora = true a table [lora] with r and lora_alpha (both 32) for
// the linear layers.
//
// YAML: `use_regex` and `layer_name_to_config`, an ordered map from a module's name (with use_regex
// an expression on the whole of it) to parameters, or to null: leave alone. Values may use anchors
// and merge keys; another map at the top may hold what the aliases name. What nothing matches takes
// the entry `default`, or is an error where there is none. Names are Hugging Face's or torchtitan's
// (layers.N.attention.wq, layers.N.feed_forward.w1).
// `...self_attn` stands for the two matmuls of that layer. The head (`lm_head`, `output`) is never
// transformed: its entry must be null or absent, and a wider expression passes it over.
//
// Bit flips: a TOML with `use_lora`, [fc] and [lora], and no [attention]; a YAML with
// `transform_flavor: fc`, whose entries decide for linear layers alone. Parameters are
// {x,w}_{p_exp,p_frac,zero_out_t}; what is null or left out does not happen. Their seeds
// ({x,w}_seed_{exp,frac}) are passed over, since every layer and operand has a stream of the run.
//
// Where a TOML leaves q_quantiles out, ranges are the minimum and maximum, as the method is
// described (docs/reproduce.md says what one version of the reference makes of such a file).
// Where an entry of a YAML file leaves q_quantiles out, the functions that read it there take
// (0.001, 0.999), but for the attentions of Hugging Face's names, which take none. Null is none.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace refract {

// The rules of such a file as the JSON of a recipe's [[transform]] array: the kind "optical" or
// "bit_flip" with the file's parameters, "lora" over it, merged into its weight, for use_lora,
// "none" for null. `modules`: the names of the model's linear layers and attentions, in its order
// (module_names()). Fails (usage) with file and entry for what can't be translated.
std::string legacy_rules(const std::filesystem::path& path,
                         const std::vector<std::string>& modules);

}  // namespace refract
