#include "core/paths.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <string>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace paths_test {

// Sets variables of the environment for as long as it lives; nothing: not set.
class Variables {
 public:
  explicit Variables(const std::map<std::string, std::optional<std::string>>& values) {
    for (const auto& [name, value] : values) {
      const char* old = std::getenv(name.c_str());
      before_[name] = old ? std::optional<std::string>(old) : std::nullopt;
      set(name, value);
    }
  }
  ~Variables() {
    for (const auto& [name, value] : before_) set(name, value);
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;

 private:
  static void set(const std::string& name, const std::optional<std::string>& value) {
    if (value) {
      ::setenv(name.c_str(), value->c_str(), 1);
    } else {
      ::unsetenv(name.c_str());
    }
  }
  std::map<std::string, std::optional<std::string>> before_;
};

TEST(Paths, HomeAndVariablesAreExpanded) {
  const Variables variables({{"HOME", "/h"}, {"A_1", "x y"}, {"EMPTY", ""}, {"NONE", {}}});
  EXPECT_EQ(expand_path("~"), "/h");
  EXPECT_EQ(expand_path("~/a/~"), "/h/a/~");
  EXPECT_EQ(expand_path("a/~/b"), "a/~/b");
  EXPECT_EQ(expand_path("$A_1/${A_1}b"), "x y/x yb");
  EXPECT_EQ(expand_path("~/$A_1"), "/h/x y");
  EXPECT_EQ(expand_path("~root/a"), "/root/a");
  for (const char* plain : {"cost$5", "a$", "$", "${", "${A_1", "a$-b", "", "org/name"})
    EXPECT_EQ(expand_path(plain), plain);
  testing::expect_error([] { expand_path("x/$NONE/y"); },
                        {"x/$NONE/y", "variable NONE", "not set"});
  testing::expect_error([] { expand_path("${EMPTY}"); }, {"EMPTY"});
  testing::expect_error([] { expand_path("~no-such-user-here/a"); },
                        {"no user 'no-such-user-here'"});
}

TEST(Paths, AFileThatIsThereIsMeant) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "a$HOME", "x");
  EXPECT_EQ(expand_path(folder.str("a$HOME")), folder.str("a$HOME"));
}

TEST(Paths, TheHubsCacheFollowsItsVariables) {
  const std::map<std::string, std::optional<std::string>> none = {
      {"HOME", "/h"},       {"XDG_CACHE_HOME", {}},        {"HF_HOME", {}},
      {"HF_HUB_CACHE", {}}, {"HUGGINGFACE_HUB_CACHE", {}}, {"D", "/d"}};
  const auto cache_with = [&](const std::string& name, const std::string& value) {
    auto all = none;
    if (!name.empty()) all[name] = value;
    const Variables variables(all);
    return hub_cache().string();
  };
  EXPECT_EQ(cache_with("", ""), "/h/.cache/huggingface/hub");
  EXPECT_EQ(cache_with("XDG_CACHE_HOME", "/x"), "/x/huggingface/hub");
  EXPECT_EQ(cache_with("HF_HOME", "~/hf"), "/h/hf/hub");
  EXPECT_EQ(cache_with("HUGGINGFACE_HUB_CACHE", "$D/old"), "/d/old");
  EXPECT_EQ(cache_with("HF_HUB_CACHE", "${D}"), "/d");
  EXPECT_EQ(cache_with("HF_HUB_CACHE", "$UNSET_HERE/a"), "$UNSET_HERE/a");  // as Python leaves it
  EXPECT_EQ(cache_with("HF_HOME", ""), "/h/.cache/huggingface/hub");
}

TEST(Paths, AShellTakesAWordBack) {
  EXPECT_EQ(shell_word("runs/first-1.0"), "runs/first-1.0");
  EXPECT_EQ(shell_word("my run's"), "'my run'\\''s'");
  EXPECT_EQ(shell_word("~/a"), "'~/a'");
  EXPECT_EQ(shell_word(""), "''");
}

}  // namespace paths_test
}  // namespace refract
