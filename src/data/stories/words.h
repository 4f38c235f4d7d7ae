// The vocabulary of the stories.
#pragma once
#include <span>
#include <string_view>

namespace refract::stories {

using Words = std::span<const std::string_view>;

// A named list of words or phrases that mean about the same ("glad", "walked"). Throws
// std::logic_error for a name that is not there: a mistake in a plot.
Words words(std::string_view list);

struct ThingWord {
  std::string_view noun;
  // t toy, w is worn, s fits a pocket, l is carried by the wind, y shiny, b breaks and can be
  // mended, m makes music, u of use, r clears a way or frees what is stuck, h something that is
  // hidden or treasured.
  std::string_view tags;
};
std::span<const ThingWord> thing_words();

struct PlaceWord {
  std::string_view noun, at;   // "forest", "in"
  std::string_view spots[4];   // where something can lie: "under a bench"
  std::string_view sights[3];  // what is seen there: "tall trees"
};
std::span<const PlaceWord> place_words();

struct AnimalWord {
  std::string_view noun;
  std::string_view eats, home, tracks;  // "nuts", "hollow tree", "tiny paw prints"
};
std::span<const AnimalWord> animal_words();

Words girl_names();
Words boy_names();
Words pet_names();
Words family_names();

}  // namespace refract::stories
