#include "data/stories/teller.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace refract::stories {
namespace {

bool is_sentence_end(char c) { return c == '.' || c == '!' || c == '?'; }

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }

bool takes_an(std::string_view rest) {
  if (rest.empty() || std::string_view("aeiou").find(rest[0]) == std::string_view::npos)
    return false;
  return !rest.starts_with("uni") && !rest.starts_with("use") && !rest.starts_with("one");
}

// Capital letters at the starts of sentences and quotations, and "an" before a vowel.
std::string polish(std::string_view unit) {
  std::string out;
  out.reserve(unit.size() + 8);
  bool capital = true;
  for (size_t i = 0; i < unit.size(); ++i) {
    const char c = unit[i];
    if (c == '^') {  // this quotation goes on in the middle of a sentence
      capital = false;
      continue;
    }
    if (c == '"' && (i == 0 || unit[i - 1] == ' ')) {
      capital = true;  // opens a quotation
      out += c;
      continue;
    }
    const bool word_start = i == 0 || unit[i - 1] == ' ' || unit[i - 1] == '"';
    const bool article = word_start && (c == 'a' || c == 'A') && i + 1 < unit.size() &&
                         unit[i + 1] == ' ' && takes_an(unit.substr(i + 2));
    out += capital ? upper(c) : c;
    if (article) out += 'n';
    if (c != ' ' && c != '"') capital = false;
    const bool after_end = i > 0 && (is_sentence_end(unit[i - 1]) ||
                                     (unit[i - 1] == '"' && i > 1 && unit[i - 2] == '.'));
    // "Mrs. Hill" begins with a capital anyway.
    if (c == ' ' && after_end) capital = true;
  }
  return out;
}

// The parts of "a|b|c" outside of inner brackets; `text` stands behind the opening one. Returns the
// length up to and with the closing one.
size_t split_choices(std::string_view text, std::vector<std::string_view>& parts) {
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '[') ++depth;
    const bool closes = text[i] == ']' && depth == 0;
    if (text[i] == ']') --depth;
    if (closes || (text[i] == '|' && depth == 0)) {
      parts.push_back(text.substr(begin, i - begin));
      begin = i + 1;
    }
    if (closes) return i + 1;
  }
  throw std::logic_error("a story pattern misses a ']': " + std::string(text));
}

}  // namespace

uint32_t Dice::below(uint32_t n) {
  if (left_ == 0) {
    block_ = philox(key_, story_, next_++);
    left_ = 4;
  }
  const uint64_t word = block_.word[--left_];
  return static_cast<uint32_t>((word * n) >> 32);
}

Entity& Teller::fresh(char key) {
  Entity& entity = entities_[static_cast<unsigned char>(key)];
  entity = Entity{};
  return entity;
}

bool Teller::name_taken(std::string_view name) const {
  return std::any_of(entities_.begin(), entities_.end(),
                     [&](const Entity& entity) { return entity.name == name; });
}

void Teller::person(char key) {
  const bool female = chance(50);
  std::string_view name;
  do {
    name = pick(female ? girl_names() : boy_names());
  } while (name_taken(name));
  Entity& entity = fresh(key);
  entity.kind = Entity::Kind::kCharacter;
  entity.female = female;
  entity.name = name;
  entity.sort = female ? "girl" : "boy";
}

void Teller::adult(char key) {
  const bool female = chance(50);
  std::string name;
  do {
    name = (female ? "Mrs. " : "Mr. ") + std::string(pick(family_names()));
  } while (name_taken(name));
  Entity& entity = fresh(key);
  entity.kind = Entity::Kind::kCharacter;
  entity.female = female;
  entity.name = name;
  entity.sort = pick(words("job"));
  if (entity.sort == "fisherman" || entity.sort == "postman")
    entity.sort = female ? "doctor" : entity.sort;
}

void Teller::animal(char key) {
  std::string_view name;
  do {
    name = pick(pet_names());
  } while (name_taken(name));
  const AnimalWord* word = nullptr;
  const auto all = animal_words();
  do {
    word = &all[dice_.below(static_cast<uint32_t>(all.size()))];
  } while (std::any_of(entities_.begin(), entities_.end(),
                       [&](const Entity& entity) { return entity.animal == word; }));
  Entity& entity = fresh(key);
  entity.kind = Entity::Kind::kCharacter;
  entity.female = word->noun == "hen" || chance(50);
  entity.name = name;
  entity.sort = word->noun;
  entity.animal = word;
}

