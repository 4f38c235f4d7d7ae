#include "data/stories/words.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace refract::stories {
namespace {

using sv = std::string_view;

constexpr sv kGirls[] = {"Lily",  "Anna",  "Mia",   "Clara",  "Ruby",  "Nora",  "Ella",   "Rosa",
                         "Alice", "Maya",  "Zoe",   "Ivy",    "Lucy",  "Sara",  "Emma",   "Tess",
                         "Daisy", "Hazel", "Freya", "Molly",  "Jane",  "Kate",  "Amy",    "Beth",
                         "Grace", "June",  "Wendy", "Violet", "Iris",  "Penny", "Greta",  "Olga",
                         "Nina",  "Elsa",  "Flora", "Holly",  "Mabel", "Edith", "Fatima", "Yuki",
                         "Priya", "Amara", "Leila", "Carmen", "Dora",  "Heidi", "Ingrid", "Joy",
                         "Kira",  "Luna",  "Marta", "Naomi",  "Opal",  "Pearl", "Quinn"};
constexpr sv kBoys[] = {"Tom",   "Ben",    "Jack",   "Sam",    "Max",    "Leo",   "Finn",  "Oscar",
                        "Theo",  "Hugo",   "Noah",   "Paul",   "Peter",  "Felix", "Henry", "Oliver",
                        "Luke",  "Will",   "Jonah",  "Adam",   "Simon",  "David", "Eli",   "George",
                        "Harry", "Ivan",   "Jasper", "Karl",   "Martin", "Nico",  "Otto",  "Pablo",
                        "Ravi",  "Omar",   "Kenji",  "Diego",  "Amir",   "Bruno", "Caleb", "Dylan",
                        "Edgar", "Frank",  "Gus",    "Isaac",  "Joel",   "Lars",  "Milo",  "Ned",
                        "Rory",  "Stefan", "Toby",   "Victor", "Walter", "Yusuf", "Zach"};
constexpr sv kPets[] = {"Rusty",   "Clover",  "Pip",    "Bramble", "Whiskers", "Dusty",
                        "Nibbles", "Biscuit", "Pepper", "Fern",    "Hoot",     "Tumble",
                        "Bristle", "Maple",   "Shadow", "Sunny",   "Patch",    "Button",
                        "Thistle", "Acorn",   "Moss",   "Pebble",  "Ginger",   "Smoky",
                        "Tansy",   "Bubbles", "Flick",  "Juniper", "Socks",    "Willow"};
constexpr sv kFamilies[] = {"Hill",  "Reed",  "Lane",  "Brook", "Carter", "Moss",  "Baker",
                            "Stone", "Field", "Green", "Woods", "Parker", "Webb",  "Fisher",
                            "Gray",  "Potts", "Bell",  "Marsh", "Finch",  "Oakley"};

constexpr ThingWord kThings[] = {
    {"ball", "t"},         {"kite", "tlb"},      {"doll", "tb"},       {"toy boat", "tb"},
    {"drum", "mb"},        {"flute", "mh"},      {"fiddle", "mb"},     {"whistle", "msy"},
    {"bell", "msy"},       {"ring", "syh"},      {"coin", "syh"},      {"key", "syh"},
    {"button", "s"},       {"marble", "sty"},    {"locket", "sywbh"},  {"hat", "wl"},
    {"scarf", "wl"},       {"cap", "wl"},        {"ribbon", "wls"},    {"cloak", "w"},
    {"basket", "u"},       {"lantern", "ub"},    {"rope", "ur"},       {"shovel", "ur"},
    {"map", "luh"},        {"letter", "lh"},     {"book", "h"},        {"feather", "ls"},
    {"balloon", "tl"},     {"puppet", "tb"},     {"wagon", "tb"},      {"teapot", "bh"},
    {"cup", "b"},          {"vase", "bh"},       {"clock", "by"},      {"mirror", "byh"},
    {"umbrella", "ulb"},   {"spoon", "sy"},      {"compass", "syubh"}, {"watch", "sybh"},
    {"shell", "s"},        {"pebble", "s"},      {"blanket", "u"},     {"pillow", ""},
    {"quilt", ""},         {"paintbrush", "s"},  {"crayon", "s"},      {"top", "tsb"},
    {"music box", "mbh"},  {"snow globe", "bh"}, {"paper boat", "tl"}, {"toy train", "tb"},
    {"jump rope", "tu"},   {"picture", "lbh"},   {"hammer", "ur"},     {"bucket", "u"},
    {"net", "u"},          {"candle", "us"},     {"medal", "syh"},     {"crown", "ywbh"},
    {"necklace", "sywbh"}, {"bracelet", "sywh"}, {"telescope", "bhu"}, {"teddy bear", "tb"},
    {"harp", "mbh"},       {"trumpet", "my"},    {"guitar", "mb"},     {"sled", "tb"},
    {"scooter", "tb"},     {"puzzle", "t"},      {"robot", "tby"},     {"jar", "bu"},
    {"box", "h"},          {"ladder", "ur"},     {"axe", "ur"},        {"saw", "ur"},
    {"pole", "ur"},        {"spade", "ur"},      {"pickaxe", "ur"},    {"iron bar", "ur"},
    {"plank", "ur"},       {"stick", "ur"},      {"glove", "wl"},      {"mitten", "wl"},
    {"coat", "w"},         {"bonnet", "wl"},     {"bow", "wls"},       {"lamp", "b"},
    {"plate", "b"},        {"bowl", "b"},        {"card", "l"},        {"notebook", "h"},
    {"pencil", "s"},       {"thimble", "sy"},    {"star", "syh"}};

constexpr PlaceWord kPlaces[] = {
    {"forest",
     "in",
     {"under a fern", "behind an old oak", "in a hollow log", "on a mossy stone"},
     {"tall trees", "red mushrooms", "a winding path"}},
    {"park",
     "in",
     {"under a bench", "behind the swings", "beside the fountain", "in the tall grass"},
     {"green benches", "a round pond", "children on swings"}},
    {"garden",
     "in",
     {"under a rose bush", "behind the shed", "between the cabbages", "in the flower bed"},
     {"rows of beans", "yellow roses", "busy bees"}},
    {"beach",
     "on",
     {"under the sand", "between two rocks", "in a tide pool", "behind a dune"},
     {"white foam", "small crabs", "long waves"}},
    {"market",
     "at",
     {"under a table", "behind the fruit stand", "beside a barrel", "in an empty crate"},
     {"heaps of apples", "bright cloth", "baskets of fish"}},
    {"farm",
     "on",
     {"under the hay", "behind the barn", "in the chicken coop", "beside the plow"},
     {"fat hens", "brown cows", "a red barn"}},
    {"river",
     "by",
     {"among the reeds", "under the bridge", "on a flat stone", "behind a willow"},
     {"silver fish", "a wooden bridge", "green reeds"}},
    {"lake",
     "by",
     {"among the lilies", "under an old boat", "on the dock", "behind a tree stump"},
     {"wild ducks", "still water", "a small dock"}},
    {"hill",
     "on",
     {"under a bush", "behind a boulder", "in a rabbit hole", "beside a fence"},
     {"purple heather", "grazing sheep", "a lone tree"}},
    {"meadow",
     "in",
     {"among the daisies", "under a hedge", "behind a haystack", "in a ditch"},
     {"white daisies", "orange butterflies", "soft grass"}},
    {"school",
     "at",
     {"under a desk", "behind the bookshelf", "in the coat room", "beside the piano"},
     {"tidy desks", "paintings on the wall", "a big blackboard"}},
    {"library",
     "in",
     {"under a chair", "behind a row of books", "in a drawer", "on the highest shelf"},
     {"dusty books", "a spiral stair", "quiet readers"}},
    {"barn",
     "in",
     {"under the straw", "behind the ladder", "in an old bucket", "on a beam"},
     {"piles of straw", "a sleepy horse", "old tools"}},
    {"attic",
     "in",
     {"under a trunk", "behind a painting", "in a dusty box", "between old coats"},
     {"spider webs", "old trunks", "a broken chair"}},
    {"orchard",
     "in",
     {"under an apple tree", "behind the stone wall", "in a wheelbarrow", "among fallen leaves"},
     {"ripe pears", "rows of trees", "a stone wall"}},
    {"harbor",
     "at",
     {"under a net", "behind some barrels", "in a rowboat", "on the pier"},
     {"tall masts", "loud gulls", "wet ropes"}},
    {"cave",
     "in",
     {"under a rock", "behind a pillar of stone", "in a dark corner", "beside a pool"},
     {"sleeping bats", "dripping stones", "cold walls"}},
    {"castle",
     "in",
     {"under the stairs", "behind a curtain", "in the tower", "beside the gate"},
     {"high towers", "long halls", "old flags"}},
    {"village square",
     "in",
     {"under the stone arch", "behind the well", "on the church steps", "beside the statue"},
     {"a bronze statue", "an old well", "pigeons"}},
    {"bakery",
     "in",
     {"under the counter", "behind the oven", "in a flour sack", "on the window sill"},
     {"warm loaves", "sacks of flour", "sweet buns"}},
    {"train station",
     "at",
     {"under a seat", "behind the ticket desk", "on the platform", "beside a suitcase"},
     {"long trains", "hurried people", "a big clock"}},
    {"mill",
     "at",
     {"under the wheel", "behind the grain sacks", "in a cupboard", "on the loft floor"},
     {"a turning wheel", "bags of grain", "white dust"}},
    {"valley",
     "in",
     {"under a thorn bush", "behind a waterfall", "in an empty nest", "beside the stream"},
     {"a bright stream", "wild goats", "blue flowers"}},
    {"zoo",
     "at",
     {"under a sign", "behind the elephant house", "by the monkey cage", "beside the duck pond"},
     {"sleepy lions", "noisy monkeys", "tall giraffes"}},
    {"museum",
     "in",
     {"under a glass case", "behind a statue", "in the cloak room", "beside the entrance"},
     {"dinosaur bones", "golden masks", "huge paintings"}},
    {"island",
     "on",
     {"under a palm tree", "behind a sand bank", "in an old chest", "inside a hut"},
     {"green parrots", "tall palms", "pink shells"}},
    {"swamp",
     "in",
     {"under a root", "behind a rotten log", "among the cattails", "on a tuft of grass"},
     {"croaking frogs", "black water", "gray moss"}},
    {"mountain",
     "on",
     {"under a ledge", "behind a snow bank", "in an eagle's nest", "beside the trail"},
     {"white peaks", "steep cliffs", "thin clouds"}},
    {"field",
     "in",
     {"under a scarecrow", "behind a fence post", "in the corn", "beside the ditch"},
     {"golden wheat", "black crows", "a ragged scarecrow"}},
    {"toy shop",
     "in",
     {"under the counter", "behind the toy trains", "in a toy chest", "on a low shelf"},
     {"wooden horses", "shelves of dolls", "tin soldiers"}}};

constexpr AnimalWord kAnimals[] = {
    {"fox", "berries", "den", "narrow paw prints"},
    {"rabbit", "carrots", "burrow", "long hops in the dust"},
    {"squirrel", "nuts", "hollow tree", "empty nut shells"},
    {"mouse", "cheese", "hole in the wall", "tiny paw prints"},
    {"hedgehog", "apples", "pile of leaves", "little tracks with prickles beside them"},
    {"owl", "seeds", "old oak", "a soft gray feather"},
    {"crow", "corn", "nest of twigs", "a black feather"},
    {"magpie", "beetles", "nest in the poplar", "a black and white feather"},
    {"badger", "roots", "sett under the hill", "wide claw marks"},
    {"otter", "fish", "river bank", "wet webbed prints"},
    {"duck", "bread", "reed bed", "flat muddy prints"},
    {"frog", "flies", "lily pond", "small wet spots"},
    {"turtle", "lettuce", "sunny log", "a slow line in the sand"},
    {"bear", "honey", "warm cave", "huge paw prints"},
    {"deer", "leaves", "quiet thicket", "neat hoof prints"},
    {"cat", "cream", "barn loft", "muddy cat prints"},
    {"dog", "bones", "wooden kennel", "big muddy paw prints"},
    {"goat", "thistles", "goat shed", "sharp hoof prints"},
    {"raccoon", "plums", "hollow stump", "prints like little hands"},
    {"beaver", "bark", "lodge of sticks", "wood chips"},
    {"mole", "worms", "long tunnel", "a trail of fresh earth"},
    {"hen", "grain", "hen house", "scratches in the dirt"},
    {"goose", "grass", "farm pond", "a white feather"},
    {"donkey", "oats", "old stable", "round hoof prints"},
    {"pony", "hay", "stable", "horseshoe prints"},
    {"lamb", "clover", "sheepfold", "a tuft of wool"},
    {"puppy", "biscuits", "basket by the stove", "small muddy prints"},
    {"kitten", "milk", "box by the fire", "dainty prints"},
    {"ant", "crumbs", "ant hill", "a line of crumbs"},
    {"cricket", "leaves", "crack in the wall", "two lines of tiny scratches"}};

struct List {
  sv name;
  Words words;
};

#define LIST(name, ...) constexpr sv name[] = {__VA_ARGS__}
LIST(kAfraid, "afraid", "scared", "frightened", "terrified", "nervous", "worried");
LIST(kAngry, "angry", "cross", "furious", "annoyed", "upset", "mad");
LIST(kBig, "big", "huge", "large", "enormous", "giant", "great", "broad");
LIST(kColor, "red", "blue", "green", "yellow", "purple", "orange", "white", "black", "brown",
     "pink", "golden", "silver", "gray", "scarlet", "violet", "crimson");
LIST(kDish, "apple pie", "carrot cake", "pot of soup", "loaf of bread", "plum cake", "honey cake",
     "berry tart", "stack of pancakes", "tray of cookies", "cheese pie", "pot of stew",
     "lemon cake", "pumpkin pie", "basket of muffins", "nut bread", "cherry pudding");
LIST(kFlower, "rose", "tulip", "daisy", "lily", "sunflower", "poppy", "bluebell", "daffodil",
     "pansy", "orchid", "lilac", "marigold", "violet", "peony");
LIST(kFood, "bread", "cheese", "soup", "apples", "pears", "honey", "cake", "berries", "nuts",
     "plums", "pancakes", "porridge", "cookies", "pie", "grapes", "cherries");
LIST(kGlad, "glad", "happy", "pleased", "delighted", "joyful", "cheerful", "merry", "overjoyed");
LIST(kGood, "kind", "brave", "gentle", "honest", "clever", "patient", "loyal", "helpful",
     "generous", "thoughtful", "polite", "careful", "cheerful", "wise");
LIST(kHome, "in a small house by the sea", "near a deep forest", "in a cottage on a hill",
     "at the edge of a quiet village", "in a busy town", "on a windy farm", "in a narrow street",
     "beside a wide river", "in a house with a blue door", "under a high mountain",
     "in a tall house with many stairs", "in a sunny valley", "near an old mill",
     "behind the town bakery", "in a stone house by a lake", "above a little shop",
     "not far from the harbor", "at the end of a long road", "in a white house among apple trees",
     "in a wooden cabin");
LIST(kIngredient, "flour", "eggs", "butter", "sugar", "milk", "honey", "apples", "nuts", "salt",
     "cinnamon", "carrots", "onions", "cream", "raisins", "plums", "yeast");
LIST(kJob, "baker", "farmer", "fisherman", "carpenter", "tailor", "gardener", "teacher", "doctor",
     "shoemaker", "miller", "shepherd", "painter", "clockmaker", "sailor", "blacksmith",
     "librarian", "potter", "beekeeper", "postman", "cook", "weaver", "musician", "toymaker",
     "woodcutter");
LIST(kLooked, "looked", "searched", "hunted", "peered", "checked", "peeked");
LIST(kMoney, "one coin", "two coins", "three coins", "five coins", "a silver coin", "ten pennies");
LIST(kProud, "proud", "very proud", "as proud as a king", "full of pride");
LIST(kQuick, "quickly", "at once", "right away", "in a hurry", "without waiting",
     "as fast as the wind");
LIST(kSad, "sad", "unhappy", "miserable", "gloomy", "downcast", "heartbroken");
LIST(kSkill, "swim", "whistle", "skate", "paint", "read", "juggle", "ride a bicycle", "climb trees",
     "play the piano", "dance", "row a boat", "bake bread", "sew", "tie knots", "fly a kite",
     "sing", "catch fish", "carve wood", "knit", "write poems", "play chess", "throw a ball",
     "count to a hundred");
LIST(kSlowly, "slowly", "quietly", "softly", "carefully", "gently", "calmly");
LIST(kSmall, "small", "little", "tiny", "young");
LIST(kSound, "a scratching sound", "a low moan", "a sharp tap", "a soft thump", "a strange whistle",
     "a creak", "a rustle", "a faint cry", "a dull knock", "a long howl");
LIST(kThingAdjective, "small", "old", "new", "lovely", "strange", "plain", "fine", "pretty",
     "special", "beautiful", "bright", "simple", "dear", "rare", "odd", "handsome", "tiny", "good",
     "splendid", "well-made", "dusty", "striped", "spotted", "painted");
LIST(kThank, "Thank you so much", "Thank you", "How can I ever thank you", "You are so kind",
     "I will never forget this", "You are a true friend");
LIST(kTime, "One day", "One morning", "One afternoon", "One evening", "One sunny day",
     "One cold morning", "Early one morning", "Late one afternoon", "On a windy day",
     "On the first day of spring", "One quiet Sunday", "One Monday", "On a bright summer day",
     "On a foggy morning", "One autumn day", "On a market day", "The day after a big storm",
     "One winter morning", "Just before noon", "After breakfast one day");
LIST(kTired, "tired", "sleepy", "weary", "worn out", "exhausted");
LIST(kTrait, "curious", "shy", "brave", "clever", "quiet", "cheerful", "dreamy", "busy", "stubborn",
     "patient", "careful", "lively", "gentle", "playful", "serious", "friendly", "restless",
     "honest", "hungry", "polite", "messy", "hopeful");
LIST(kTree, "oak", "willow", "birch", "pine", "apple tree", "elm", "maple", "chestnut tree",
     "poplar", "cherry tree");
LIST(kWalked, "walked", "went", "ran", "hurried", "strolled", "wandered", "skipped", "marched");
LIST(kWeather, "The sun was warm", "A soft rain was falling", "The wind was strong",
     "The sky was clear", "Gray clouds hung low", "The air smelled of rain", "It was very hot",
     "Frost lay on the ground", "A thin mist covered everything", "The birds were singing",
     "Leaves were falling", "It had snowed in the night");
#undef LIST

// In the order of their names.
constexpr List kLists[] = {{"adjective", kThingAdjective},
                           {"afraid", kAfraid},
                           {"angry", kAngry},
                           {"big", kBig},
                           {"color", kColor},
                           {"dish", kDish},
                           {"flower", kFlower},
                           {"food", kFood},
                           {"glad", kGlad},
                           {"good", kGood},
                           {"home", kHome},
                           {"ingredient", kIngredient},
                           {"job", kJob},
                           {"looked", kLooked},
                           {"money", kMoney},
                           {"proud", kProud},
                           {"quick", kQuick},
                           {"sad", kSad},
                           {"skill", kSkill},
                           {"slowly", kSlowly},
                           {"small", kSmall},
                           {"sound", kSound},
                           {"thank", kThank},
                           {"time", kTime},
                           {"tired", kTired},
                           {"trait", kTrait},
                           {"tree", kTree},
                           {"walked", kWalked},
                           {"weather", kWeather}};

}  // namespace

Words words(sv list) {
  const auto* found = std::lower_bound(std::begin(kLists), std::end(kLists), list,
                                       [](const List& a, sv b) { return a.name < b; });
  if (found == std::end(kLists) || found->name != list) {
    throw std::logic_error("the stories have no list of words '" + std::string(list) + "'");
  }
  return found->words;
}

std::span<const ThingWord> thing_words() { return kThings; }
std::span<const PlaceWord> place_words() { return kPlaces; }
std::span<const AnimalWord> animal_words() { return kAnimals; }
Words girl_names() { return kGirls; }
Words boy_names() { return kBoys; }
Words pet_names() { return kPets; }
Words family_names() { return kFamilies; }

}  // namespace refract::stories
