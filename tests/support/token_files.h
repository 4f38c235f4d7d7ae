// Token shards written by hand, right and wrong ones.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "support/temporary_folder.h"

namespace refract::testing {

template <class T>
void write_values(const std::filesystem::path& path, const std::vector<T>& values) {
  write_text(path,
             std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
}

// An llm.c shard; `count` in its header where it is to lie.
template <class T>
void write_llmc(const std::filesystem::path& path, int32_t magic, int32_t version,
                const std::vector<T>& tokens, int32_t count = INT32_MIN) {
  std::vector<int32_t> header(256);
  header[0] = magic;
  header[1] = version;
  header[2] = count == INT32_MIN ? static_cast<int32_t>(tokens.size()) : count;
  std::string bytes(reinterpret_cast<const char*>(header.data()), 1024);
  bytes.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(T));
  write_text(path, bytes);
}

}  // namespace refract::testing
