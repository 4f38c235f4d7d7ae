#include "data/stories/deed_plots.h"

namespace refract::stories {
namespace {

// H frees the animal T with the tool o; later T returns the favor.
void rescue(Teller& t) {
  t.person('H'), t.animal('T'), t.thing('o', "r"), t.thing('k', "syh"), t.place('p');
  t.introduce('H');
  t.one({"{~time}, {H} {~walked} {p:to} with {o:a}.",
         "{~time}, {H} was {p:at}. {H} carried {o:a}, as always."});
  t.maybe(50, {"{~weather}.", "There were {p:sight}."});
  t.one({"Then {H} heard {~sound}. It came from somewhere {p:spot}.",
         "A [weak|thin|small] voice called for help from {p:spot}."});
  t.one(
      {"It was a {T:sort}, [stuck in the mud|caught between two roots|under a fallen "
       "branch|trapped in an old fence].",
       "A {~small} {T:sort} [had fallen into a hole|was caught in some wire] and could not get "
       "out."});
  t.paragraph();
  t.speak('T', "[Please help me|I can't move|I have been here all night]", '!');
  t.speak('H', "[Don't be {~afraid}|Hold on|Keep still]. I have a {o:n}");
  t.one({"{H} [used {o}|worked with {o}] {~slowly} until the {T:sort} was free.",
         "With {o}, and a lot of patience, {H} got the {T:sort} out."});
  t.speak('T', "My name is {T:name}. {~thank}");
  t.maybe(60, {"{H} shared [some bread|an apple|a bit of cheese] with {T:name}, but {T:name} "
               "[liked {T:food} better|only ate {T:food}].",
               "{H} carried {T:name} back to the {T:home}."});
  t.paragraph();
  t.one(
      {"[Weeks|Days|Many months] later, {H} lost {k:a} {p:at}. {H:he} {~looked} everywhere, but it "
       "was no use.",
       "When [autumn|winter|spring] came, {H} dropped {k:a} {p:at}, and could not find it again."});
  t.one({"Suddenly a {T:sort} came out from {p:spot}, with {k} in its mouth. It was {T:name}!",
         "The next morning {T:name} sat at the door with {k}."});
  t.speak('T',
          "[You helped me, and now I have helped you|I did not forget you|One good turn deserves "
          "another]");
  t.one({"{H} laughed and [hugged|thanked] {T:him}. They [stayed|were] friends for life.",
         "After that, {H} never went {p:to} without {T:food} for {T:name}."});
}

// Two obstacles on the way to a treasure, each overcome with what was packed at the start.
void journey(Teller& t) {
  t.person('H'), t.someone('F'), t.place('p'), t.place('q'), t.thing('x', "r"), t.thing('y', "mty"),
      t.thing('g', "h");
  t.introduce('H');
  t.one({"{~time}, {H} found an old map {p:spot} {p:at}. A cross marked a place {q:at}.",
         "{H:his} [grandfather|grandmother|uncle] had told {H:him} of a treasure {q:at}."});
  t.one({"{H} asked {F:name} to come along. They packed bread, {x:a} and {y:a}.",
         "Together with {F:intro}, {H} packed {x:a}, {y:a} and some {~food}."});
  t.speak('F', "What do we need {y:a} for", '?');
  t.speak('H', "You never know");
  t.paragraph();
  if (t.chance(50))
    t.one(
        {"They {~walked} until they came to a [deep|wide|wild] river without a bridge. {F} was "
         "{~afraid}, but with {x} they [got across|made a way over].",
         "After an hour the path ended at a [steep cliff|high wall|deep ditch]. They used {x} to "
         "get over it."});
  else
    t.one(
        {"Soon it grew dark, and the path was full of [thorns|fallen trees]. Only with {x} could "
         "they [clear a way|go on].",
         "The way was blocked by [rocks|a fallen {~tree}]. \"Now we need {x},\" said {H:name}, and "
         "it worked."});
  t.animal('G');
  t.one(
      {"When they reached the {q:n}, a {~big} {G:sort} stood in the way. \"No one may pass,\" it "
       "[growled|said].",
       "But {q:at} a {G:sort} was on guard. \"What do you want here?\" it asked."});
  if (t.has_tag('y', 'm'))
    t.one(
        {"{H} took out {y} and played a [slow|sweet|soft] song. The {G:sort} listened, yawned, and "
         "fell asleep.",
         "{F} began to play {y}. The {G:sort} had never heard [music|such a song] and let them "
         "by."});
  else
    t.one(
        {"{H} showed {y} to the {G:sort}. It had never [owned|seen] such a thing, and it was so "
         "{~glad} with the gift that it let them pass.",
         "{F} gave {y} to the {G:sort}, which [was lonely|had nothing to play with], and it "
         "stepped aside."});
  t.paragraph();
  t.one({"{q:spot} they dug and found a box. In it lay {g:a}.",
         "There it was, {q:spot}: {g:a}, wrapped in cloth."});
  t.one(
      {"It was not gold, but {H} was {~glad}. \"We found it because we [packed well|worked "
       "together],\" {H} said.",
       "\"It is the most beautiful {g:n} in the world,\" said {F:name}."});
  t.one({"They were {~tired} when they came home, and {g} stands on {H:name}'s shelf to this day.",
         "At home they showed {g} to everyone, and told about the {G:sort}.",
         "On the way back they ate the last of the food and made plans for the next journey."});
}

// H can't do the skill s, tries, fails, learns from T, succeeds when it matters.
void skill(Teller& t) {
  t.animals_only(t.chance(20));
  t.someone('H'), t.someone('R'), t.adult('T'), t.word('s', "skill");
  t.introduce('H');
  t.one({"All the others could {s}, but {H} could not.", "{H} wanted to learn to {s}.",
         "There was one thing that {H} could not do: {s}."});
  t.one(
      {"{R:name}, who was [older|good at everything], laughed. \"You will never learn it,\" {R} "
       "said.",
       "\"It is easy!\" said {R:name}, and did it with closed eyes. {H} felt {~sad}."});
  t.paragraph();
  t.one({"{~time}, {H} tried it alone. It went wrong [at once|from the start].",
         "{~time}, {H} tried and tried, but [it was no good|nothing worked]."});
  t.maybe(50, {"{H} was so {~angry} that {H:he} [stamped on the ground|wanted to give up].",
               "\"I give up,\" {H} said, and sat down under a {~tree}."});
  t.one({"{T:name}, the {T:sort}, came by and saw it.",
         "An old {T:sort}, whose name was {T:name}, stopped and watched."});
  t.speak('T',
          "[I could not {s} either when I was small|Nobody can {s} on the first day|You are too "
          "much in a hurry]. [Try a little every day|Begin with small steps|Take a deep breath and "
          "try again]");
  t.one(
      {"{T} showed {H:name} how to [begin|do it]. On [Monday|the first day] it went badly, on "
       "[Tuesday|the second day] a bit better.",
       "So {H} practiced every day, with {T:name} beside {H:him}, in sun and rain."});
  t.one({"After [two weeks|a month|a hundred tries], it worked. {H} could {s}!",
         "And one morning, when {H} had almost stopped hoping, it [worked|went well]!"});
  t.paragraph();
  if (t.chance(50))
    t.one(
        {"In [summer|autumn] there was a festival, and everyone was asked to {s}. {H} did it best "
         "of all, and even {R:name} clapped.",
         "When the day of the great contest came, {H} was {~afraid}, but {H:he} thought of "
         "{T:name}'s words and won [second prize|first prize|a ribbon]."});
  else
    t.one(
        {"Then {R:name} hurt a [foot|hand] and had to start again from the beginning. Who helped? "
         "It was {H:name}. \"A little every day,\" {H} said.",
         "Soon a new child came who could not {s}. {H} did not laugh. \"I will show you,\" {H} "
         "said."});
  t.one({"{H} was {~proud}, and so was {T:name}.", "It pays to be patient.",
         "\"You see?\" said {T:name}. {H} just smiled."});
}

// Ingredients from three places, a small disaster, a feast.
void baking(Teller& t) {
  t.animals_only(t.chance(25));
  t.someone('H'), t.someone('F'), t.adult('G'), t.word('d', "dish"), t.word('a', "ingredient"),
      t.word('b', "ingredient"), t.word('c', "ingredient"), t.place('p');
  t.introduce('H');
  t.one(
      {"{~time}, {H} wanted to make a {d} for {G:name}, the {G:sort}, who was [ill|turning "
       "sixty|coming home].",
       "It was {G:name}'s birthday, and {H} decided to make a {d}. {G} was a {G:sort} and [worked "
       "hard|liked sweet things]."});
  t.one({"For that {H} needed {a}, {b} and {c}. But the kitchen was [empty|bare].",
         "\"I need {a}, {b} and {c},\" said {H:name}, and made a list."});
  t.paragraph();
  t.one(
      {"{H} got the {a} from a neighbor, who asked for [help in the garden|a song|nothing] in "
       "return.",
       "They still had some {a} in a jar."});
  t.one({"{F:name} had {b} at home and brought it over.",
         "For the {b}, {H} {~walked} {p:to}, where [a stall sold it|{F:name} had some]."});
  t.one(
      {"Only the {c} was missing. They {~looked} {p:spot} {p:at}, and at last [they found "
       "some|someone gave them a little bag of it].",
       "The {c} was hard to find, but {F:name} [had an idea|knew where to look], and soon they had "
       "it."});
  t.one({"They mixed the {a} with the {b}, added the {c}, and put it all in the oven.",
         "First came the {b}, then the {a}, and in the end the {c}. {F} stirred until {F:his} arm "
         "was {~tired}."});
  if (t.chance(60)) {
    t.one(
        {"But they [began to play|fell asleep|forgot the time], and [suddenly there was smoke|it "
         "began to smell of smoke]. The {d} was burned!",
         "But {F} took salt for sugar, and the first {d} tasted awful."});
    t.speak('F', "[Oh no|What a mess|It is all my fault]", '!');
    t.one(
        {"\"We make another one,\" said {H:name}. They had just enough {a} left. This time they "
         "[were careful|watched the clock].",
         "{H} did not scold. They cleaned up and began again, and the second {d} was "
         "[golden|perfect]."});
  } else {
    t.one({"Soon the whole house smelled of {d}.",
           "They waited and watched the clock until the {d} was [golden|ready]."});
  }
  t.paragraph();
  t.one({"They carried it to {G:name}, whose eyes [grew wide|shone].",
         "When {G:name} opened the door, there stood {H:name} and {F:name} with the {d}."});
  t.speak('G',
          "[This is the best {d} I have ever eaten|You made this for me|What a wonderful surprise]",
          '!');
  t.one({"They ate it together, down to the last crumb.",
         "There was a piece for everyone, and the biggest one was for {G:name}."});
}

// A seed, care, a threat that fits, a harvest that is shared.
void garden(Teller& t) {
  t.person('H'), t.adult('G'), t.animal('X'), t.word('f', "flower");
  t.introduce('H');
  t.one(
      {"In spring {G:name}, the {G:sort}, gave {H:him} a seed. \"It needs water, sun and time,\" "
       "{G} said.",
       "{~time}, {H} found a seed in {H:his} coat. \"Plant it,\" said {G:name}, the {G:sort}."});
  t.one({"{H} put it in the earth behind the house and watered it every [day|morning|evening].",
         "{H} dug a hole, put the seed in, and covered it {~slowly} with earth."});
  t.one({"For [a week|many days] nothing happened. {H} was {~sad}.",
         "Days went by, and there was only brown earth."});
  t.speak('H', "[Is it dead|Why does nothing happen|Did I do something wrong]", '?');
  t.speak('G', "[Wait a little|Good things take time|Under the earth it is busy]");
  t.paragraph();
  t.one(
      {"Then, after a [warm|long] rain, there was a tiny green leaf. {H} [jumped for joy|was "
       "{~glad}|ran to tell {G:name}].",
       "One morning a green tip had come up. \"Look!\" {H} called."});
  if (t.chance(50))
    t.one(
        {"But in the night {X:name} the {X:sort} came and [ate half of it|bit off a leaf]. {H} was "
         "{~angry}, and then {H} [built a fence|put a bowl of {X:food} by the gate, since {X:name} "
         "was only hungry].",
         "{X:name} the {X:sort} wanted to eat it, but {H} gave {X:him} {X:food} instead, and {X} "
         "left the plant alone."});
  else
    t.one(
        {"Then came a hot week without rain. The leaves hung down. {H} carried water from the "
         "well, one bucket after another, until they stood up again.",
         "Then there was a storm. {H} tied the stem to a stick and held an umbrella over it [half "
         "the night|until it was over]."});
  t.one(
      {"By summer it was as tall as {H:name}, and it was a {f}, the [finest|biggest|brightest] in "
       "the street.",
       "In summer it bloomed. It was a {~color} {f}."});
  t.paragraph();
  t.one(
      {"In autumn the {f} gave many seeds. {H} kept [one|three] and gave the rest to [the "
       "neighbors|the other children|everyone who asked].",
       "{H} cut one {f} for {G:name} and left the others for the bees."});
  t.one({"The next year there was a {f} in front of every house.",
         "\"Now you are a gardener,\" said {G:name}, and {H} was {~proud}.",
         "When people asked how it was done, {H} said, \"Water, sun and time.\""});
}

constexpr Plot kDeedPlots[] = {rescue, journey, journey, skill, baking, garden};

}  // namespace

std::span<const Plot> deed_plots() { return kDeedPlots; }

}  // namespace refract::stories
