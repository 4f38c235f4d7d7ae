#include <vector>

#include "data/tokens.h"
#include "fuzz/fuzz_target.h"

FUZZ_TARGET(shard) {
  static const refract::fuzz::Folder folder;
  const auto stream = refract::open_shards({folder.write("shard.bin", text)});
  stream->max_token();
  std::vector<int32_t> tokens(static_cast<size_t>(stream->size()));
  stream->read(0, tokens);
}