void Teller::someone(char key) { animals_only_ ? animal(key) : person(key); }

void Teller::thing(char key, std::string_view tags) {
  const auto all = thing_words();
  const ThingWord* word = nullptr;
  do {
    word = &all[dice_.below(static_cast<uint32_t>(all.size()))];
  } while ((!tags.empty() && word->tags.find_first_of(tags) == std::string_view::npos) ||
           name_taken(word->noun));
  Entity& entity = fresh(key);
  entity.kind = Entity::Kind::kThing;
  entity.name = word->noun;
  entity.tags = word->tags;
  const uint32_t form = dice_.below(10);
  if (form < 7) entity.sort = pick(words("adjective"));
  if (form >= 5) entity.sort += (form < 7 ? " " : "") + std::string(pick(words("color")));
}

void Teller::place(char key) {
  const auto all = place_words();
  const PlaceWord* word = nullptr;
  do {
    word = &all[dice_.below(static_cast<uint32_t>(all.size()))];
  } while (name_taken(word->noun));
  Entity& entity = fresh(key);
  entity.kind = Entity::Kind::kPlace;
  entity.name = word->noun;
  entity.sort = word->at;
  entity.place = word;
}

void Teller::word(char key, std::string_view list) {
  std::string_view text;
  do {
    text = pick(words(list));
  } while (name_taken(text));
  set_word(key, std::string(text));
}

void Teller::set_word(char key, std::string text) {
  Entity& entity = fresh(key);
  entity.kind = Entity::Kind::kWord;
  entity.name = std::move(text);
}

bool Teller::mentioned(char key) const {
  return std::find(now_.begin(), now_.end(), key) != now_.end() ||
         std::find(before_.begin(), before_.end(), key) != before_.end();
}

bool Teller::rival_near(char key) const {
  const auto rival = [&](char other) { return other != key && at(other).female == at(key).female; };
  return std::any_of(now_.begin(), now_.end(), rival) ||
         std::any_of(before_.begin(), before_.end(), rival);
}

void Teller::mention(char key) {
  if (subject_ == 0) subject_ = key;
  if (std::find(now_.begin(), now_.end(), key) == now_.end()) now_.push_back(key);
}

void Teller::expand_character(char key, std::string_view role) {
  const Entity& who = at(key);
  const bool clear = mentioned(key) && !rival_near(key);
  const bool own =
      subject_ == key;  // a pronoun further on in the sentence goes back to its subject
  if (role.empty()) {
    const bool pronoun = clear && pronouns_in_row_ < 3 && dice_.chance(85);
    pronouns_in_row_ = pronoun ? pronouns_in_row_ + 1 : 0;
    unit_ += pronoun ? (who.female ? "she" : "he") : who.name;
  } else if (role == "him") {
    unit_ += clear ? (who.female ? "her" : "him") : who.name;
  } else if (role == "his") {
    unit_ += clear || own ? (who.female ? "her" : "his") : who.name + "'s";
  } else if (role == "he") {
    unit_ += clear || own ? (who.female ? "she" : "he") : who.name;
  } else if (role == "self") {
    unit_ += who.female ? "herself" : "himself";
  } else if (role == "intro") {
    unit_ += fmt::format("a {} {} {}", pick(words("small")), who.sort,
                         dice_.chance(75) ? "named" : "called");
    unit_ += " " + who.name;
  } else if (role == "sort") {
    unit_ += who.sort;
    return;
  } else if (role == "boy") {
    unit_ += "the " + who.sort;
  } else if (role == "food" && who.animal) {
    unit_ += who.animal->eats;
    return;
  } else if (role == "home" && who.animal) {
    unit_ += who.animal->home;
    return;
  } else if (role == "tracks" && who.animal) {
    unit_ += who.animal->tracks;
    return;
  } else {
    unit_ += who.name;
    if (role != "name") throw std::logic_error("a story pattern has no role " + std::string(role));
    pronouns_in_row_ = 0;
  }
  mention(key);
}

void Teller::expand_thing(const Entity& entity, std::string_view role) {
  const std::string full = entity.sort + " " + entity.name;
  if (role == "a") {
    unit_ += "a " + full;
  } else if (role == "full") {
    unit_ += full;
  } else if (role == "n") {
    unit_ += entity.name;
  } else {
    unit_ += "the " + (dice_.chance(20) ? full : entity.name);
  }
}

