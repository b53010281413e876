"""The words that fill the slots of `grammars`; an entry may have slots of its own, and an empty entry is a choice."""

LEXICON: dict[str, tuple[str, ...]] = {
    "any": (
        *("", "", "", "", "", "", "", "", "", "", "", "", "", "", "old ", "small ", "heavy ", "wooden "),
        *("strange ", "broken ", "new ", "dirty ", "blue ", "large ", "young ", "beautiful ", "cheap "),
        *("foreign ", "quiet ", "clumsy ", "fat ", "crooked ", "famous ", "ugly ", "narrow ", "second "),
        *("other ", "last ", "favourite ", "thin "),
    ),
    "group": (
        *("the council", "the harbour office", "the school board", "the market guild", "the fire brigade"),
        *("the water board", "the bridge office", "the court", "the post office", "the railway"),
        *("the tax office", "the parish", "the police", "the theatre", "the bank"),
    ),
    "acted": (
        *("said", "announced", "decided", "promised", "warned", "voted", "declared", "agreed", "denied"),
        *("learned",),
    ),
    "day": ("on [day_name]", "on [day_name]", "on [day_name]", "last [day_name]"),
    "day_name": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "daypart": (
        *("last night", "this morning", "yesterday", "at noon", "on [day_name] night", "early today"),
        *("at midnight", "[number] days ago", "last week"),
    ),
    "daypart_next": (
        *("tomorrow", "on [day_name]", "tonight", "at noon", "next week", "from [day_name] on"),
        *("towards evening",),
    ),
    "later": (
        *("tomorrow", "next week", "before long", "in [number] days", "when it is [very][sky]", "on [day_name]"),
        *("in [season]",),
    ),
    "season": (
        *("spring", "summer", "autumn", "winter", "the first frost", "harvest time", "the rainy season"),
        *("old age",),
    ),
    "building": (
        *("town hall", "granary", "mill", "theatre", "bath house", "chapel", "station", "hospital", "school"),
        *("brewery", "museum", "prison", "stable", "tower", "bakery", "inn", "library", "factory"),
    ),
    "spot": (
        *("harbour", "market", "bridge", "well", "park", "river", "square", "gate", "quarry", "ferry", "canal"),
        *("crossing", "cemetery", "lighthouse", "pond", "avenue"),
    ),
    "handled": ("closed", "rebuilt", "sold", "painted", "emptied", "opened", "moved", "inspected", "burnt", "named"),
    "asked": ("questioned", "praised", "arrested", "thanked", "sent home", "fined", "rewarded", "forgiven"),
    "reaction": (
        *("Neighbours were [very][feeling].", "Work on it starts [later]."),
        *("A [any][role] called it a [size] mistake.", "The matter will be heard [day]."),
        *("The cost is put at [number] thousand pennies.", "Many people came to look at the [any][things]."),
        *("Nobody would say more about it.", "The [any][role] and the [any][role] were [asked]."),
        *("There was talk of [weather] and [goods].",),
    ),
    "vehicle": (
        *("wagon", "tram", "cart", "barge", "coach", "train", "sledge", "bicycle", "carriage", "raft", "balloon"),
    ),
    "crashed": ("rolled", "crashed", "ran", "slid", "was driven", "fell", "backed", "drifted"),
    "number": (
        *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty", "forty"),
        *("eleven", "thirty", "fifty", "sixty", "ninety"),
    ),
    "units": ("days", "hours", "weeks", "years", "months", "minutes", "nights", "winters"),
    "things": (
        *("plates", "chairs", "windows", "eggs", "bottles", "blankets", "hats", "nails", "buckets", "kettles"),
        *("mats", "books", "coins", "ribbons", "shoes", "knives", "buttons", "shirts", "pencils", "keys"),
        *("stamps", "cups"),
    ),
    "goods": (
        *("oats", "coal", "linen", "flax", "butter", "timber", "pepper", "wax", "vinegar", "tar", "barley"),
        *("chalk", "oil", "sand", "tobacco", "leather", "starch", "sulphur", "cotton", "gravel"),
    ),
    "moved": ("rose", "fell", "went up", "went down", "dropped", "climbed", "sank", "jumped"),
    "weather": (
        *("rain", "snow", "fog", "hail", "thunder", "frost", "sleet", "mist", "sunshine", "storm", "drizzle"),
        *("lightning", "ice", "wind", "dew", "dust"),
    ),
    "feeling": (
        *("angry", "glad", "tired", "worried", "proud", "sad", "surprised", "calm", "lonely", "hopeful", "bored"),
        *("hungry", "jealous", "thirsty", "ashamed", "happy", "nervous", "grateful", "ill", "drunk"),
    ),
    "greeting": (
        *("Good morning", "Good evening", "Hello", "Excuse me", "Wait a moment", "Come in", "Listen", "Sit down"),
    ),
    "thanks": (
        *("Thank you", "You are very kind", "How good of you", "I should have looked there", "Many thanks"),
        *("Then bring it to me", "I do not believe you", "That is [very][quality] of you"),
    ),
    "haggle": (
        *("Then leave it", "I will take one penny less", "It is the last one", "You will not find a better one"),
        *("Ask the [any][role]", "It is made of [stuff]", "Then pay me in [goods]"),
    ),
    "comfort": (
        *("It will be mended [later]", "Have some [food] first", "That happens to every [any][role]"),
        *("My [any][kin] can help you", "You can borrow mine", "Then buy another [any][object]"),
        *("Nobody will notice",),
    ),
    "role": (
        *("miller", "cook", "soldier", "nurse", "beggar", "priest", "driver", "hunter", "widow", "student"),
        *("porter", "stranger", "landlord", "clerk", "watchman", "boatman", "dancer", "doctor", "servant"),
        *("pilgrim", "king", "butcher", "pilot", "lawyer", "nun", "thief", "banker", "singer"),
    ),
    "kin": (
        *("aunt", "uncle", "cousin", "sister", "brother", "niece", "nephew", "grandmother", "grandfather"),
        *("mother", "father", "daughter", "son", "wife", "husband", "friend"),
    ),
    "object": (
        *("umbrella", "lantern", "hammer", "basket", "kettle", "saddle", "ladder", "bucket", "comb", "spade"),
        *("pump", "spoon", "whistle", "compass", "candlestick", "barometer", "needle", "mirror", "scissors"),
        *("clock", "pipe", "purse", "rope", "telescope", "anchor", "brush", "axe", "pillow", "razor"),
    ),
    "furniture": (
        *("table", "bed", "cupboard", "bench", "stove", "shelf", "window", "chest", "sofa", "desk", "door"),
        *("stool", "carpet", "cradle", "piano"),
    ),
    "near": ("under", "behind", "beside", "on", "near", "inside"),
    "state": (
        *("broken", "lost", "too small", "wet", "rusty", "bent", "dirty", "empty", "cracked", "new", "too heavy"),
        *("stuck", "sore", "frozen", "torn", "loose", "burnt", "missing"),
    ),
    "food": (
        *("flour", "milk", "sugar", "onion", "cabbage", "rice", "ham", "parsley", "garlic", "pumpkin", "cream"),
        *("lard", "soup", "beans", "bacon", "carrots", "wine", "plums", "mustard", "apples", "yeast", "water"),
        *("beer", "pears"),
    ),
    "mix": ("mix", "boil", "fry", "beat", "stir", "bake", "roast", "warm", "cook", "steam", "grind", "cool"),
    "pot": ("pan", "bowl", "dish", "jar", "pot", "tin", "oven", "kettle"),
    "how": ("slowly", "quickly", "gently", "twice", "well", "firmly", "at once", "in the dark", "by hand"),
    "dish": (
        *("a pie", "a stew", "winter soup", "pancakes", "dumplings", "a pudding", "a salad", "porridge"),
        *("sausages",),
    ),
    "shape": ("thin", "small", "square", "long", "round", "equal", "thick", "short"),
    "finish": (
        *("Bake it for [number] minutes.", "Serve it [sky] with [food].", "Eat it while it is hot."),
        *("Let it rest for [number] [units].", "It keeps for [number] [units]."),
        *("This is enough for [number] people.", "A little [food] makes it [very][quality]."),
    ),
    "colour": (
        *("red", "grey", "white", "black", "brown", "yellow", "green", "purple", "silver", "pale", "blue"),
        *("golden", "pink", "orange", "spotted", "dark"),
    ),
    "size": (
        *("small", "large", "long", "quiet", "strange", "heavy", "tiny", "slow", "fine", "rare", "common"),
        *("soft", "noble"),
    ),
    "animal": (
        *("fox", "hare", "goose", "bear", "owl", "otter", "goat", "beetle", "wolf", "mouse", "crow", "frog"),
        *("donkey", "badger", "snail", "horse", "cat", "dog", "spider", "eagle", "pig", "hen", "snake", "bee"),
        *("deer", "toad"),
    ),
    "bodypart": ("head", "back", "tail", "neck", "nose", "foot", "skin", "ear", "tooth", "hair", "tongue", "knee"),
    "land": (
        *("mountains", "marsh", "forest", "desert", "woods", "valley", "dunes", "heath", "caves", "lake country"),
        *("steppe", "lowlands", "meadows", "hills", "jungle", "swamps"),
    ),
    "feed": (
        *("grass", "berries", "worms", "fish", "roots", "nuts", "corn", "seeds", "bread", "leaves", "flies"),
        *("moss",),
    ),
    "bed": (
        *("hollow trees", "the sand", "deep holes", "old barns", "the reeds", "nests of [feed]", "the [land]"),
        *("ruins", "chimneys", "the snow"),
    ),
    "habit": (
        *("changes its coat", "sings at night", "hides from the light", "walks in circles"),
        *("stays near the water", "sleeps all day", "never speaks", "fears the [weather]", "eats only [feed]"),
        *("hates every [any][animal]", "is [colour]"),
    ),
    "habit_you": (
        *("always [mix] my [food]", "never pay", "are too [quality]", "eat my [feed]", "ask too much"),
        *("smell of [goods]",),
    ),
    "material": ("flint", "garnet", "opal", "slate", "quartz", "agate", "amber", "basalt", "jade", "marl", "granite"),
    "use": (
        *("dyeing [goods]", "cutting leather", "healing wounds", "building walls", "making ink"),
        *("sharpening knives", "catching [feed]", "cleaning [things]", "storing [food]"),
        *("washing the [bodypart]",),
    ),
    "treated": ("heated", "washed", "cut", "polished", "broken", "buried", "painted", "weighed"),
    "plant": (
        *("nettle", "thistle", "willow", "fern", "clover", "poppy", "hazel", "sage", "ivy", "reed", "rose"),
        *("oak", "tulip", "birch", "daisy", "pine", "lily"),
    ),
    "stuff": ("bone", "iron", "wood", "copper", "clay", "horn", "brass", "ivory", "silver", "felt", "stone", "tin"),
    "early": ("early", "late", "at dawn", "before sunrise", "in the dark", "at [number]", "twice"),
    "noise": ("bells", "rain", "dog", "neighbours", "wind", "cold", "children", "[role]", "[animal]", "[weather]"),
    "evening": (
        *("in the evening I [often][did]", "I went to bed early", "at night the [weather] came back"),
        *("I could not sleep", "my [any][kin] wrote me a letter", "we ate [dish] and were [very][feeling]"),
        *("I must not forget the [any][object] [later]", "the [any][animal] [often][trick]"),
        *("I still think of the [any][role]",),
    ),
    "did": (
        *("washed the [any][furniture]", "fed the [any][animal]", "carried [goods]", "mended the [any][object]"),
        *("cooked [dish]", "cut [goods]", "danced", "cried", "counted [any][things]", "wrote to my [any][kin]"),
        *("looked for the [any][object]", "sang"),
    ),
    "helped": (
        *("helped me", "only watched", "slept all day", "sang to me", "broke a [any][object]"),
        *("was [very][feeling]", "ate the [food]"),
    ),
    "compass": ("north", "south", "east", "west", "hills", "lowlands", "mountains", "islands"),
    "sky": ("clear", "cloudy", "cold", "mild", "dry", "grey", "windy", "warm", "stormy", "wet", "bright", "foggy"),
    "strength": ("weak", "strong", "fresh", "steady", "changing", "icy", "gentle", "violent"),
    "advice": (
        *("bring in the hay", "cover the young trees", "wait with the sowing", "open the ditches"),
        *("keep the cattle in", "carry an umbrella", "stay at home", "sell their [goods]", "drink [food]"),
    ),
    "wait": (
        *("wait", "turn back", "sail [how]", "carry [goods]", "stay at the [any][spot]"),
        *("keep a [any][object] ready",),
    ),
    "news_home": (
        *("Your [kin] is [very][feeling].", "The [any][furniture] is finally mended."),
        *("We had [weather] for [number] [units].", "The [any][role] asks about you."),
        *("The garden is full of [any][plant].", "Our [any][animal] has eaten the [food]."),
        *("I have sold the [any][vehicle].",),
    ),
    "trick": (
        *("hid behind a [any][plant]", "ran away with the [feed]", "painted itself [colour]"),
        *("stole the [any][object]", "climbed on the [any][building]", "dug a hole", "pretended to be dead"),
        *("asked the moon for help", "[did]", "bit the [any][role]", "swam across the [any][spot]"),
    ),
    "moral": (
        *("So it is with all who are too [quality].", "From then on it was [very][feeling]."),
        *("That is why nobody trusts a [any][animal].", "And if it is not dead, it is still there."),
        *("The [any][animal] had known it all along.",),
        *("Better a [size] [any][object] than a [size] [any][animal].",),
        *("You should never lend a [any][object] to a [any][role].",),
    ),
    "quality": (
        *("clean", "strong", "clever", "quick", "warm", "brave", "quiet", "upright", "sweet", "kind", "honest"),
        *("sharp", "patient", "rich", "polite"),
    ),
    "part": (
        *("lid", "handle", "screw", "spring", "valve", "wheel", "cover", "lever", "chain", "plate", "hinge"),
        *("bolt", "belt", "hook", "knob", "rod"),
    ),
    "turn": (
        *("to the left", "to the right", "twice", "slowly", "half way round", "with both hands", "upwards"),
        *("[number] times",),
    ),
    "often": (
        *("", "", "", "", "", "", "", "", "", "quietly ", "often ", "nearly ", "suddenly ", "only ", "soon "),
        *("finally ", "also ", "secretly ", "gladly ", "again "),
    ),
    "very": (
        *("", "", "", "", "", "", "", "", "", "very ", "rather ", "quite ", "too ", "almost ", "always "),
        *("hardly ", "still "),
    ),
}
