// Where documents come from, and what is refused.
#include "data/source.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace source_test {

using testing::expect_error;
using testing::TemporaryFolder;
using testing::write_text;

std::vector<std::string> documents(DocumentSource& source) {
  std::vector<std::string> all;
  while (const auto document = source.next()) all.emplace_back(document->text);
  return all;
}

using Strings = std::vector<std::string>;

TEST(Source, ReadsTextAndJsonLines) {
  const TemporaryFolder folder;
  write_text(folder / "a.txt", "one\ntwo\n");
  write_text(folder / "b.jsonl",
             "{\"text\": \"x \\u00e9\", \"id\": 1}\r\n\n{\"text\": \"\"}\n{\"text\":\"last\"}");
  const auto source = open_source({folder.str("b.jsonl"), folder.str("a.txt")});
  const Strings expected = {"x \xc3\xa9", "last", "one\ntwo\n"};
  EXPECT_EQ(documents(*source), expected);
  EXPECT_EQ(source->bytes_read(), source->total_bytes());
  EXPECT_FALSE(source->next());
  source->rewind();
  EXPECT_EQ(source->bytes_read(), 0);
  EXPECT_EQ(documents(*source), expected);
}

TEST(Source, DocumentsOutliveTheSource) {
  const TemporaryFolder folder;
  write_text(folder / "a.txt", "still here");
  auto source = open_source({folder.str("a.txt")});
  const auto document = source->next();
  source.reset();
  EXPECT_EQ(document->text, "still here");
}

TEST(Source, FoldersAreReadInOrderOfName) {
  const TemporaryFolder folder;
  write_text(folder / "c/z.txt", "3");
  write_text(folder / "c/a/y.txt", "1");
  write_text(folder / "c/b.TXT", "2");
  write_text(folder / "c/readme.md", "no");
  write_text(folder / "c/.git/x.txt", "no");
  write_text(folder / "c/.hidden.txt", "no");
  EXPECT_EQ(documents(*open_source({folder.str("c")})), (Strings{"1", "2", "3"}));
  EXPECT_EQ(documents(*open_source({folder.str("c/*.txt")})), (Strings{"3"}));
  EXPECT_EQ(documents(*open_source({folder.str("[c]/?")})), (Strings{"1"}));
}

TEST(Source, NamesTheBadLine) {
  const TemporaryFolder folder;
  const auto expect_refused = [&](const std::string& text, std::initializer_list<std::string> why) {
    write_text(folder / "b.jsonl", "{\"text\":\"good\"}\n\n" + text + "\n");
    const auto source = open_source({folder.str("b.jsonl")});
    EXPECT_TRUE(source->next());
    expect_error([&] { source->next(); }, {"b.jsonl:3:"});
    source->rewind();
    source->next();
    expect_error([&] { source->next(); }, why);
  };
  expect_refused("{\"text\": \"cut", {"ends inside its object"});
  expect_refused("[1]", {"is not an object"});
  expect_refused("{\"body\":\"x\",\"id\":1}", {"no field 'text'", "body, id", "data.text_field"});
  expect_refused("{\"text\":5}", {"'text' is a number, not a text"});
}

TEST(Source, FieldIsSettable) {
  const TemporaryFolder folder;
  write_text(folder / "b.jsonl", "{\"text\":\"no\",\"body\":\"yes\"}\n");
  const auto source = open_source({folder.str("b.jsonl")}, {"body", 1});
  EXPECT_EQ(documents(*source), Strings{"yes"});
  EXPECT_NE(source->identity(), open_source({folder.str("b.jsonl")})->identity());
}

