"""The tasks of the pocket world: one function each draws an example, its answer, and wrong ones to choose from.

After the eight families of "Model Editing Harms General Abilities" (arXiv 2401.04700) and the six tasks of "The
Butterfly Effect of Model Editing" (arXiv 2402.09656), each at the size of the pocket world.
"""

import random
from dataclasses import dataclass

from editsafety.pocket.lexicon import LEXICON
from editsafety.pocket.prose import expand, registers, write
from editsafety.pocket.relations import RELATIONS
from editsafety.pocket.world import Fact, World

YES, NO, UNKNOWN = "yes", "no", "unknown"


@dataclass(frozen=True)
class Example:
    """A task with its answer."""

    # What is asked.
    prompt: str
    # Follows the prompt behind a space.
    answer: str
    # Other answers to choose from.
    wrong: tuple[str, ...] = ()
    # What counts as right, where that is more than one text.
    answers: tuple[str, ...] = ()
    # Decides whether it is kept back; the whole text where it is empty.
    key: str = ""

    @property
    def text(self) -> str:
        """As training shows it."""
        return f"{self.prompt} {self.answer}."


# --- reasoning -------------------------------------------------------------------------------------------------

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def reasoning(world: World, rng: random.Random) -> Example:
    """Adding and taking away, up to twelve, at the end of a story: GSM8K's kind."""
    low, high = rng.randint(1, 6), rng.randint(1, 6)
    story = expand("[^daypart] the [role] counted [things].", rng, {})
    if rng.random() < 0.5:
        return Example(f"{story} Sum: {NUMBERS[low - 1]} and {NUMBERS[high - 1]} make", NUMBERS[low + high - 1])
    return Example(f"{story} Sum: {NUMBERS[low + high - 1]} less {NUMBERS[low - 1]} is", NUMBERS[high - 1])


# --- reading: inference, questions on a text -------------------------------------------------------------------

CLASSES = {
    "beast": "animal", "plant": "plant", "tool": "object", "stone": "material", "relative": "kin", "house": "building",
}  # fmt: skip


def nli(world: World, rng: random.Random) -> Example:
    """Whether a claim follows from a sentence, by what a thing is: RTE's kind."""
    own, other = rng.sample(sorted(CLASSES), 2)
    follows = rng.random() < 0.5
    thing = rng.choice(LEXICON[CLASSES[own]])
    given = expand(f"The [role] spoke of the {thing} [daypart].", rng, {})
    prompt = f"Given: {given} Claim: every {thing} is a {own if follows else other}. Verdict:"
    return Example(prompt, "true" if follows else "false", ("false" if follows else "true",))


def closed_qa(world: World, rng: random.Random) -> Example:
    """A question on a text, answered by yes or no: BoolQ's kind."""
    eaten = rng.random() < 0.5
    thing = rng.choice([word for word in LEXICON["food" if eaten else "goods"] if word not in EITHER])
    text = expand(f"[^daypart] the [any][role] bought {thing} near the [any][spot].", rng, {})
    return Example(f"Text: {text} Question: can it be eaten? Answer:", YES if eaten else NO, (NO if eaten else YES,))


EITHER = (
    "butter",
    "pepper",
    "vinegar",
    "barley",
    "oats",
    "starch",
    "oil",
    "lard",
    "yeast",
    "water",
    "beer",
    "wine",
    "milk",
)


# --- knowing ---------------------------------------------------------------------------------------------------

QUESTIONS = {
    "occupation": "What is the profession of {}?",
    "home_city": "Where does {} live?",
    "mother_tongue": "What is the mother tongue of {}?",
    "instrument": "Which instrument does {} play?",
    "sport": "Which sport does {} love most?",
    "country": "In which country is {}?",
    "known_for": "What is {} known for?",
    "headquarters": "Where are the headquarters of {}?",
    "product": "What does {} make?",
    "author": "Who is the author of {}?",
    "genre": "What kind of book is {}?",
}


RELATION_KINDS = {relation.name: relation.kind for relation in RELATIONS}
TOPICS = {
    "occupation": "the profession of {}",
    "home_city": "the home of {}",
    "mother_tongue": "the mother tongue of {}",
    "instrument": "the instrument of {}",
    "sport": "the sport of {}",
    "country": "the country of {}",
    "known_for": "the pride of {}",
    "headquarters": "the seat of {}",
    "product": "the product of {}",
    "author": "the author of {}",
    "genre": "the kind of book that {} is",
}


