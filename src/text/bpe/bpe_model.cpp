#include "text/bpe/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace refract {
namespace {

constexpr uint64_t kEmptyPair = UINT64_MAX;
constexpr size_t kShortWord = 48;  // symbols; above, a heap beats the quadratic scan

uint64_t pair_key(TokenId left, TokenId right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

uint64_t mix(uint64_t x) {
  x *= 0x9E3779B97F4A7C15ull;
  return x ^ (x >> 29);
}

uint64_t load(const char* data, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, data, size);
  return value;
}

// Of a word of 1 to 26 bytes.
uint64_t hash_word(std::string_view word) {
  const char* data = word.data();
  const size_t size = word.size();
  uint64_t hash = size * 0xD6E8FEB86659FD93ull;
  if (size >= 8) {
    for (size_t i = 0; i + 8 < size; i += 8) hash = mix(hash ^ load(data + i, 8));
    return mix(mix(hash ^ load(data + size - 8, 8)));
  }
  if (size >= 4) {
    return mix(mix(hash ^ (load(data, 4) | (load(data + size - 4, 4) << 32))));
  }
  const uint64_t bytes = static_cast<unsigned char>(data[0]) |
                         (static_cast<uint64_t>(static_cast<unsigned char>(data[size / 2])) << 8) |
                         (static_cast<uint64_t>(static_cast<unsigned char>(data[size - 1])) << 16);
  return mix(mix(hash ^ bytes));
}

struct HeapItem {
  uint32_t rank;
  uint32_t position;
  TokenId result;
  // The lowest rank first, then the leftmost.
  bool operator<(const HeapItem& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

}  // namespace

// A direct-mapped cache: a new word takes the place of the one that had its slot, so memory is
// bounded and a changing corpus can't fill it with words that never come back. One slot is one
// cache line.
class BpeModel::Scratch {
 public:
  static constexpr size_t kMaxBytes = 26, kMaxIds = 8, kSlots = size_t{1} << 15;
  struct alignas(64) Slot {
    uint32_t tag;
    uint8_t size;  // 0: free
    uint8_t count;
    char bytes[kMaxBytes];
    TokenId ids[kMaxIds];
  };
  static_assert(sizeof(Slot) == 64);