void Teller::expand_place(const Entity& entity, std::string_view role) {
  if (role == "at") {
    unit_ += entity.sort + " the " + entity.name;
  } else if (role == "to") {
    unit_ += "to the " + entity.name;
  } else if (role == "spot") {
    unit_ += entity.place->spots[dice_.below(4)];
  } else if (role == "sight") {
    unit_ += entity.place->sights[dice_.below(3)];
  } else {
    unit_ += (role == "n" ? "" : "the ") + entity.name;
  }
}

void Teller::expand_field(std::string_view field) {
  if (field[0] == '~') {
    unit_ += pick(words(field.substr(1)));
    return;
  }
  const char key = field[0];
  const std::string_view role = field.size() > 2 ? field.substr(2) : std::string_view();
  const Entity& entity = at(key);
  switch (entity.kind) {
    case Entity::Kind::kCharacter:
      return expand_character(key, role);
    case Entity::Kind::kThing:
      return expand_thing(entity, role);
    case Entity::Kind::kPlace:
      return expand_place(entity, role);
    case Entity::Kind::kWord:
      unit_ += entity.name;
      return;
    case Entity::Kind::kNone:
      break;
  }
  throw std::logic_error("a story pattern names '" + std::string(field) + "', which is not there");
}

void Teller::expand(std::string_view pattern) {
  for (size_t i = 0; i < pattern.size();) {
    const char c = pattern[i++];
    if (c == '[') {
      std::vector<std::string_view> choices;
      i += split_choices(pattern.substr(i), choices);
      expand(choices[dice_.below(static_cast<uint32_t>(choices.size()))]);
    } else if (c == '{') {
      const size_t end = pattern.find('}', i);
      expand_field(pattern.substr(i, end - i));
      i = end + 1;
    } else {
      unit_ += c;
      if (is_sentence_end(c)) subject_ = 0;
    }
  }
}

void Teller::end_unit() {
  if (!text_.empty() && text_.back() != '\n') text_ += ' ';
  text_ += polish(unit_);
  unit_.clear();
  before_ = std::move(now_);
  now_.clear();
  subject_ = 0;
}

void Teller::say(std::string_view pattern) {
  expand(pattern);
  end_unit();
}

void Teller::one(std::initializer_list<std::string_view> patterns) {
  say(patterns.begin()[dice_.below(static_cast<uint32_t>(patterns.size()))]);
}

void Teller::maybe(uint32_t percent, std::initializer_list<std::string_view> patterns) {
  if (chance(percent)) one(patterns);
}

void Teller::speak(char who, std::string_view words, char mark) {
  static constexpr std::string_view kSaid[] = {"said", "said", "said", "whispered", "explained"};
  static constexpr std::string_view kAsked[] = {"asked", "asked", "inquired"};
  static constexpr std::string_view kCried[] = {"cried", "shouted", "called", "exclaimed", "said"};
  const std::string verb(pick(mark == '?' ? Words(kAsked) : mark == '!' ? Words(kCried) : kSaid));
  if (chance(35)) {
    expand("{" + std::string(1, who) + "} " + verb + ", \"");
    expand(words);
    unit_ += mark;
    unit_ += '"';
    return end_unit();
  }
  unit_ += '"';
  expand(words);
  unit_ += mark == '.' ? ',' : mark;
  unit_ += "\" ";
  subject_ = 0;
  const size_t begin = unit_.size();
  expand_character(who, "");
  const std::string reference = unit_.substr(begin);
  if (reference != "he" && reference != "she" && chance(60)) {
    unit_.resize(begin);
    unit_ += verb + " " + reference;
  } else {
    unit_ += " " + verb;
  }
  if (mark != '!' && chance(15)) expand(" {~slowly}");
  unit_ += '.';
  end_unit();
}

void Teller::paragraph() {
  text_ += '\n';
  before_.clear();
  pronouns_in_row_ = 0;
}

void Teller::introduce(char key) {
  const std::string k(1, key);
  const std::string forms[] = {
      "[once upon a time|long ago|once], there [was|lived] {K:intro}.",
      "there once was {K:intro} who lived {~home}.",
      "{K:name} was a {~small} {K:sort} who lived {~home}.",
      "{K:intro} lived {~home}.",
      "once there was {K:intro}. {K} lived {~home}.",
      "{~home} lived {K:intro}.",
      "this is the story of {K:intro}.",
  };
  std::string form = forms[below(static_cast<uint32_t>(std::size(forms)))];
  for (size_t at = 0; (at = form.find("{K", at)) != std::string::npos;) form.replace(at + 1, 1, k);
  say(form);
}

}  // namespace refract::stories