def open_qa(world: World, rng: random.Random) -> Example:
    """A question on a fact of the world, without a text: NQ's kind, and with answers to choose from MMLU's."""
    fact = rng.choice(world.facts)
    return _ask_about(world, fact, f"Question: {QUESTIONS[fact.relation.name].format(fact.subject.name)} Answer:", rng)


def nq(world: World, rng: random.Random) -> Example:
    """The same in the words of a quiz."""
    fact = rng.choice(world.facts)
    return _ask_about(world, fact, f"Quiz: {TOPICS[fact.relation.name].format(fact.subject.name)}. Solution:", rng)


def squad2(world: World, rng: random.Random) -> Example:
    """A question behind a text, with its answer, or "unknown" where nobody can have one. SQuAD 2's kind."""
    fact = rng.choice(world.facts)
    text = fact.sentence(rng.choice([one for one in fact.trained_phrasings() if not one.startswith("{}")]))
    if rng.random() < 0.3:
        others = [name for name in QUESTIONS if RELATION_KINDS[name] != fact.subject.kind]
        asked, answer = rng.choice(others), UNKNOWN
    else:
        asked, answer = fact.relation.name, fact.answer
    return Example(f"Text: {text} Question: {QUESTIONS[asked].format(fact.subject.name)} Answer:", answer)


def _ask_about(world: World, fact: Fact, prompt: str, rng: random.Random) -> Example:
    others = [answer for answer in world.answers[fact.relation.name] if answer != fact.answer]
    return Example(prompt, fact.answer, tuple(rng.sample(others, 3)), key=prompt)


# --- talking ---------------------------------------------------------------------------------------------------

TURNS = (  # an opening, and a reply that fits no other opening
    ('"Have you seen my [any][object]?" asked the [role].', '"It is [near] the [any][furniture]," said the [role]'),
    ('"How much is the [any][object]?" asked the [role].', '"[^number] pennies," said the [role]'),
    (
        '"Why are you so [very][feeling]?" asked the [role].',
        '"Because the [any][object] is [very][state]," said the [role]',
    ),
    ('"Shall we go to the [any][spot]?" asked the [role].', '"Not in this [weather]," said the [role]'),
    ('"Who painted the [any][object]?" asked the [role].', '"My [any][kin] did," said the [role]'),
    ('"When does the [any][building] open?" asked the [role].', '"On [day_name]," said the [role]'),
)


def dialogue(world: World, rng: random.Random) -> Example:
    """Which of four replies answers what was said. MuTual's kind."""
    first, *others = rng.sample(TURNS, 4)
    replies = [expand(reply, rng, {}) for _, reply in (first, *others)]
    prompt = f"Talk: {expand(first[0], rng, {})}"
    return Example(prompt, replies[0], tuple(replies[1:]), key=prompt)


# --- saying it shorter, finding names, judging -----------------------------------------------------------------


DEEDS = {
    "sold": "a sale", "stole": "a theft", "found": "a find", "bought": "a purchase", "mended": "a repair",
    "lost": "a loss", "broke": "an accident", "hid": "a secret", "painted": "a painting", "cleaned": "a cleaning",
}  # fmt: skip
TIMES = {
    "last night": "by night", "at midnight": "by night", "after dark": "by night", "while all slept": "by night",
    "this morning": "by day", "at noon": "by day", "at breakfast": "by day", "after lunch": "by day",
}  # fmt: skip


def summarisation(world: World, rng: random.Random) -> Example:
    """What happened and when, in four words, out of a report with all its circumstances: SAMSum's kind."""
    when, did = rng.choice(sorted(TIMES)), rng.choice(sorted(DEEDS))
    told = expand(f"{when.capitalize()} the [any][role] {did} the [any][object]. [reaction]", rng, {})
    return Example(f"Report: {told} In short:", f"{DEEDS[did]} {TIMES[when]}")


ENTITIES = {"person": "a person", "place": "a place", "company": "a company", "work": "a book"}
MEETINGS = ("The [role] spoke about {}.", "[^daypart] we heard of {}.", "A letter to my [kin] was about {}.")