  std::vector<Slot> cache = std::vector<Slot>(kSlots);
  std::vector<TokenId> symbols;
  std::vector<const Entry*> candidates;
  std::vector<int32_t> next, previous;
  std::vector<HeapItem> heap;
};

void BpeModel::ScratchDeleter::operator()(Scratch* scratch) const { delete scratch; }

BpeModel::ScratchPtr BpeModel::make_scratch() { return ScratchPtr(new Scratch); }

BpeModel::BpeModel(std::unordered_map<std::string, TokenId> vocabulary,
                   const std::vector<Merge>& merges, Options options)
    : options_(options) {
  byte_ids_.fill(-1);
  for (const auto& [bytes, id] : vocabulary) {
    if (bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = id;
  }
  table_.assign(std::bit_ceil(2 * merges.size() + 2), {kEmptyPair, kNoRank, -1});
  mask_ = table_.size() - 1;
  for (size_t i = 0; i < merges.size(); ++i) add_merge(merges[i], static_cast<uint32_t>(i));
  fallback_ids_.fill(-1);
  if (options_.characters) {
    for (size_t byte = 0; byte < fallback_ids_.size(); ++byte) {
      const auto found = vocabulary.find(fmt::format("<0x{:02X}>", byte));
      if (found != vocabulary.end()) fallback_ids_[byte] = found->second;
    }
  }
  if (options_.ignore_merges || options_.characters) vocabulary_ = std::move(vocabulary);
}

void BpeModel::add_merge(const Merge& merge, uint32_t rank) {
  const uint64_t key = pair_key(merge.left, merge.right);
  uint64_t slot = mix(key) & mask_;
  while (table_[slot].pair != kEmptyPair && table_[slot].pair != key) slot = (slot + 1) & mask_;
  table_[slot] = {key, rank, merge.result};  // of a pair listed twice the last counts
}

const BpeModel::Entry* BpeModel::find(TokenId left, TokenId right) const {
  const uint64_t key = pair_key(left, right);
  for (uint64_t slot = mix(key) & mask_;; slot = (slot + 1) & mask_) {
    const Entry& entry = table_[slot];
    if (entry.pair == key) return &entry;
    if (entry.pair == kEmptyPair) return nullptr;
  }
}

void BpeModel::encode_word(std::string_view bytes, Scratch& scratch,
                           std::vector<TokenId>& out) const {
  if (bytes.empty()) return;
  if (bytes.size() > Scratch::kMaxBytes) return encode_uncached(bytes, scratch, out);
  const uint64_t hash = hash_word(bytes);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  Scratch::Slot& slot = scratch.cache[hash & (Scratch::kSlots - 1)];
  if (slot.tag == tag && slot.size == bytes.size() &&
      std::memcmp(slot.bytes, bytes.data(), bytes.size()) == 0) {
    out.insert(out.end(), slot.ids, slot.ids + slot.count);
    return;
  }
  const size_t before = out.size();
  encode_uncached(bytes, scratch, out);
  const size_t count = out.size() - before;
  if (count > Scratch::kMaxIds) return;
  slot.tag = tag;
  slot.size = static_cast<uint8_t>(bytes.size());
  slot.count = static_cast<uint8_t>(count);
  std::memcpy(slot.bytes, bytes.data(), bytes.size());
  std::copy(out.begin() + static_cast<std::ptrdiff_t>(before), out.end(), slot.ids);
}

void BpeModel::encode_uncached(std::string_view bytes, Scratch& scratch,
                               std::vector<TokenId>& out) const {
  if (options_.ignore_merges) {
    if (const auto found = vocabulary_.find(std::string(bytes)); found != vocabulary_.end()) {
      out.push_back(found->second);
      return;
    }
  }
  if (options_.characters) {
    character_symbols(bytes, scratch.symbols);
  } else {
    base_symbols(bytes, scratch.symbols);
  }
  if (scratch.symbols.size() <= kShortWord) {
    merge_short(scratch);
  } else {
    merge_long(scratch);
  }
  out.insert(out.end(), scratch.symbols.begin(), scratch.symbols.end());
}

void BpeModel::base_symbols(std::string_view bytes, std::vector<TokenId>& symbols) const {
  symbols.clear();
  bool after_unknown = false;
  for (const char c : bytes) {
    const TokenId id = byte_ids_[static_cast<unsigned char>(c)];
    if (id >= 0) {
      symbols.push_back(id);
    } else if (options_.unknown && !(options_.fuse_unknown && after_unknown)) {
      symbols.push_back(*options_.unknown);
    }
    after_unknown = id < 0;
  }
}

TokenId BpeModel::id_of(std::string_view character) const {
  if (character.size() == 1) return byte_ids_[static_cast<unsigned char>(character[0])];
  const auto found = vocabulary_.find(std::string(character));
  return found == vocabulary_.end() ? -1 : found->second;
}

void BpeModel::character_symbols(std::string_view text, std::vector<TokenId>& symbols) const {
  symbols.clear();
  bool after_unknown = false;
  const auto fallback = [this](char c) { return fallback_ids_[static_cast<unsigned char>(c)]; };
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    end = begin + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    const std::string_view character = text.substr(begin, end - begin);
    const TokenId id = id_of(character);
    const bool bytes =
        id < 0 && std::ranges::all_of(character, [&](char c) { return fallback(c) >= 0; });
    if (id >= 0) {
      symbols.push_back(id);
    } else if (bytes) {
      for (const char c : character) symbols.push_back(fallback(c));
    } else if (options_.unknown && !(options_.fuse_unknown && after_unknown)) {
      symbols.push_back(*options_.unknown);
    }
    after_unknown = id < 0 && !bytes;
  }
}

// Merges the lowest rank, leftmost first, by scanning all pairs each time.
void BpeModel::merge_short(Scratch& scratch) const {
  std::vector<TokenId>& symbols = scratch.symbols;
  std::array<const Entry*, kShortWord> pairs;  // pairs[i]: the merge of symbols i and i + 1
  size_t size = symbols.size();
  if (size < 2) return;
  for (size_t i = 0; i + 1 < size; ++i) pairs[i] = find(symbols[i], symbols[i + 1]);
  for (;;) {
    uint32_t best_rank = kNoRank;
    size_t best = 0;
    for (size_t i = 0; i + 1 < size; ++i) {
      if (pairs[i] && pairs[i]->rank < best_rank) {
        best_rank = pairs[i]->rank;
        best = i;
      }
    }
    if (best_rank == kNoRank) break;
    symbols[best] = pairs[best]->result;
    std::copy(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              symbols.begin() + static_cast<std::ptrdiff_t>(size),
              symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    for (size_t i = best + 1; i + 2 < size; ++i) pairs[i] = pairs[i + 1];
    --size;
    if (best > 0) pairs[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best + 1 < size) pairs[best] = find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(size);
}

// The same with a heap over a linked list: O(n log n).
void BpeModel::merge_long(Scratch& scratch) const {
  std::vector<TokenId>& symbols = scratch.symbols;
  std::vector<int32_t>&next = scratch.next, &previous = scratch.previous;
  std::vector<HeapItem>& heap = scratch.heap;
  const auto size = static_cast<int32_t>(symbols.size());
  next.resize(symbols.size());
  previous.resize(symbols.size());
  heap.clear();
  const auto push = [&](int32_t left, int32_t right) {
    if (left < 0 || right >= size) return;
    const Entry* entry =
        find(symbols[static_cast<size_t>(left)], symbols[static_cast<size_t>(right)]);
    if (!entry) return;
    heap.push_back({entry->rank, static_cast<uint32_t>(left), entry->result});
    std::push_heap(heap.begin(), heap.end());
  };
  for (int32_t i = 0; i < size; ++i) {
    next[static_cast<size_t>(i)] = i + 1;
    previous[static_cast<size_t>(i)] = i - 1;
    push(i, i + 1);
  }
  constexpr TokenId kGone = -1;
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const HeapItem item = heap.back();
    heap.pop_back();
    const size_t left = item.position;
    if (symbols[left] == kGone || next[left] >= size) continue;
    const auto right = static_cast<size_t>(next[left]);
    // An entry of the heap outlives its pair when a neighbour was merged.
    const Entry* entry = find(symbols[left], symbols[right]);
    if (!entry || entry->result != item.result) continue;
    symbols[left] = item.result;
    symbols[right] = kGone;
    next[left] = next[right];
    if (next[left] < size) previous[static_cast<size_t>(next[left])] = static_cast<int32_t>(left);
    push(previous[left], static_cast<int32_t>(left));
    push(static_cast<int32_t>(left), next[left]);
  }
  std::erase(symbols, kGone);
}

}  // namespace refract
