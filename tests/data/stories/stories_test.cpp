// The story generator: determined by its seed, well-formed, varied, consistent.
#include "data/stories/stories.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/random.h"

namespace refract {
namespace stories_test {

TEST(Stories, SameSeedSameTextInAnyOrder) {
  const StoryGenerator a(5), b(5), c(6);
  const std::string late = a.story(1'000'000'007);
  EXPECT_EQ(a.story(3), b.story(3));
  EXPECT_EQ(late, b.story(1'000'000'007));
  EXPECT_NE(a.story(3), a.story(4));
  EXPECT_NE(a.story(3), c.story(3));
}

// The text of a seed is part of what a run can be repeated from: other text needs kStoryVersion + 1
// and a new value here.
TEST(Stories, TextOfTheVersionStands) {
  uint64_t hash = 0;
  for (uint64_t i = 0; i < 200; ++i) hash = hash * 31 + stream_id(StoryGenerator(1).story(i));
  EXPECT_EQ(kStoryVersion, 1);
  EXPECT_EQ(hash, 3770928132276545852ull);
}

class ManyStories : public ::testing::Test {
 protected:
  static const std::vector<std::string>& stories() {
    static const std::vector<std::string> all = [] {
      std::vector<std::string> list;
      for (uint64_t i = 0; i < 4000; ++i) list.push_back(StoryGenerator(42).story(i));
      return list;
    }();
    return all;
  }
};

TEST_F(ManyStories, HaveTheLengthPromised) {
  for (const std::string& story : stories()) {
    std::istringstream in(story);
    int words = 0;
    for (std::string word; in >> word;) ++words;
    EXPECT_GE(words, 80) << story;
    EXPECT_LE(words, 250) << story;
  }
}

TEST_F(ManyStories, AreCleanText) {
  const std::regex bad(
      R"re([\[\]{}|~^]|  |\n\n| \n|\n |^ | $)re"
      R"re(|\b[Aa] [aeio]|\b[Aa]n [bcdfgjklmnpqrstvwxyz]|\b(a|an|the) (a|an|the)\b|[,.]{2})re");
  const std::regex small_start(R"re((^|[.]"? |[!?] |\n)"?[a-z])re");
  for (const std::string& story : stories()) {
    for (const char c : story) ASSERT_TRUE(c == '\n' || (c >= ' ' && c <= '~')) << story;
    std::smatch match;
    EXPECT_FALSE(std::regex_search(story, match, bad)) << "'" << match.str() << "' in:\n" << story;
    EXPECT_FALSE(std::regex_search(story, match, small_start)) << "'" << match.str() << "' in:\n"
                                                               << story;
    EXPECT_EQ(std::count(story.begin(), story.end(), '"') % 2, 0) << story;
    const char last = story.back();
    EXPECT_TRUE(last == '.' || last == '!' || last == '"') << story;
  }
}

TEST_F(ManyStories, AreNeverTheSame) {
  const std::set<std::string> different(stories().begin(), stories().end());
  EXPECT_EQ(different.size(), stories().size());
}

TEST_F(ManyStories, UseARichVocabulary) {
  std::map<std::string, int> words;
  for (const std::string& story : stories()) {
    std::string word;
    for (const char c : story + " ") {
      if (std::isalpha(static_cast<unsigned char>(c))) {
        word += static_cast<char>(std::tolower(c));
      } else if (!word.empty()) {
        ++words[word];
        word.clear();
      }
    }
  }
  EXPECT_GT(words.size(), 1500u);
}

}  // namespace stories_test
}  // namespace refract
