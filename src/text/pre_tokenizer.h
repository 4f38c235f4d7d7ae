// Pre-tokenization: cuts a text into the words that BPE then works on, one at a time and without
// copies.
#pragma once
#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "text/regex.h"

namespace refract {

// What happens to the parts that a Split's expression matches; the names are those of
// tokenizer.json.
enum class SplitBehavior { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };

// GPT-2's expression, which a ByteLevel pre-tokenizer applies unless `use_regex` is false.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Llama 3's, numbers in groups of three; and Qwen 2's, where every digit stands apart. Both stand
// in a Split before a ByteLevel that has none.
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// A borrowed `void(std::string_view)`; no allocation, unlike std::function.
class WordSink {
 public:
  template <class F>
  requires(!std::same_as<std::remove_const_t<F>, WordSink>) explicit WordSink(F& f)
      : object_(&f), call_([](void* o, std::string_view w) { (*static_cast<F*>(o))(w); }) {}
  void operator()(std::string_view word) const { call_(object_, word); }

 private:
  void* object_;
  void (*call_)(void*, std::string_view);
};

class PreTokenizer {
 public:
  // Appends a step that puts a space before every piece that does not start with one.
  void add_prefix_space();
  // Appends a step that splits every piece.
  void add_split(Regex regex, SplitBehavior behavior, bool invert = false);

  // One thread's working memory.
  class Scratch {
   public:
    explicit Scratch(const PreTokenizer& pre_tokenizer);

   private:
    friend class PreTokenizer;
    std::vector<std::unique_ptr<Matcher>> matchers_;  // per step; null for a prefix step
    std::vector<std::string> prefixed_;               // per step
  };

  // Calls `sink` on each non-empty word in order. `text` must be well-formed UTF-8.
  void split(std::string_view text, Scratch& scratch, WordSink sink) const;

 private:
  struct Step {
    std::shared_ptr<const Regex> regex;  // null: the prefix step
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
  };
  void run_step(size_t index, std::string_view text, Scratch& scratch, WordSink sink) const;

  std::vector<Step> steps_;
};

}  // namespace refract
