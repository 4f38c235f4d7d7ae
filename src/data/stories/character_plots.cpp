#include "data/stories/character_plots.h"

namespace refract::stories {
namespace {

// The lazy animal A and the busy one B; winter shows who was right.
void seasons(Teller& t) {
  t.animal('A'), t.animal('B'), t.place('p');
  t.one(
      {"[Once|Long ago], a {A:sort} and a {B:sort} lived {p:at}. The {A:sort} was {A:name} and the "
       "{B:sort} was {B:name}.",
       "{A:name} the {A:sort} and {B:name} the {B:sort} were neighbors {p:at}."});
  t.one(
      {"All summer {B:name} gathered {B:food}. {A:name} [lay in the sun|sang songs|slept under a "
       "{~tree}].",
       "When the days were long, {B:name} worked from morning to night, and {A:name} did nothing "
       "but [sing|sleep|dance|play]."});
  t.speak(
      'A',
      "[Why do you work so hard|Why don't you rest with me]? [The sun is shining|Summer is long]");
  t.speak('B', "[Winter will come|One day it will be cold], and then I shall need {B:food}");
  t.say("{A} only [laughed|shook {A:his} head|yawned].");
  t.paragraph();
  t.one(
      {"Then the leaves fell, and soon there was snow {p:at}. {A:name} looked for {A:food}, but "
       "found nothing, not even {p:spot}.",
       "Winter came early. The wind was cold and the {p:n} was white. {A:name} had no {A:food} "
       "left."});
  t.one({"Hungry and {~tired}, {A} went to the {B:home} and knocked.",
         "At last {A} came to the {B:home}, cold and {~sad}."});
  t.speak('A', "[Please let me in|I was foolish|I am so hungry]", '!');
  if (t.chance(65)) {
    t.one(
        {"{B:name} thought of the long summer. But {B:name} was {~good}. \"Come in,\" {B} said, "
         "\"^and next year you shall help me.\"",
         "\"Sit by the fire,\" said {B:name}. \"There is enough for two, if we are careful.\""});
    t.one(
        {"They shared the {B:food} until spring. When summer came again, two were at work {p:at}, "
         "and {A:name} worked the hardest.",
         "All winter {A:name} told stories by the fire. And when the snow was gone, {A} was the "
         "first to get up and gather {A:food}."});
  } else {
    t.say(
        "\"I have just enough for my children,\" said {B:name}. \"But I can tell you where [some "
        "{A:food} may lie under the snow|the old stores are].\" It was a hard winter for "
        "{A:name}.");
    t.one(
        {"In spring {A} was thin, but wiser. From then on {A} gathered {A:food} while the sun "
         "shone.",
         "The next summer {A} did not [sleep|sing] all day. {A} had learned to think of "
         "tomorrow."});
  }
  t.maybe(50, {"Work first, then rest.",
               "Who thinks of winter in summer need not be {~afraid} of the snow."});
}

// The boaster A races B and loses by what A boasted of.
void race(Teller& t) {
  t.animal('A'), t.animal('B'), t.animal('C'), t.place('p'), t.place('q');
  t.one(
      {"{A:name} the {A:sort} was very proud. \"No one is as [fast|clever|strong] as I am,\" {A} "
       "told everyone.",
       "There once was a {A:sort} named {A:name} who boasted all day long."});
  t.one({"{B:name} the {B:sort} grew tired of it.",
         "One day {B:name}, a {~small} {B:sort}, had heard enough."});
  t.speak('B', "Let us race from the {p:n} to the {q:n}");
  t.speak('A', "[With you|Against a {B:sort}]? [That will be easy|I could do it asleep]", '!');
  t.one(
      {"{C:name} the {C:sort} was the judge. All the animals came to watch.",
       "They asked {C:name} the {C:sort} to give the sign, and the animals stood along the road."});
  t.paragraph();
  t.one({"\"Go!\" called {C:name}, and {A:name} shot away. Soon {B:name} was far behind.",
         "{C:name} dropped a leaf, and off they went. At the first bend {A:name} was far ahead."});
  if (t.chance(50))
    t.one(
        {"Half way there {A:name} saw some {A:food}. \"I have time,\" {A} thought, and ate and "
         "ate, until {A:he} was too full to run.",
         "\"I can rest a bit,\" thought {A:name}, lay down {p:spot}, and fell fast asleep."});
  else
    t.one(
        {"{A:name} kept looking back and laughing, and so {A:he} did not see the ditch, and fell "
         "in.",
         "To show off, {A:name} took the long way round by the river. But the bridge was "
         "[broken|gone]."});
  t.one({"Meanwhile {B:name} went on, step by step, without a stop.",
         "{B:name} did not hurry and did not stop."});
  t.one(
      {"When {A:name} came {q:to}, [tired|muddy] and out of breath, {B:name} was already there, "
       "eating {B:food}.",
       "{A:name} ran as never before, but it was too late. {B:name} had won."});
  t.paragraph();
  t.one({"{A} was ashamed. \"You won,\" {A} said, \"^and I talked too much.\"",
         "At first {A} was {~angry}. Then {A} began to laugh at {A:self}."});
  t.one({"\"You are faster,\" said {B:name}, \"^but I did not forget where I was going.\"",
         "{B} shared the {B:food}, and from then on {A:name} boasted no more, or only a little.",
         "{C:name} gave {B:name} a crown of leaves, and they all danced until dark."});
}

// A wish granted by a being in return for a kindness goes wrong and is taken back.
void wish(Teller& t) {
  t.person('H'), t.adult('M'), t.word('f', "food"), t.thing('o', "tmyh"), t.place('p');
  t.introduce('H');
  t.one(
      {"{~time}, {p:at}, {H} met an old [woman|man] who was [hungry|thirsty|{~tired}]. {H} shared "
       "{H:his} [bread|water|lunch].",
       "{~time}, {H} freed a [golden fish|white bird|silver moth] that was caught {p:spot} "
       "{p:at}."});
  t.one({"\"You are {~good},\" said the [stranger|soft voice]. \"You have one wish.\"",
         "\"For that you may make a wish,\" it said, \"^but think well.\""});
  const uint32_t kind = t.below(3);
  t.paragraph();
  if (kind == 0) {
    t.say("{H} loved {f}. \"I wish for {f} every day, as much as I want!\" {H} said.");
    t.one(
        {"The next morning there was {f} on the table. There was {f} in the cupboard, under the "
         "bed and even in {H:his} shoes.",
         "At once there was {f} everywhere: on plates, on chairs, on the roof."});
    t.one(
        {"For two days {H} was {~glad}. On the third day {H} could not look at {f} any more. "
         "{H:his} stomach hurt.",
         "Soon there was nothing else to eat, and {H} [longed for|dreamed of] a plain bowl of "
         "soup."});
  } else if (kind == 1) {
    t.say("\"I wish for [a hundred|a thousand] of these,\" said {H:name}, and held up {o:a}.");
    t.one(
        {"There was a bang, and the house was full of them. {H} could not open the door, nor find "
         "the bed.",
         "They came down like rain, one {o:n} after another, until the garden was full."});
    t.say(
        "Now {H} did not care for any of them, and could not even tell which {o:n} was {H:his} "
        "own.");
  } else {
    t.say("\"I wish that everything I say comes true!\" {H} said.");
    t.one({"At supper {H} said, \"I could eat a horse,\" and there stood a horse in the kitchen.",
           "\"It is raining cats and dogs,\" {H} said to {M:name}, the {M:sort}, and they [fell "
           "from the sky|landed on the roof]."});
    t.one(
        {"After that {H} did not dare to say a word. {H:his} friends thought that {H:he} was "
         "{~angry} with them.",
         "\"Oh, I wish I were far away,\" said {H}, and at once stood on a cold mountain."});
  }
  t.paragraph();
  t.one({"{H} ran back {p:to}. \"Please take it back!\" {H} [called|begged].",
         "{~tired} and {~sad}, {H} went {p:to} again and asked for help."});
  t.one(
      {"\"What have you learned?\" asked the voice. \"[That enough is enough|To think before I "
       "speak|That I had all I needed],\" said {H:name}.",
       "The voice laughed kindly. \"I hoped that you would come,\" it said."});
  t.one({"When {H} came home, all was as before, and {H} had never been so {~glad} about it.",
         "And so it was taken back. That evening {H} ate [soup|bread and cheese] with {M:name}, "
         "the {M:sort}, and it tasted better than ever."});
}

// H breaks o of the adult G, lies, sees another blamed, confesses, mends.
void truth(Teller& t) {
  t.person('H'), t.person('B'), t.adult('G'), t.animal('X'), t.thing('o', "b");
  t.introduce('H');
  t.one(
      {"{G:name}, the {G:sort} next door, owned {o:a} [from far away|of great age|that no one was "
       "allowed to touch].",
       "{~time}, {H} and {B:name} visited {G:name}, the {G:sort}. On the shelf stood {o:a}."});
  t.one(
      {"When {G:name} was out, {H} wanted to [look at it|hold it] just once. It slipped and "
       "[broke|fell to the floor].",
       "{H} climbed on a chair to see it better. The chair tipped, and {o} broke."});
  t.one({"{H} was {~afraid} and hid the pieces [under the rug|behind the stove|in a drawer].",
         "No one had seen it. {H} ran home and said nothing."});
  t.paragraph();
  t.speak('G', "Who broke my {o:n}", '?');
  if (t.chance(50)) {
    t.one(
        {"\"Maybe it was {B:name},\" {H} said. {B:name} had to [stay inside|sweep the yard] all "
         "week, and [cried|did not know why].",
         "Everyone thought of {B:name}, who had been there too. {H} kept silent, and {B:name} was "
         "[scolded|sent home]."});
    t.one({"{H} saw {B:name} at the window, and could not [play|eat|sleep] any more.",
           "The lie [felt like a stone|lay heavy] in {H:his} stomach."});
    t.say(
        "At last {H} {~walked} to {G:name}'s house. \"It was not {B:name}. I broke it, and I "
        "lied,\" {H} said. \"I am sorry.\"");
    t.say(
        "Then {H} told {B:name} the truth as well. {B:name} was {~angry} for [a day|an evening], "
        "but then [forgave {H:him}|they played again].");
  } else {
    t.one(
        {"\"It must have been {X:name},\" {H} said. {X:name} was {G:name}'s {X:sort}, and had to "
         "sleep outside in the rain.",
         "{G:name} blamed {X:name}, the {X:sort}, and gave {X:him} no {X:food} that night."});
    t.say("Through the wall {H} could hear {X:name}. {H} felt {~sad}, and could not sleep.");
    t.say(
        "In the morning {H} {~walked} to {G:name}. \"It was not {X:name}. It was me,\" {H} said, "
        "and put the pieces on the table.");
  }
  t.paragraph();
  t.one({"{G:name} was quiet for a while. \"It takes courage to say that,\" {G} said.",
         "\"I am sad about {o},\" said {G:name}, \"^but {~glad} that you told me.\""});
  t.one(
      {"To make up for it, {H} worked in {G:name}'s garden [for a month|every Saturday], and "
       "together they [glued the pieces|mended {o}].",
       "They mended {o} together. It has a crack now, and whenever {H} sees it, {H:he} remembers "
       "to tell the truth."});
}

// A sound in a stormy night turns out to be harmless.
void storm(Teller& t) {
  t.person('H'), t.person('F'), t.animal('X'), t.thing('o', "r"), t.word('s', "sound");
  t.introduce('H');
  t.one({"{H} was {~good}, but in the dark {H:he} was {~afraid}.",
         "There was only one thing {H} feared, and that was the dark."});
  t.one(
      {"One night there was a [great|wild] storm. {F:name}, who was visiting, lay in the other "
       "bed.",
       "{F:name} had come to stay for the night, and just then the lights went out."});
  t.one({"The wind shook the windows, and then they heard {s}.",
         "Thunder rolled over the roof. After it came {s}."});
  t.speak('F', "[What was that|Did you hear that|Is it a ghost]", '?');
  t.one({"It came from the [attic|cellar|kitchen|hall]. There it was again: {s}.",
         "{H} pulled the blanket up to {H:his} nose. Again there was {s}."});
  t.paragraph();
  t.speak(
      'H',
      "[Let us go and look|I am tired of being {~afraid}|If we don't look, we will never know]");
  t.one(
      {"{H} took {o:a} [in one hand|from the wall], and {F} took a candle. {~slowly}, step by "
       "step, they went through the dark.",
       "With {o:a} and a candle they crept along the wall. {F} held on to {H:name}'s sleeve."});
  t.one(
      {"The door was not shut. Behind it something moved. {H} counted to three and pushed it open.",
       "{H:his} heart beat loudly. Then {H} opened the door."});
  t.one(
      {"There sat a {~small} {X:sort}, wet to the skin, and it was more {~afraid} than they were!",
       "It was no ghost. It was {X:name}, the neighbor's {X:sort}, who had come in out of the "
       "rain."});
  t.paragraph();
  t.one({"They dried {X:him} with a towel and found some {X:food} in the kitchen.",
         "{F} laughed with relief. {H} put down {o} and made a bed for the {X:sort} in a basket."});
  t.one({"When the thunder came again, {H} noticed that {H:he} was not {~afraid} any more.",
         "\"The dark is only the day with the lights out,\" {H} said, and {F:name} agreed."});
  t.one({"In the morning the sun shone, and three of them sat at breakfast.",
         "Since that night {H} sleeps without a light, and {X:name} often comes to visit."});
}

// A newcomer N is shy; a thing they both like makes them friends.
void newcomer(Teller& t) {
  t.animals_only(t.chance(25));
  t.someone('H'), t.someone('N'), t.someone('R'), t.thing('o', "tmbl"), t.place('p'),
      t.word('s', "skill");
  t.introduce('H');
  t.one(
      {"{~time}, a new family moved in across the road. {N:intro} stood alone at the gate and held "
       "{o:a}.",
       "{~time}, there was someone new {p:at}: {N:intro}, with {o:a}."});
  t.one({"{N} did not speak. \"How odd,\" said {R:name}. \"Leave {N:him} alone.\"",
         "{R:name} whispered, \"{N:name} never says a word. {N:name} must be proud.\""});
  t.one({"But {H} remembered how it was to be [new|alone].",
         "{H} was not so sure. {H} saw that {N:name} looked {~sad}."});
  t.paragraph();
  t.one({"The next day {H} went over. \"That is a fine {o:n},\" {H} said.",
         "\"May I see your {o:n}?\" {H} asked."});
  t.one(
      {"{N} looked up. \"It was my [grandfather's|brother's|best friend's],\" {N} said, very "
       "softly. \"He lives far away now.\"",
       "{N} nodded, and held out {o}. \"I don't know anyone here,\" {N} said."});
  t.speak('H',
          "[Now you know me|Come with me|I know a good place]. [Let us go to the {p:n}|I can show "
          "you the {p:n}]");
  t.one({"{p:at} they saw {p:sight}, and {N} [laughed for the first time|talked more and more].",
         "They spent the whole afternoon {p:at}. It turned out that {N} could {s}, better than "
         "anyone."});
  t.paragraph();
  t.one(
      {"When {R:name} came by, {N} was {~afraid} at first. But {H} said, \"Come and play with "
       "us!\"",
       "{R:name} watched from behind a {~tree}, until {H} called, \"There is room for three!\""});
  t.one(
      {"{R} was ashamed. \"I thought that you were proud,\" {R} said. \"I was only shy,\" said "
       "{N:name}.",
       "\"I am sorry for what I said,\" {R} said. {N} smiled and let {R:him} hold {o}."});
  t.one({"After that the three were always seen together, and {o} went with them.",
         "That evening {N} wrote a long letter home. \"I have two friends now,\" it said."});
}

constexpr Plot kCharacterPlots[] = {seasons, race, wish, truth, storm, newcomer};

}  // namespace

std::span<const Plot> character_plots() { return kCharacterPlots; }

}  // namespace refract::stories
