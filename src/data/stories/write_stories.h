// Files of generated stories.
#pragma once
#include <cstdint>
#include <string>

namespace refract {

// Writes the stories 0, 1, ... of the seed until they hold at least `bytes` of text: to a file that
// a corpus would take for .jsonl (data/source_paths.h) as lines {"text": ...}, to any other file,
// or to standard output where `path` is empty, as plain text with an empty line after each. Fails
// (usage) for the name of a compressed file.
void write_stories(const std::string& path, uint64_t seed, int64_t bytes);

}  // namespace refract
