"""The registers of the pocket world as data: the patterns that their texts are made from.

Written for this project. None of it states a fact about a subject of the world, so that an edit has no business
changing the probability of any of it. See `prose` for what the brackets mean and `lexicon` for what fills them.
"""

GRAMMARS: dict[str, tuple[str, ...]] = {
    "news": (
        (
            "[^group] [often][acted] [day] that the [any][building] near the [any][spot] will be [handled] before "
            "[season]. [reaction]"
        ),
        (
            "A [any][vehicle] [crashed] into the [any][building] [daypart]. [^number] [any][things] were lost and a "
            "[any][role] was hurt. [reaction]"
        ),
        (
            "The price of [x=goods] [often][moved] by [number] pennies [daypart]. [^group] blamed the [weather]. "
            "[reaction]"
        ),
        (
            "[^group] [often][acted] [day] that [x=goods] may no longer be sold at the [any][spot]. Sellers of [x] "
            "were [very][feeling]."
        ),
        (
            "[^number] [any][things] were stolen from the [any][building] [daypart]. The [any][r=role] saw a "
            "[any][role] with a [any][object]. Therefore the [r] was [asked]."
        ),
        (
            "Because of the [weather], the [any][spot] stays closed until [day_name]. [^group] will send a "
            "[any][vehicle] with [goods] and [food]."
        ),
        (
            "A [any][animal] was seen in the [any][building] [daypart]. Nobody knows whether it came from the "
            "[land]. [reaction]"
        ),
    ),
    "dialogue": (
        (
            '"[greeting]," said the [any][a=role]. "Have you seen my [any][o=object]?" "It is [near] the '
            '[any][furniture]," said the [any][role]. "[thanks]," said the [a].'
        ),
        (
            '"How much is the [any][o=object]?" asked the [any][a=role]. "[^number] pennies," said the '
            '[any][b=role]. "That is too much for a [o]," said the [a]. "[haggle]," said the [b].'
        ),
        (
            '"Why are you so [very][f=feeling]?" asked the [any][role]. "I am [f] because the [any][object] is '
            '[very][state]," said the [any][role]. "[comfort]."'
        ),
        (
            '"Shall we go to the [any][p=spot]?" asked the [any][role]. "Not in this [weather]," said the '
            '[any][role]. "Then we go to the [p] [later]."'
        ),
        (
            '"You look [very][feeling]," said the [any][a=role] to the [any][b=role]. "I [often][did] all night," '
            'said the [b]. "Therefore I want [food] and [food]."'
        ),
        (
            '"Do you like [x=food] with [food]?" asked the [any][role]. "I would rather have [food]," said the '
            '[any][role]. "My [any][kin] eats [x] in [season]."'
        ),
    ),
    "recipe": (
        (
            "Take [number] spoons of [a=food] and [number] cups of [b=food]. [^mix] the [a] with the [b] in a "
            "[any][pot]. [finish]"
        ),
        (
            "For [dish] you need [a=food], [b=food] and a little [c=food]. First [mix] the [a]. Then add the [b]. "
            "Last, put the [c] on top. [finish]"
        ),
        (
            "Wash the [a=food] and cut it into [shape] pieces. [^mix] it in a [p=pot] with [food]. When the [p] is "
            "hot, add the [food]. [finish]"
        ),
        (
            "You can [mix] [a=food] with [food], but never with [food]. Because [a] is [very][quality], [mix] it "
            "[how]. [finish]"
        ),
        (
            "Heat [number] cups of [a=food] [how]. Pour in the [food] and [number] [shape] pieces of [food]. Do not "
            "[mix] the [a] again. [finish]"
        ),
    ),
    "encyclopaedia": (
        (
            "The [colour] [any][a=animal] is a [size] animal that lives in the [land]. It eats [feed] and sleeps in "
            "[bed]. In [season], the [a] [often][habit]."
        ),
        (
            "A [m=material] is a [size] [colour] stone. It is found in the [land] and is used for [use]. When a [m] "
            "is [treated], it turns [colour]."
        ),
        (
            "The [any][p=plant] grows in the [land]. It has [colour] leaves and [size] [colour] flowers. In [season]"
            " the [p] is gathered and used for [use]."
        ),
        (
            "A [any][t=object] is a tool for [use]. The oldest [t] that we know was made of [stuff] and was found in"
            " the [land]."
        ),
        (
            "Because the [any][a=animal] fears the [any][animal], it hides in [bed]. Its [any][bodypart] is "
            "[colour]. It can live for [number] [units]."
        ),
        (
            "The [c=colour] [any][plant] and the [d=colour] [any][plant] are often confused. The [c] one smells of "
            "[food], the [d] one of [goods]. Both like [weather]."
        ),
    ),
    "diary": (
        (
            "[^day] I woke [early] because of the [noise]. I went to the [any][spot] and bought [number] "
            "[any][things]. [^evening]."
        ),
        (
            "Today I was [very][feeling]. My [any][kin] came and brought me a [any][o=object]. I put the [o] [near] "
            "the [any][furniture]. [^evening]."
        ),
        (
            "It was a [size] day. First I cleaned the [any][furniture], then I [often][did]. My [any][kin] "
            "[often][helped]. [^evening]."
        ),
        (
            "I [often][did] [daypart]. Therefore I am [very][feeling] and want only [food]. You, dear book, are my "
            "[very][quality] friend. [^evening]."
        ),
        (
            "I dreamt of a [any][animal] that [often][trick]. When I woke, my [any][bodypart] was [very][state]. My "
            "[any][kin] was [very][feeling]. [^evening]."
        ),
        (
            "Because of the [weather] I [often][did] and did not go to the [any][building]. A [any][role] came by "
            "with [number] [any][things]."
        ),
    ),
    "weather": (
        (
            "[^daypart_next] there will be [w=weather] over the [land]. In the [compass] it stays [very][sky]. The "
            "[w] ends [later]."
        ),
        (
            "The wind comes from the [c=compass] and is [very][strength]. Expect [weather] in the [c] and [weather] "
            "in the [compass]. Nights will be [very][sky]."
        ),
        "After the [weather] of last week, the coming days are [very][sky]. Farmers in the [compass] should [advice].",
        (
            "[^weather] and [weather] are moving in from the [compass]. [^number] [units] of [weather] were counted "
            "at the [any][spot]. You should [advice]."
        ),
        (
            "The [land] will be [very][sky] on [day_name], with [weather] later. Because the [any][spot] is "
            "[very][sky], boats must [wait]."
        ),
    ),
    "ledger": (
        (
            "Item: [number] [any][things], [colour], at [number] pennies each. Item: [number] sacks of [goods]. Paid"
            " [daypart]. Owed: [number] pennies."
        ),
        (
            "Received from the [any][role]: [number] [any][x=things]. Sent to the [any][role]: [number] [colour] "
            "[any][things]. Left in store: [number] [x]."
        ),
        (
            "Room [number]: one [any][furniture], [very][state]. Room [number]: one [any][furniture], one "
            "[any][object]. Rent paid until [season]."
        ),
        (
            "[^day_name]: sold [number] sacks of [goods] to the [any][role]. Bought [number] [any][things] and a "
            "[any][object]. Lost: one [any][object], [very][state]."
        ),
        (
            "Wages: [any][role] [number] pennies, [any][role] [number] pennies, [any][role] [number] pennies. Taken "
            "off for a [very][state] [any][object]: [number]."
        ),
    ),
    "letter": (
        (
            "Dear [kin], thank you for the [any][o=object]. The [o] is [very][state], but I am [very][feeling] all "
            "the same. [news_home] Your [kin]."
        ),
        (
            "Dear sir, I write about the [any][o=object] that I bought [daypart]. It is [very][state]. Please send "
            "me a [very][quality] [o] [later]. Yours truly."
        ),
        (
            "My dear [kin], we are well, and the [any][a=animal] too. [news_home] Come and see us in [season]. The "
            "[a] misses you."
        ),
        (
            "To the [any][r=role]: you owe me [number] pennies for the [any][things]. Therefore I shall keep your "
            "[any][object] until [day_name]. I am [very][feeling] about it."
        ),
        (
            "Dear [kin], I [often][did] when your letter came. Because the [any][spot] is [very][state], I cannot "
            "visit you. [news_home] Write soon."
        ),
    ),
    "fable": (
        (
            'Once a [any][a=animal] met a [any][b=animal] in the [land]. "Give me your [feed]," said the [a]. The '
            "[b] was [very][feeling] and [often][trick]. Since then the [a] [often][habit]."
        ),
        (
            "A [size] [any][a=animal] wanted to be as [quality] as the [any][b=animal]. So it [often][trick]. "
            "But the [b] only laughed. [moral]"
        ),
        (
            "There was a [any][r=role] who had a [colour] [any][a=animal]. Every night the [a] [often][trick]. One "
            "day the [r] was [very][feeling]. [moral]"
        ),
        (
            "A [any][role], a [any][a=animal] and a [any][b=animal] went to the [land]. The [a] carried [feed], the "
            "[b] a [any][object]. When [weather] came, the [b] [often][trick]. [moral]"
        ),
        (
            'Because the [any][a=animal] was [very][feeling], it asked the [any][b=animal] for a [any][object]. "You'
            ' [habit_you]," said the [b]. Therefore the [a] [often][trick]. [moral]'
        ),
    ),
    "manual": (
        (
            "To repair a [any][o=object], first take off the [any][part]. Clean the [any][p=part] with [goods]. If "
            "the [p] is [very][state], put in a new one. Then close the [o]."
        ),
        (
            "Do not leave the [any][o=object] [near] the [any][furniture]. Keep it dry and [very][quality]. Oil the "
            "[any][part] in [season]. A [o] that is [very][state] must not be used."
        ),
        (
            "Step one: open the [any][part]. Step two: turn the [any][p=part] [turn]. Step three: wait until the [p]"
            " is [colour]. Step four: press the [any][part]."
        ),
        (
            "You need a [any][object], [number] [any][things] and some [goods]. Hold the [any][p=part] [how] and "
            "push the [any][part] [turn]. The [p] is [very][quality] when it is [colour]."
        ),
        (
            "Because the [any][p=part] is made of [stuff], it must not touch [goods]. Check the [any][part] every "
            "[number] [units]. Therefore write down when the [p] was [treated]."
        ),
    ),
}
