#include "text/bpe/marked_spaces.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581

std::string with_marks(std::string_view text) {
  std::string marked;
  marked.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      marked += kMark;
    } else {
      marked += c;
    }
  }
  return marked;
}

std::string without_marks(std::string_view token) {
  std::string text;
  for (size_t i = 0; i < token.size();) {
    if (token.substr(i).starts_with(kMark)) {
      text += ' ';
      i += kMark.size();
    } else {
      text += token[i++];
    }
  }
  return text;
}

std::string type_in(const json& part, const char* what, const std::string& where) {
  const json type = part.is_object() ? part.value("type", json()) : json();
  if (!type.is_string()) fail("{}: the {} has no 'type'", where, what);
  return type.get<std::string>();
}

// Whether a Replace puts `content` for `pattern`.
bool replaces(const json& part, std::string_view pattern, std::string_view content) {
  return part.contains("pattern") && part["pattern"].is_object() &&
         part["pattern"].value("String", json()) == json(pattern) &&
         part.value("content", json()) == json(content);
}

[[noreturn]] void refuse(const json& part, const char* what, const char* known,
                         const std::string& where) {
  fail("{}: the {} {} is not supported in a BPE over characters ({})", where, what, shown(part),
       known);
}

}  // namespace

MarkedSpaces::MarkedSpaces(const json& file, const std::string& where) {
  const auto part = [&](const char* key) { return file.contains(key) ? file.at(key) : json(); };
  read_normalizer(part("normalizer"), where);
  read_pre_tokenizer(part("pre_tokenizer"), where);
  read_decoder(part("decoder"), where);
}

void MarkedSpaces::read_normalizer(const json& normalizer, const std::string& where) {
  if (normalizer.is_null()) return;
  const std::string type = type_in(normalizer, "normalizer", where);
  if (type == "Sequence") {
    for (const json& member : normalizer.at("normalizers")) read_normalizer(member, where);
  } else if (type == "Prepend" && normalizer.value("prepend", json()) == json(kMark)) {
    prepends_ = true;
  } else if (type == "Replace" && replaces(normalizer, " ", kMark)) {
    replaces_ = true;
  } else {
    refuse(normalizer, "normalizer", "Prepend of U+2581 and Replace of a space by it are", where);
  }
}

void MarkedSpaces::read_pre_tokenizer(const json& pre_tokenizer, const std::string& where) {
  if (pre_tokenizer.is_null()) return;
  if (type_in(pre_tokenizer, "pre-tokenizer", where) != "Metaspace" ||
      pre_tokenizer.value("replacement", json()) != json(kMark)) {
    refuse(pre_tokenizer, "pre-tokenizer", "Metaspace with U+2581 is", where);
  }
  marks_ = true;
  cuts_ = pre_tokenizer.value("split", true);
  const bool old_prefix = pre_tokenizer.value("add_prefix_space", true);  // of older versions
  const std::string scheme =
      pre_tokenizer.value("prepend_scheme", std::string(old_prefix ? "always" : "never"));
  if (scheme != "always" && scheme != "first" && scheme != "never")
    refuse(pre_tokenizer, "pre-tokenizer", "prepend_scheme is always, first or never", where);
  prefix_ = scheme == "always"  ? Prefix::kAlways
            : scheme == "first" ? Prefix::kFirst
                                : Prefix::kNever;
}

void MarkedSpaces::read_decoder(const json& decoder, const std::string& where) {
  if (decoder.is_null()) return;
  const std::string type = type_in(decoder, "decoder", where);
  if (type == "Sequence") {
    for (const json& member : decoder.at("decoders")) read_decoder(member, where);
  } else if (type == "Replace" && replaces(decoder, kMark, " ")) {
    unmarks_ = true;
  } else if (type == "ByteFallback") {
    bytes_ = true;
  } else if (type == "Strip" && decoder.value("content", json()) == json(" ") &&
             decoder.value("start", 0) <= 1 && decoder.value("stop", 0) == 0) {
    strips_ = decoder.value("start", 0) == 1;
  } else if (type != "Fuse") {
    refuse(decoder, "decoder",
           "Replace of U+2581 by a space, ByteFallback, Fuse and Strip of one space are", where);
  }
}

std::string MarkedSpaces::normalize(std::string_view stretch) const {
  if (stretch.empty()) return {};
  std::string text = replaces_ ? with_marks(stretch) : std::string(stretch);
  if (prepends_) text.insert(0, kMark);
  return text;
}

void MarkedSpaces::split(std::string_view stretch, bool first, WordSink sink) const {
  if (stretch.empty()) return;
  if (!marks_) return sink(stretch);
  std::string text = with_marks(stretch);
  const bool wanted = prefix_ == Prefix::kAlways || (prefix_ == Prefix::kFirst && first);
  if (wanted && !text.starts_with(kMark)) text.insert(0, kMark);
  if (!cuts_) return sink(text);
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(kMark, begin + 1), text.size());
    sink(std::string_view(text).substr(begin, end - begin));
    begin = end;
  }
}

std::string MarkedSpaces::bytes_of(const std::string& token) const {
  if (bytes_ && token.size() == 6 && token.starts_with("<0x") && token.back() == '>') {
    unsigned byte = 0;
    const auto [stop, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
    if (error == std::errc() && stop == token.data() + 5)
      return {static_cast<char>(static_cast<unsigned char>(byte))};
  }
  return unmarks_ ? without_marks(token) : token;
}

}  // namespace refract
