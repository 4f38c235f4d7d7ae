// What travels with a model beside its weights.
#include "formats/carried.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/files.h"
#include "formats/checkpoint.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/temporary_folder.h"
#include "text/simple_tokenizers.h"

namespace refract {
namespace carried_test {

using nlohmann::json;
using testing::error_of;
using testing::TemporaryFolder;

json config_of(const std::filesystem::path& folder) {
  return json::parse(read_file(folder / "config.json"));
}

// A saved model whose config.json has some more keys.
void save_source(const std::filesystem::path& folder, const json& more) {
  save_model(*testing::make_decoder(testing::small_llama()), folder);
  json config = config_of(folder);
  config.update(more);
  write_file_atomically(folder / "config.json", config.dump());
  std::filesystem::remove(folder / "generation_config.json");
}

TEST(Carried, SideFilesTravelByteForByteAndOthersDoNot) {
  const TemporaryFolder folder;
  save_source(folder / "a", json::object());
  const std::string odd("\0\xFFx\r\n", 5);
  write_file_atomically(folder / "a/NOTICE.odd", odd);
  write_file_atomically(folder / "a/LICENSE", "free");
  for (const char* other : {"pytorch_model.bin", ".gitattributes", "tokenizer.json", "config.toml",
                            "adapter_config.json", "model.onnx"})
    write_file_atomically(folder / "a" / other, "x");
  const Carried carried = read_carried(folder / "a");
  EXPECT_EQ(carried.files,
            (std::map<std::string, std::string>{{"NOTICE.odd", odd}, {"LICENSE", "free"}}));
  save_model(*testing::make_decoder(testing::small_llama()), folder / "b", {.carried = carried});
  EXPECT_EQ(read_file(folder / "b/NOTICE.odd"), odd);
  EXPECT_EQ(read_carried(folder / "b").files, carried.files);
}

TEST(Carried, IdsAndFurtherKeysStayAsTheyWere) {
  const TemporaryFolder folder;
  save_source(folder / "a", {{"bos_token_id", 3},
                             {"eos_token_id", {4, 5}},
                             {"pad_token_id", 6},
                             {"pretraining_tp", 1},
                             {"transformers_version", "4.0"},
                             {"rms_norm_eps", 0.5}});
  SaveOptions options;
  options.ids = {1, {1}};
  options.carried = read_carried(folder / "a");
  save_model(*testing::make_decoder(testing::small_llama()), folder / "b", options);
  const json config = config_of(folder / "b");
  EXPECT_EQ(config["bos_token_id"], 3);
  EXPECT_EQ(config["eos_token_id"], json({4, 5}));
  EXPECT_EQ(config["pad_token_id"], 6);
  EXPECT_EQ(config["pretraining_tp"], 1);
  EXPECT_NE(config["rms_norm_eps"], 0.5);  // the decoder's own
  EXPECT_FALSE(config.contains("transformers_version"));
  EXPECT_FALSE(std::filesystem::exists(folder / "b/generation_config.json"));
  // Another format keeps the ids, which belong to the tokenizer, and drops the rest.
  options.format = "refract";
  save_model(*testing::make_decoder(testing::small_llama()), folder / "c", options);
  EXPECT_EQ(config_of(folder / "c")["eos_token_id"], json({4, 5}));
  EXPECT_FALSE(config_of(folder / "c").contains("pretraining_tp"));
  EXPECT_EQ(read_model_config(folder / "c").hidden_size, testing::small_llama().hidden_size);
}

TEST(Carried, GenerationSettingsTravelAndTheirIdsComeFirst) {
  const TemporaryFolder folder;
  save_source(folder / "a", {{"eos_token_id", 4}});
  EXPECT_EQ(read_carried(folder / "a").eos(), (std::vector<int64_t>{4}));
  const std::string text = "{ \"eos_token_id\": [7, 8],\n \"temperature\": 0.6}";
  write_file_atomically(folder / "a/generation_config.json", text);
  const Carried carried = read_carried(folder / "a");
  EXPECT_EQ(carried.eos(), (std::vector<int64_t>{7, 8}));
  save_model(*testing::make_decoder(testing::small_llama()), folder / "b", {.carried = carried});
  EXPECT_EQ(read_file(folder / "b/generation_config.json"), text);
  const auto bytes = make_byte_tokenizer();
  EXPECT_EQ(stop_tokens(carried, *bytes), (std::vector<TokenId>{256, 7, 8}));
  EXPECT_EQ(stop_tokens({}, *bytes), (std::vector<TokenId>{256}));
}

TEST(Carried, AnotherTokenizerTakesTheIdsAway) {
  const TemporaryFolder folder;
  save_source(folder / "a", {{"bos_token_id", 3}, {"eos_token_id", 4}, {"tokenizer_class", "X"}});
  write_file_atomically(folder / "a/generation_config.json", R"({"eos_token_id": 4})");
  SaveOptions options;
  options.ids = ids_of(*make_byte_tokenizer());
  options.carried = read_carried(folder / "a");
  options.carried.drop_tokenizer();
  EXPECT_TRUE(options.carried.eos().empty());
  save_model(*testing::make_decoder(testing::small_llama()), folder / "b", options);
  EXPECT_EQ(config_of(folder / "b")["bos_token_id"], 256);
  EXPECT_EQ(config_of(folder / "b")["eos_token_id"], 256);
  EXPECT_FALSE(config_of(folder / "b").contains("tokenizer_class"));
}

TEST(Carried, IdsThatAreNoneAreNamed) {
  Carried carried;
  carried.config = R"({"eos_token_id": "</s>"})";
  EXPECT_NE(error_of([&] { carried.eos(); }).find("eos_token_id"), std::string::npos);
  carried.generation = "[";
  EXPECT_NE(error_of([&] { carried.eos(); }).find("generation_config.json"), std::string::npos);
}

}  // namespace carried_test
}  // namespace refract