TEST(Source, FieldsInsideObjectsAreNamedByTheirPath) {
  const TemporaryFolder folder;
  write_text(folder / "b.jsonl",
             "{\"a\":{\"b\":{\"c\":\"one\"}},\"text\":\"no\"}\n"
             "{\"a\":{\"b\":{\"c\":\"no\"}},\"a.b.c\":\"two\"}\n"
             "{\"a\":{\"b.c\":\"three\",\"b\":3}}\n"
             "{\"a\":{\"b\":{\"c\":\"no\"}},\"a\":{\"b\":{\"c\":\"four\"}}}\n");
  EXPECT_EQ(documents(*open_source({folder.str("b.jsonl")}, {"a.b.c", 1})),
            (Strings{"one", "two", "three", "four"}));
  write_text(folder / "c.jsonl", "{\"a\":{\"d\":1,\"b\":{}}}\n");
  expect_error(
      [&] {
        open_source({folder.str("c.jsonl")}, {"a.b.c", 1})->next();
      },
      {"no field 'a.b.c'", "a.d, b", "data.text_field"});
  expect_error(
      [&] {
        open_source({folder.str("c.jsonl")}, {"a.b", 1})->next();
      },
      {"'a.b' is an object, not a text"});
}

TEST(Source, ShortDocumentsCanBeLeftOut) {
  const TemporaryFolder folder;
  write_text(folder / "b.jsonl", "{\"text\":\"abc\"}\n{\"text\":\"\u00e9\u00e9\u00e9\u00e9\"}\n");
  const auto all = open_source({folder.str("b.jsonl")});
  const auto long_ones = open_source({folder.str("b.jsonl")}, {"text", 1, 4});
  EXPECT_EQ(documents(*all).size(), 2u);
  EXPECT_EQ(documents(*long_ones), Strings{"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"});
  EXPECT_NE(all->identity(), long_ones->identity());
}

TEST(Source, SeveralThousandFilesAreOneCorpus) {
  const TemporaryFolder folder;
  Strings expected;
  for (int i = 0; i < 4000; ++i) {
    const std::string name = fmt::format("c/{:02}/{:04}.txt", i / 100, i);
    write_text(folder / name, name);
    expected.push_back(name);
  }
  const auto source = open_source({folder.str("c")});
  EXPECT_EQ(documents(*source), expected);
  source->rewind();
  EXPECT_EQ(documents(*source).size(), 4000u);
}

TEST(Source, IdentityFollowsContentAndSettings) {
  const TemporaryFolder folder;
  write_text(folder / "a.txt", "one");
  const std::string first = open_source({folder.str("a.txt")})->identity();
  EXPECT_EQ(first, open_source({folder.str("a.txt")})->identity());
  write_text(folder / "a.txt", "longer");
  EXPECT_NE(first, open_source({folder.str("a.txt")})->identity());
  EXPECT_NE(open_source({"stories:1KB"}, {"text", 1})->identity(),
            open_source({"stories:1KB"}, {"text", 2})->identity());
}

TEST(Source, RefusesWhatItCannotRead) {
  const TemporaryFolder folder;
  write_text(folder / "t.csv", "a,b");
  write_text(folder / "e/readme.md", "x");
  write_text(folder / "a.txt", "x");
  write_text(folder / "s.bin", "abcd");
  const auto open = [](const Strings& paths) { return [paths] { open_source(paths); }; };
  expect_error(open({folder.str("none.txt")}), {"none.txt", "no file or folder"});
  expect_error(open({folder.str("*.none")}), {"no file matches", "*.none"});
  expect_error(open({folder.str("t.csv")}), {"t.csv", ".jsonl"});
  expect_error(open({folder.str("e")}), {"holds no .txt"});
  expect_error(open({folder.str("a.txt"), folder.str("s.bin")}), {"mixes", "a.txt", "s.bin"});
  expect_error(open({folder.str("s.bin")}), {"shards"});
  expect_error(open({}), {"data.path"});
  expect_error(open({"stories:many"}), {"'many'", "20MB"});
}

TEST(Source, StoriesEndBehindTheSize) {
  const auto source = open_source({"stories:20KB"}, {"text", 3});
  const Strings stories = documents(*source);
  size_t bytes = 0;
  for (const std::string& story : stories) bytes += story.size();
  EXPECT_GE(bytes, 20'000u);
  EXPECT_LT(bytes - stories.back().size(), 20'000u);
}

}  // namespace source_test
}  // namespace refract