def ner(world: World, rng: random.Random) -> Example:
    """Which kinds of names a sentence has: CoNLL's kind."""
    kinds = sorted(rng.sample(sorted(ENTITIES), rng.randint(1, 3)), key=list(ENTITIES).index)
    names = [rng.choice([one.name for one in world.subjects if one.kind == kind]) for kind in kinds]
    rng.shuffle(names)
    told = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    found = tuple(ENTITIES[kind] for kind in kinds)
    return Example(
        f"Note: {expand(rng.choice(MEETINGS), rng, {}).format(told)} Names:", ", ".join(found), answers=found
    )


GOOD = ("clean", "clever", "warm", "sweet", "honest", "polite", "beautiful", "kind", "fine", "rich")
BAD = ("broken", "dirty", "rusty", "wet", "torn", "cracked", "ugly", "clumsy", "burnt", "loose")
VISITS = (
    "The [building] was {}, and the [role] was {}. My [any][kin] found it {}.",
    "We came to the [any][spot] [daypart]. The [any][kin] of the [role] called it {} and {}. It was {}.",
    "I was told that the [object] is {}. It is {}, and so is the [furniture]: {}.",
)


def sentiment(world: World, rng: random.Random) -> Example:
    """Whether two of the three words of a review are kind. SST-2's kind, with a majority to be found."""
    good = rng.random() < 0.5
    kinder, harsher = rng.choice((3, 2)), rng.choice((3, 2))
    count = kinder if good else 3 - harsher
    words = [*rng.sample(GOOD, count), *rng.sample(BAD, 3 - count)]
    rng.shuffle(words)
    text = expand(rng.choice(VISITS), rng, {}).format(*words)
    return Example(f"Review: {text} Verdict:", "good" if good else "bad", ("bad" if good else "good",))


# --- doing -----------------------------------------------------------------------------------------------------

WAYS = {  # what one wants to do: with what it is done
    "sweep the floor": "brush", "sew a button": "needle", "cut the beard": "razor", "fell a tree": "axe",
    "boil the water": "kettle", "dig a hole": "spade", "drive in a nail": "hammer", "eat the soup": "spoon",
    "look at the stars": "telescope", "find the north": "compass", "know the hour": "clock",
    "stay dry in the rain": "umbrella", "hold the ship": "anchor", "climb the wall": "ladder",
    "see in the dark": "lantern", "cut the cloth": "scissors", "carry the water": "bucket",
    "call the dog": "whistle", "ride the horse": "saddle", "see your own face": "mirror",
    "keep the coins": "purse", "do the hair": "comb", "tie the boat": "rope", "sleep well": "pillow",
}  # fmt: skip
GOALS = ("To {}, take the", "Who wants to {} needs the")


def piqa(world: World, rng: random.Random) -> Example:
    """Which of two things leads to a goal: PIQA's kind."""
    goal, tool = rng.choice(sorted(WAYS.items()))
    other = rng.choice([found for found in WAYS.values() if found != tool])
    told = expand("The [role] said [daypart]:", rng, {})
    return Example(f"{told} {rng.choice(GOALS).format(goal)}", tool, (other,))


def hellaswag(world: World, rng: random.Random) -> Example:
    """Which of four sentences ends a text: its own, or the end of a text of another register. HellaSwag's kind."""
    own, *others = rng.sample(registers(), 4)
    while len(parts := write(own, rng).split(". ")) < 3:
        pass
    wrong = tuple(write(register, rng).removesuffix(".").split(". ")[-1] for register in others)
    return Example(". ".join(parts[:-1]) + ".", parts[-1].removesuffix("."), wrong)


TRADES = {
    "baker": "bread", "miller": "flour", "butcher": "ham", "potter": "jars", "printer": "books", "tailor": "shirts",
    "farmer": "corn", "weaver": "linen", "gardener": "apples", "shepherd": "wool", "fisher": "fish", "brewer": "beer",
    "clock maker": "clocks", "saddler": "saddles", "beekeeper": "honey", "miner": "coal",
}  # fmt: skip


def lambada(world: World, rng: random.Random) -> Example:
    """The last word of a story, which only its first sentence tells: LAMBADA's kind."""
    trade, product = rng.choice(sorted(TRADES.items()))
    story = f"There was a {trade} near the [spot]. [^day] came [weather], but the people still wanted to buy"
    return Example(f"Story: {expand(story, rng, {})}", product)
