// Who and what a story is about, and the teller that puts it into words.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "data/stories/words.h"
#include "ops/common/philox.h"

namespace refract::stories {

// Random choices of one story. Integers only, so that every platform makes the same.
class Dice {
 public:
  Dice(PhiloxKey key, uint64_t story, uint64_t attempt)
      : key_(key), story_(story), next_(attempt << 32) {}
  uint32_t below(uint32_t n);  // n > 0
  bool chance(uint32_t percent) { return below(100) < percent; }

 private:
  PhiloxKey key_;
  uint64_t story_, next_;
  PhiloxBlock block_{};
  int left_ = 0;
};

// A person, animal, thing, place or word that a pattern names by a letter.
struct Entity {
  enum class Kind { kNone, kCharacter, kThing, kPlace, kWord } kind = Kind::kNone;
  std::string name;     // "Lily"; "kite"; "forest"; the word
  std::string sort;     // "little girl"; "small red"; "in"
  bool female = false;  // of a character
  const PlaceWord* place = nullptr;
  const AnimalWord* animal = nullptr;
  std::string_view tags;  // of a thing
};

// Tells a story sentence by sentence. Patterns are text with
//   [a|b|c]      one of several forms, which may hold more of the same
//   {~glad}      a word of a list
//   {A}          a character as the subject: the name, or he/she where that is clear
//   {A:him} {A:his} {A:self} {A:name} {A:intro} {A:sort} {A:boy}
//                in other roles; intro: "a little girl named Lily"; boy: "the girl"
//   {o} {o:a} {o:n} {o:full}   a thing: "the kite", "a small red kite", "kite", "small red kite"
//   {p} {p:at} {p:to} {p:spot} {p:sight}   a place: "the forest", "in the forest", "to the forest",
//                "under a fern", "tall trees"
//   {x}          a word
//   "^and ..."   a quotation that goes on in the middle of a sentence, without a capital letter
// Sentences get their capital letters, and "a" becomes "an" where it must.
class Teller {
 public:
  explicit Teller(Dice& dice) : dice_(dice) {}

  // New entities, unlike those there are.
  void person(char key);                             // a child
  void adult(char key);                              // "Mrs. Hill", a baker
  void animal(char key);                             // with a name
  void someone(char key);                            // a child, or an animal in a story of animals
  void thing(char key, std::string_view tags = "");  // with one of the tags
  void place(char key);
  void word(char key, std::string_view list);  // fixed for the whole story
  void set_word(char key, std::string text);
  void animals_only(bool yes) { animals_only_ = yes; }
  const Entity& at(char key) const { return entities_[static_cast<unsigned char>(key)]; }
  bool has_tag(char key, char tag) const {
    return at(key).tags.find(tag) != std::string_view::npos;
  }

  void say(std::string_view pattern);
  void one(std::initializer_list<std::string_view> patterns);
  void maybe(uint32_t percent, std::initializer_list<std::string_view> patterns);
  // Direct speech, with who speaks before or behind it. `words` without its last mark, which is one
  // of . ? !
  void speak(char who, std::string_view words, char mark = '.');
  void paragraph();
  bool chance(uint32_t percent) { return dice_.chance(percent); }
  uint32_t below(uint32_t n) { return dice_.below(n); }

  // "Once upon a time there was ..." for A, with a home and a trait.
  void introduce(char key);
  const std::string& text() const { return text_; }

 private:
  std::string_view pick(Words list) {
    return list[dice_.below(static_cast<uint32_t>(list.size()))];
  }
  Entity& fresh(char key);
  bool name_taken(std::string_view name) const;
  void expand(std::string_view pattern);
  void expand_field(std::string_view field);
  void expand_character(char key, std::string_view role);
  void expand_thing(const Entity& entity, std::string_view role);
  void expand_place(const Entity& entity, std::string_view role);
  bool rival_near(char key) const;  // another of the same gender was named just now
  bool mentioned(char key) const;
  void mention(char key);
  void put(std::string_view words);
  void end_unit();

  Dice& dice_;
  std::array<Entity, 128> entities_;
  std::string text_, unit_;
  std::vector<char> before_, now_;  // characters named in the last and in this unit
  char subject_ = 0;                // of the current sentence
  int pronouns_in_row_ = 0;
  bool animals_only_ = false;
};

// Tells one story, from its people and things to its end.
using Plot = void (*)(Teller&);

}  // namespace refract::stories
