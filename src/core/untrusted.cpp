#include "core/untrusted.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/error.h"

namespace refract {
namespace {

using nlohmann::json;

// Bytes of the UTF-8 character that starts the text, 0 where none does.
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool c1_control = first == 0xc2 && byte(1) < 0xa0;
  return c1_control ? 0 : length;
}

std::string escape(unsigned char byte) {
  if (byte == '\n') return "\\n";
  if (byte == '\r') return "\\r";
  if (byte == '\t') return "\\t";
  return fmt::format("\\x{:02x}", byte);
}

// Builds the tree itself. The library's own builders either can't be told how deep they may go, or
// (with a callback) look through all entries of an object for each value in it.
class TreeBuilder final : public nlohmann::json_sax<json> {
 public:
  TreeBuilder(std::string_view where, JsonKeys keys) : where_(where), keys_(keys) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return scalar(value);
  }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }  // no text has any
  bool start_object(std::size_t /*size*/) override { return open(json::object()); }
  bool start_array(std::size_t /*size*/) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    json::object_t& object = open_.back()->get_ref<json::object_t&>();
    const auto [entry, fresh] = object.try_emplace(std::move(name));
    if (!fresh && keys_ == JsonKeys::kOnce)
      fail("{} is damaged: it holds the key '{}' twice", where_, shown(entry->first));
    slot_ = &entry->second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    error_at_ = position;
    return false;
  }

  json take() { return std::move(root_); }
  size_t error_at() const { return error_at_; }

 private:
  json* put(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    *slot_ = std::move(value);
    return slot_;
  }
  bool scalar(json value) {
    put(std::move(value));
    return true;
  }
  bool open(json value) {
    if (open_.size() == static_cast<size_t>(kMaxDepth)) {
      fail("{} nests objects and arrays deeper than {} levels, which no such file needs", where_,
           kMaxDepth);
    }
    open_.push_back(put(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view where_;
  JsonKeys keys_;
  json root_;
  // The containers that are not closed yet, from the root on. An array does not grow while one of
  // its elements is open, so the pointers stay good.
  std::vector<json*> open_;
  json* slot_ = nullptr;  // of the key read last
  size_t error_at_ = 0;
};

}  // namespace

std::string shown(std::string_view text, size_t limit) {
  std::string out;
  size_t at = 0;
  for (size_t characters = 0; at < text.size() && characters < limit; ++characters) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const size_t length = character_length(text.substr(at));
    if (length == 0 || byte < ' ' || byte == 0x7f) {
      out += escape(byte);
      ++at;
    } else {
      out += text.substr(at, length);
      at += length;
    }
  }
  if (at < text.size()) out += fmt::format("... ({} more bytes)", text.size() - at);
  return out;
}

std::string shown_json(const json& value) {
  return shown(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

json parse_json(std::string_view text, std::string_view where, JsonKeys keys) {
  TreeBuilder builder(where, keys);
  if (json::sax_parse(text.begin(), text.end(), &builder)) return builder.take();
  const size_t end = std::min(builder.error_at() > 0 ? builder.error_at() - 1 : 0, text.size());
  if (end == text.size()) fail("{} is not JSON: it ends too early, at byte {}", where, end);
  const auto line = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(end), '\n') + 1;
  const size_t before = text.substr(0, end).rfind('\n');
  const size_t column = before == std::string_view::npos ? end + 1 : end - before;
  fail("{} is not JSON from line {}, column {} on", where, line, column);
}

std::optional<json> try_parse_json(std::string_view text) {
  try {
    return parse_json(text, "the text");
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace refract
