#include "text/pre_tokenizer.h"

#include <utility>

namespace refract {
namespace {

// Turns the alternation of matched and unmatched parts into pieces, one part behind the input. The
// merging rules, odd cases included, are those of `tokenizers` (NormalizedString::split).
template <class Emit>
class PieceBuilder {
 public:
  PieceBuilder(std::string_view text, SplitBehavior behavior, Emit emit)
      : text_(text), behavior_(behavior), emit_(emit) {}

  void part(size_t begin, size_t end, bool is_match) {
    switch (behavior_) {
      case SplitBehavior::kIsolated:
        piece(begin, end);
        break;
      case SplitBehavior::kRemoved:
        if (!is_match) piece(begin, end);
        break;
      case SplitBehavior::kContiguous:
        extend_or_start(begin, end, is_match == previous_match_);
        break;
      case SplitBehavior::kMergedWithPrevious:
        extend_or_start(begin, end, is_match && !previous_match_);
        break;
      case SplitBehavior::kMergedWithNext:
        // A match joins what follows unless that is a match too.
        extend_or_start(begin, end, previous_match_ && !is_match);
        break;
    }
    previous_match_ = is_match;
  }

  void finish() {
    if (pending_) piece(begin_, end_);
  }

 private:
  void extend_or_start(size_t begin, size_t end, bool extend) {
    if (extend && pending_) {
      end_ = end;
      return;
    }
    finish();
    pending_ = true;
    begin_ = begin;
    end_ = end;
  }

  void piece(size_t begin, size_t end) {
    if (end > begin) emit_(text_.substr(begin, end - begin));
  }

  std::string_view text_;
  SplitBehavior behavior_;
  Emit emit_;
  bool previous_match_ = false, pending_ = false;
  size_t begin_ = 0, end_ = 0;
};

template <class Emit>
void split_pieces(std::string_view text, Matcher& matcher, SplitBehavior behavior, bool invert,
                  Emit emit) {
  PieceBuilder<Emit> builder(text, behavior, emit);
  size_t previous = 0;
  Match match;
  matcher.reset(text);
  while (matcher.next(match)) {
    if (match.begin != previous) builder.part(previous, match.begin, invert);
    builder.part(match.begin, match.end, !invert);
    previous = match.end;
  }
  if (previous != text.size()) builder.part(previous, text.size(), invert);
  builder.finish();
}

}  // namespace

void PreTokenizer::add_prefix_space() { steps_.emplace_back(); }

void PreTokenizer::add_split(Regex regex, SplitBehavior behavior, bool invert) {
  steps_.push_back({std::make_shared<const Regex>(std::move(regex)), behavior, invert});
}

PreTokenizer::Scratch::Scratch(const PreTokenizer& pre_tokenizer)
    : prefixed_(pre_tokenizer.steps_.size()) {
  for (const Step& step : pre_tokenizer.steps_) {
    matchers_.push_back(step.regex ? std::make_unique<Matcher>(*step.regex) : nullptr);
  }
}

void PreTokenizer::split(std::string_view text, Scratch& scratch, WordSink sink) const {
  if (!text.empty()) run_step(0, text, scratch, sink);
}

void PreTokenizer::run_step(size_t index, std::string_view text, Scratch& scratch,
                            WordSink sink) const {
  if (index == steps_.size()) return sink(text);
  const Step& step = steps_[index];
  if (!step.regex) {
    if (text.front() == ' ') return run_step(index + 1, text, scratch, sink);
    std::string& prefixed = scratch.prefixed_[index];
    prefixed.assign(1, ' ').append(text);
    return run_step(index + 1, prefixed, scratch, sink);
  }
  Matcher& matcher = *scratch.matchers_[index];
  if (index + 1 == steps_.size()) {
    split_pieces(text, matcher, step.behavior, step.invert, sink);
  } else {
    split_pieces(text, matcher, step.behavior, step.invert,
                 [&](std::string_view piece) { run_step(index + 1, piece, scratch, sink); });
  }
}

}  // namespace refract
