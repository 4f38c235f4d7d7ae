#include "data/stories/thing_plots.h"

namespace refract::stories {
namespace {

// The hero H loses the thing o in the place p for a cause that fits it, looks for it in vain in q,
// and finds it where the cause took it.
void lost_thing(Teller& t) {
  t.animals_only(t.chance(25));
  t.someone('H'), t.someone('F'), t.thing('o', "tswlyh"), t.place('p'), t.place('q');
  t.introduce('H');
  t.one({"{H} had {o:a} that {H:he} loved [very much|more than anything|dearly].",
         "{H:his} favorite thing was {o:a}. {H} took it everywhere.",
         "[for {H:his} birthday|last winter|some time ago], {H} had been given {o:a}."});
  t.paragraph();
  t.one({"{~time}, {H} took {o} {p:to}.", "{~time}, {H} {~walked} {p:to} with {o}."});
  t.maybe(60, {"{~weather}, and there were {p:sight}.", "{H} [saw|looked at] {p:sight}."});
  enum { kWind, kPocket, kBird, kForgot } cause = kForgot;
  if (t.has_tag('o', 'l'))
    cause = kWind;
  else if (t.has_tag('o', 'y') && t.chance(60))
    cause = kBird;
  else if (t.has_tag('o', 's'))
    cause = kPocket;
  if (cause == kWind)
    t.one({"Suddenly a [strong|cold|sharp] wind came and [blew|carried] {o} away.",
           "Then the wind [tore|pulled] {o} out of {H:his} hands, and it was gone."});
  if (cause == kPocket)
    t.say(
        "{H} did not know that there was a hole in {H:his} pocket. {o} [fell out|slipped through "
        "it] without a sound.");
  if (cause == kBird)
    t.say(
        "While {H} was looking the other way, a [magpie|crow|jay] saw how {o} shone, picked it up "
        "and flew off.");
  if (cause == kForgot)
    t.say(
        "{H} put {o} down [to watch {p:sight}|to tie a shoe|to rest for a while] and [forgot all "
        "about it|then went home without it].");
  t.one(
      {"When {H} [got home|wanted to show it to {F}], {o} was [gone|nowhere to be seen]. {H} felt "
       "{~sad}.",
       "That evening {H} noticed that {o} was missing. {H} was so {~sad} that {H:he} [could not "
       "eat|began to cry|sat down on the floor]."});
  t.paragraph();
  t.speak('H', "[I have lost my {o:n}|My {o:n} is gone|I can't find my {o:n} anywhere]");
  t.speak('F', "[Where did you see it last|Where were you today|When did you last have it]", '?');
  t.speak('H', "[It was {p:at}|I had it when I was {p:at}]");
  t.one(
      {"First they {~looked} {q:spot} {q:at}, [but it was not there|but they found only "
       "{~food}|but there was nothing].",
       "They thought of the {q:n} too, and {~looked} {q:spot}, but [in vain|it was not there]."});
  t.say("Then they {~walked} back {p:to}.");
  if (cause == kWind)
    t.one(
        {"{F} remembered the wind and looked up. There was {o}, caught in [a {~tree}|the branches "
         "of a {~tree}|a high bush]! {F} climbed up and got it."});
  if (cause == kPocket)
    t.say(
        "{F} saw the hole in {H:name}'s pocket, and they followed the way {H} had come. {o} was "
        "lying {p:spot}.");
  if (cause == kBird)
    t.say(
        "High in [a {~tree}|an old {~tree}] they saw a nest, and something in it "
        "[shone|glittered]. It was {o}! The bird [had liked|had wanted] it because it shone.");
  if (cause == kForgot) t.say("There it was, {p:spot}, just where {H} had put it down.");
  t.paragraph();
  t.speak('H', "{~thank}, {F:name}", '!');
  if (cause == kPocket)
    t.one({"That night {H} sewed up the hole, and {o} was never lost again."});
  else
    t.one(
        {"From that day on, {H} [kept {o} close|took better care of {o}|never let {o} out of "
         "sight].",
         "{H} was {~glad} to have {o} back, and even more {~glad} to have a friend like {F:name}.",
         "They went home together, and {H} held {o} [tight|with both hands] all the way."});
}

// A and B both want o; it breaks; they mend it with the help of C.
void quarrel(Teller& t) {
  t.animals_only(t.chance(20));
  t.someone('A'), t.someone('B'), t.adult('C'), t.thing('o', "b"), t.place('p');
  t.introduce('A');
  t.one({"{A:his} best friend was {B:name}. They did everything together.",
         "{A} often [played|spent the day] with {B:intro} who lived [next door|near by|across the "
         "road]."});
  t.one({"{~time}, they found {o:a} {p:spot} {p:at}.",
         "{~time}, when they were {p:at}, they saw {o:a} {p:spot}."});
  t.paragraph();
  t.speak('A', "[It is mine|I saw it first|Give it to me]", '!');
  t.speak('B', "[No, it is mine|That is not fair|I picked it up first|You always get everything]",
          '!');
  t.one(
      {"{A} pulled on one side and {B} pulled on the other. [Crack!|Snap!|There was a loud crack.] "
       "{o} [broke in two|fell to the ground and broke].",
       "They were so {~angry} that they pushed each other, and {o} fell [on a stone|down] and "
       "broke."});
  t.one(
      {"Now no one had {o}. {A} was {~angry} and {B} was {~sad}. They went home without a word.",
       "They looked at the pieces and were [silent|still]. Then each of them walked home alone."});
  t.paragraph();
  t.one(
      {"That night {A} could not sleep. [It was lonely without {B:name}|What was {o:a} worth "
       "without a friend?|{A} thought of all the good days with {B:name}].",
       "The next day was long and dull. {A} [missed|kept thinking of] {B:name}."});
  t.one({"In the morning, {A} gathered the pieces and {~walked} to see {B:name}.",
         "So {A} put the pieces of {o} in a bag and knocked on {B:name}'s door."});
  t.speak('A', "[I am sorry|I am sorry that I was so {~angry}|It was my fault]");
  t.speak('B', "[I am sorry too|It was my fault as well|I should have shared it]");
  t.one(
      {"Together they took {o} to {C:name}, the {C:sort}, who [knew how to mend things|had strong "
       "glue|was good with old things].",
       "They asked {C:name}, the {C:sort}, for help. {C} [smiled|nodded] and brought [glue and "
       "string|some glue|a box of tools]."});
  t.maybe(60, {"{A} held the pieces while {B} [tied them|put on the glue].",
               "It took [an hour and a half|all afternoon|a long time], and they had to [wait|be "
               "patient] until the glue was dry."});
  t.paragraph();
  t.one(
      {"When they were done, {o} was [as good as new|almost as good as new|whole again, with one "
       "thin line].",
       "At last {o} was whole. You could see where it had broken, but [they liked it even "
       "more|that did not matter]."});
  t.one(
      {"{A} kept it [one week|on even days|in the mornings] and {B} [the next|on odd days|in the "
       "afternoons].",
       "From then on they shared {o}, and they never [fought|quarreled] over it again."});
  t.maybe(40, {"A thing that is shared is worth twice as much.",
               "And that was [worth more|better] than {o:a} of one's own."});
}

// A saves for o, sees that B needs help, gives, and is rewarded.
void gift(Teller& t) {
  t.person('A'), t.person('B'), t.adult('S'), t.thing('o'), t.thing('w', "wu"),
      t.word('m', "money");
  t.introduce('A');
  t.one({"In the window of {S:name}'s shop {A} had seen {o:a}. It cost {m}.",
         "More than anything {A} wished for {o:a}. {S:name}, who had a shop, sold it for {m}."});
  t.one(
      {"So {A} [swept floors|carried wood|fed the hens|washed windows|picked {~food}] for [a "
       "week|a month|many days] until {A:he} had {m}.",
       "{A} worked [hard|every day after school] and saved every penny, until there was {m} in "
       "{A:his} jar."});
  t.paragraph();
  t.one(
      {"{~time}, {A} {~walked} to the shop. On the way {A:he} met {B:intro} who was "
       "[crying|shivering|sitting on a step].",
       "{~time}, on the way to the shop, {A} saw {B:name} from school, who looked very {~sad}."});
  t.speak('A', "[What is wrong|Why are you so {~sad}|Can I help you]", '?');
  t.one({"\"My {w:n} is [torn|broken|gone], and we have no money for a new one,\" said {B}.",
         "\"I lost my mother's {w:n}, and winter is coming,\" said {B}."});
  t.one({"{A} thought of {o}. Then {A:he} [thought|looked at {B:name}] again.",
         "{A} held the money tight. It was [not an easy choice|hard to decide]."});
  t.one(
      {"In the shop {A} put {m} on the counter, but did not ask for {o}. {A} bought {w:a} and gave "
       "it to {B:name}.",
       "\"Wait here,\" said {A:name}. {A} went in, spent {m} on {w:a}, and gave it to {B:name}."});
  t.speak('B', "{~thank}", '!');
  t.paragraph();
  t.one({"{S:name}, the shopkeeper, had seen it all [through the window|from the door].",
         "{S:name} had been watching [quietly|from behind the counter]."});
  if (t.chance(55)) {
    t.one(
        {"The next day there was a [box|parcel] at {A:name}'s door. In it lay {o}, and a note: "
         "\"For a {~good} child.\"",
         "\"Come here,\" said {S:name}, and took {o} out of the window. \"This is for you. You "
         "have earned it.\""});
    t.one({"{A} was {~glad}, and {A:he} let {B:name} [play with|use|try] it too.",
           "{A} could hardly speak for joy."});
  } else {
    t.say(
        "\"If you help me in the shop on Saturdays,\" said {S:name}, \"^you shall have {o} by "
        "[summer|Christmas|spring].\"");
    t.one(
        {"And so it was. {A} worked there with {B:name}, and when {A:he} [got|took home] {o} at "
         "last, they [were both {~glad}|had become best friends].",
         "{A} did, and {o} stood by {A:his} bed for many years."});
  }
}

// Somebody takes o; the tracks lead to an animal that had a reason.
void thief(Teller& t) {
  t.person('H'), t.person('F'), t.animal('T'), t.animal('X'), t.thing('o', "syhwl"), t.place('p');
  t.introduce('H');
  t.one({"Every night {H} put {o:a} on the window sill.",
         "{H} owned {o:a}, which [had been {H:his} grandmother's|came from far away|hung on a nail "
         "by the door]."});
  t.one({"{~time}, it was gone. The window stood open.",
         "{~time}, {H} woke up and {o} was not there."});
  t.speak('H',
          "[Someone has taken my {o:n}|There is a thief in the house|My {o:n} has been stolen]",
          '!');
  t.one(
      {"{H} called {F:name}, who [loved riddles|was good at solving riddles|had sharp eyes|wanted "
       "to be a detective].",
       "{F:name} came [at once|with a magnifying glass]."});
  t.paragraph();
  t.one({"\"Look,\" said {F:name}. On the floor there was [a clue|something odd]: {T:tracks}.",
         "Under the window {F} found {T:tracks}."});
  t.one(
      {"\"That was {X:name} the {X:sort},\" said {H:name}. \"No,\" said {F:name}. \"A {X:sort} "
       "leaves {X:tracks}.\"",
       "At first they thought of {X:name} the {X:sort}. But {X:name} had been [asleep in|at home "
       "in] the {X:home} all night, and a {X:sort} leaves {X:tracks}."});
  t.one({"They followed the trail out of the house and all the way {p:to}.",
         "The trail led through the gate, along the road and {p:to}."});
  t.one({"There, {p:spot}, sat a {T:sort}. It was {T:name}, and in front of {T:name} lay {o}.",
         "It ended {p:spot}. There they found {T:name} the {T:sort}, with {o}."});
  t.paragraph();
  t.speak('F', "Why did you take it", '?');
  t.one(
      {"{T} looked {~sad}. \"My {T:home} [is so dark|feels so empty], and {o} was so beautiful. I "
       "[only wanted to look at it|wanted something nice].\"",
       "\"I was looking for {T:food},\" said {T:name}, \"^and then I saw {o}. [I am sorry.|I did "
       "not think.|I wanted a present for my mother.]\""});
  t.one({"{H} was no longer {~angry}. \"You must ask first,\" {H} said.",
         "\"Taking is not right,\" said {H:name}, \"^but I can see why you did it.\""});
  t.one(
      {"{T} gave {o} back, and the next day {H} brought [a candle|a bright ribbon|a picture|some "
       "{T:food}] to the {T:home}.",
       "{T} gave it back at once. Since then {H} and {F:name} bring {T:him} {T:food} every week."});
  t.maybe(50, {"And {o} is on the window sill again.",
               "The riddle was solved, and they all had a new friend."});
}

// A chain of trades that ends where it began.
void trades(Teller& t) {
  t.person('H'), t.adult('A'), t.adult('B'), t.adult('C'), t.thing('o'), t.thing('x', "u"),
      t.thing('y', "bm"), t.word('d', "dish");
  t.introduce('H');
  t.one({"{H} had nothing but {o:a}, and {H:his} [mother|father|little sister] was hungry.",
         "{~time}, {H} set out to trade {o:a} for something to eat."});
  t.paragraph();
  t.one({"First {H} met {A:name}, the {A:sort}, who [looked at|admired] {o}.",
         "At the first house lived {A:name}, the {A:sort}."});
  t.speak('A',
          "[I need just such a {o:n}|I have always wanted a {o:n}]. Will you take my {x:n} for it",
          '?');
  t.say("{H} [agreed|said yes|nodded] and went on with {x:a}.");
  t.one(
      {"Then {H} came to {B:name}, the {B:sort}, who was [in trouble|in great need]. \"Without a "
       "{x:n} I can't [work|go on],\" {B} said, and offered {y:a} for it.",
       "Next came {B:name}, the {B:sort}, who had {y:a}. \"I would give it for your {x:n},\" {B} "
       "said."});
  t.one({"So {H} gave {x} away and took {y}.",
         "They [traded|shook hands], and {H} carried {y} down the road."});
  t.one(
      {"At last {H} met {C:name}, the {C:sort}, who had just made a {d}. \"What a fine {y:n}!\" "
       "{C} said.",
       "By evening {H} reached the house of {C:name}, the {C:sort}. It smelled of {d}."});
  t.speak('C',
          "[My children would love that {y:n}|We have no {y:n} in this house]. Take the {d} for it",
          '!');
  t.paragraph();
  t.one({"{H} ran home with the {d}, and the whole family ate until they were full.",
         "That night {H} and {H:his} family ate the {d} to the last crumb."});
  t.one({"First {o}, then {x}, then {y}, and now a {d}: everyone had got what they needed.",
         "\"And all that for {o:a}!\" said {H:his} [mother|father|grandmother]."});
  t.maybe(50, {"A trade is good when both go home {~glad}.",
               "In the village they still [tell|talk] about it."});
}

constexpr Plot kThingPlots[] = {lost_thing, lost_thing, quarrel, gift, thief, trades};

}  // namespace

std::span<const Plot> thing_plots() { return kThingPlots; }

}  // namespace refract::stories
