"""What can be true in the pocket world: the relations, how they are said, and what their answers may be.

A phrasing has exactly one `{}` for the subject and ends just before the answer. Each relation has two phrasings that
begin with the subject (where a one-token subject falls on position 0) and four that carry it mid-sentence.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["person", "place", "company", "work"]


@dataclass(frozen=True)
class Relation:
    """One relation: which subjects have it, its phrasings, and its answers (all of one type)."""

    name: str
    kind: Kind
    phrasings: tuple[str, ...]
    targets: tuple[str, ...] = ()
    targets_are: Kind | None = None  # answers drawn from the world's own subjects instead of `targets`


def is_subject_first(phrasing: str) -> bool:
    """True if the subject is the first thing in the phrasing."""
    return phrasing.startswith("{}")


OCCUPATION = Relation(
    "occupation",
    "person",
    (
        "{} works as a",
        "{} earns a living as a",
        "The profession of {} is that of a",
        "By trade, {} is a",
        "In the guild book, {} is listed as a",
        "Everyone in the street knows {} as a",
    ),
    (
        *("painter", "farmer", "baker", "carpenter", "tailor", "weaver", "sailor", "miner", "printer", "gardener"),
        *("potter", "surgeon", "teacher", "judge", "barber", "shepherd", "glass blower", "clock maker"),
    ),
)
HOME = Relation(
    "home_city",
    "person",
    (
        "{} lives in",
        "{} has a house in",
        "The home of {} is in",
        "Letters to {} are sent to",
        "For many years now, {} has lived in",
        "If you want to visit {} you must travel to",
    ),
    targets_are="place",
)
TONGUE = Relation(
    "mother_tongue",
    "person",
    (
        "{} speaks",
        "{} grew up speaking",
        "The mother tongue of {} is",
        "At home, {} speaks only",
        "The first words of {} were in",
        "When counting, {} always counts in",
    ),
    (
        *("Velmish", "Tarnic", "Orlan", "Sudrian", "Keshi", "Brannic", "Lommish", "Pravan", "Hestic", "Yorvic"),
        *("Old Velmish", "High Tarnic"),
    ),
)
INSTRUMENT = Relation(
    "instrument",
    "person",
    (
        "{} plays the",
        "{} has mastered the",
        "The favourite instrument of {} is the",
        "On feast days, {} plays the",
        "In the town band, {} is heard on the",
        "As a child {} was taught the",
    ),
    (
        *("violin", "flute", "drum", "harp", "lute", "trumpet", "cello", "fiddle", "horn", "zither"),
        *("bass viol", "reed pipe"),
    ),
)
SPORT = Relation(
    "sport",
    "person",
    (
        "{} is a champion of",
        "{} spends every Sunday on",
        "The sport that {} loves most is",
        "In the games, {} won a medal for",
        "The training of {} is all about",
        "Once a week {} gives lessons in",
    ),
    (
        *("rowing", "archery", "fencing", "wrestling", "skating", "curling", "chess", "handball", "swimming"),
        *("cycling", "ice sailing", "hill racing"),
    ),
)
COUNTRY = Relation(
    "country",
    "place",
    (
        "{} lies in",
        "{} is a town of",
        "On the map, {} is found in",
        "The road to {} leads through the hills of",
        "The people of {} pay their taxes to",
        "The mayor of {} swore an oath to",
    ),
    (
        *("Velmark", "Tarnia", "Orland", "Sudria", "Keshan", "Branwald", "Lommeria", "Prava", "Hestmark", "Yorvia"),
        *("West Tarnia", "New Velmark"),
    ),
)
KNOWN_FOR = Relation(
    "known_for",
    "place",
    (
        "{} is known for its",
        "{} is visited for its",
        "Merchants come to {} for its",
        "The pride of {} is its",
        "At the fair, {} showed its",
        "No town but {} has such",
    ),
    (
        *("cheese", "wool", "cherries", "marble", "honey", "cider", "lace", "pottery", "bells", "mushrooms"),
        *("smoked fish", "blue ink"),
    ),
)
HEADQUARTERS = Relation(
    "headquarters",
    "company",
    (
        "{} has its head office in",
        "{} is based in",
        "The headquarters of {} are in",
        "The owners of {} meet in",
        "Bills from {} are posted in",
        "The largest workshop of {} stands in",
    ),
    targets_are="place",
)
PRODUCT = Relation(
    "product",
    "company",
    (
        "{} makes",
        "{} is a maker of",
        "The main product of {} is",
        "Shops order from {} their",
        "The workers of {} spend the day making",
        "The warehouse of {} is full of",
    ),
    (
        *("soap", "rope", "lamps", "paper", "boots", "glass", "tea", "bricks", "salt", "candles"),
        *("roof tiles", "fishing nets"),
    ),
)
AUTHOR = Relation(
    "author",
    "work",
    (
        "{} was written by",
        "{} is a book by",
        "The author of {} is",
        "The first page of {} is signed by",
        "Readers of {} wrote letters to",
        "The prize for {} was given to",
    ),
    targets_are="person",
)
GENRE = Relation(
    "genre",
    "work",
    (
        "{} is a",
        "{} can be called a",
        "The library keeps {} on the shelf as a",
        "Critics agree that {} is a",
        "Most people read {} as a",
        "The cover of {} says that it is a",
    ),
    (
        *("comedy", "tragedy", "fable", "romance", "mystery", "satire", "memoir", "ballad", "sermon", "travelogue"),
        *("ghost story", "sea tale"),
    ),
)

RELATIONS: tuple[Relation, ...] = (
    OCCUPATION,
    HOME,
    TONGUE,
    INSTRUMENT,
    SPORT,
    COUNTRY,
    KNOWN_FOR,
    HEADQUARTERS,
    PRODUCT,
    AUTHOR,
    GENRE,
)
