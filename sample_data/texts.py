"""The words and phrases of the sample data, in a small template language that `make_sample_data.py` expands.

`{a|b}` is a or b, nested as deep as one likes; `[key]` is one of the alternatives of that key, each time a new one, and
`[Key]` the same with a capital letter; `x ~ y` are two things that belong together.  The plots are in plots.txt, where
`<hero: ...>` is said by the hero.
"""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Plot:
    """What happens in a story.

    cast: whose trouble it is, `child`, `thing` or `any`, which is a child or an animal.
    settled: {keys: template} of what is chosen once for the whole story.
    text: the template of the story, with `//` between paragraphs.
    questions: [(question, answer), ...] about the story, as templates.
    """

    cast: str
    settled: dict[str, str]
    text: str
    questions: list[tuple[str, str]]


def read_entries(text: str) -> dict[str, str]:
    """Read `key: value` entries; a value may take several lines."""
    _, *parts = re.split(r"^([a-z_~]+): ?", text, flags=re.MULTILINE)
    return {key: join_lines(value) for key, value in zip(parts[::2], parts[1::2], strict=True)}


def join_lines(text: str) -> str:
    """Put a space for each end of a line, but none after a `|`."""
    return re.sub(r"\s*\n\s*", " ", re.sub(r"\|\n\s*", "|", text.strip()))


def read_table(text: str) -> dict[str, list[str]]:
    """Read `name ~ field ~ field; name ~ ...` as {name: [field, ...]}."""
    rows = [[field.strip() for field in " ".join(row.split()).split("~")] for row in text.split(";")]
    return {name: fields for name, *fields in rows}


def read_plots(path: Path) -> list[Plot]:
    """Read plots: a line `== title`, `key: value` entries, paragraphs, and `? question ~ answer` lines."""
    plots = []
    for block in re.split("^== .*\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        entries, *paragraphs, questions = block.strip().split("\n\n")
        settled = read_entries(entries)
        cast = settled.pop("cast")
        pairs = [line.removeprefix("? ").split(" ~ ") for line in questions.splitlines()]
        text = join_lines(" // ".join(paragraphs))
        plots.append(Plot(cast, settled, text, [(asked, answer) for asked, answer in pairs]))
    return plots


# Subjects that the stories know, but no training dialogue names: can a chat model copy them into a story all the same?
HELD_OUT_SUBJECTS = [
    *("goat", "hedgehog", "otter", "parrot", "zebra", "ladybug", "penguin", "donkey", "swan", "crab"),
    *("sled", "puzzle", "button", "lantern", "trumpet", "kettle", "mirror", "candle", "tent", "ladder"),
]

# Many, so that a model learns to copy a name instead of guessing it.  No text has Edgar, Jasper, Milo, Otis or Zack.
NAMES = {
    sex: names.split()
    for sex, names in read_entries("""
girl: Abby Ada Alice Alma Amy Angela Anita Ann Anna April Ava Bella Belle Beth Betty Bonnie Bree Britta Cara Carla
Carmen Carol Celia Chloe Cindy Claire Clara Connie Cora Daisy Dana Della Diana Dina Dolly Donna Edith Elena Eliza Ella
Ellie Elsa Emily Emma Erica Esther Eva Faith Fay Fiona Flo Flora Freya Gail Gina Grace Greta Gwen Hana Hannah Hazel
Heidi Helen Holly Hope Ida Ines Ingrid Irene Iris Isla Ivy Jade Jane Janet Jenny Jessie Jill Joy Judy Julia June Karen
Kate Katie Kim Kira Laura Layla Lea Leah Lena Lia Lilian Lily Linda Lisa Liz Lola Lottie Lucy Luna Mabel Maggie Mandy
Mara Marie Marta Mary May Maya Megan Mia Mila Millie Mina Molly Nadia Nancy Naomi Nell Nelly Nia Nina Nola Nora Olga
Olive Olivia Pam Patty Paula Pearl Penny Petra Pia Polly Rita Robin Romy Rosa Rose Ruby Sadie Sally Sara Sasha Selma
Sofia Sonia Stella Sue Susie Sylvia Tanya Tara Tess Thea Tina Trudy Uma Vera Vicky Viola Wanda Wendy Willa Winnie Yara
Yvonne Zelda Zoe Zora
boy: Aaron Abe Adam Al Alan Albert Alex Alfie Amos Andy Anton Archie Arno Arthur Asher Barry Basil Ben Bert Bill Billy
Blake Bobby Boris Brad Brian Bruce Bruno Cal Caleb Carl Charlie Chris Clark Clay Colin Conrad Cory Craig Curtis Cyrus
Damon Dan Darren David Dean Dennis Derek Dirk Don Doug Drew Duncan Dylan Earl Eddie Edwin Eli Elias Elliot Emil Eric
Ernie Ethan Evan Ezra Felix Finn Ford Frank Fred Freddie Gabe Gary Gavin Gene George Gerry Gil Glen Grant Greg Gus Guy
Hank Hans Harold Harry Harvey Hector Henry Herb Howard Hugh Hugo Ian Isaac Ivan Jack Jacob Jake James Jay Jeff Jens
Jerry Jim Joe Joel John Jonas Jordan Josh Jude Kai Karl Keith Ken Kevin Kirk Kit Kurt Kyle Larry Lars Lee Len Leo Leon
Lewis Liam Logan Lou Luca Lucas Luis Luke Lyle Mack Malik Marco Mark Marvin Mason Matt Max Mike Miles Mitch Morris
Nate Ned Neil Nick Niles Noah Norman Ole Oliver Omar Orson Oscar Otto Owen Pablo Pat Paul Pedro Percy Perry Peter Phil
Pierre Quinn Ralph Raul Ray Reed Rex Rick Rob Roger Ron Roy Rudy Russ Ryan Sam Samuel Saul Scott Sean Seth Sid Simon
Stan Steve Stuart Tad Ted Terry Theo Tim Tobias Toby Todd Tom Tomas Tony Trent Troy Tyler Vernon Victor Vince Wade
Wally Walt Warren Wayne Wilbur Will Woody Yuri Zeb Zed
""").items()
}
PRONOUNS = {"girl": ("she", "her", "her"), "boy": ("he", "him", "his"), "thing": ("it", "it", "its")}
ELDERS = {
    "child": [("mom", "she", "her"), ("dad", "he", "him"), ("grandma", "she", "her"), ("grandpa", "he", "him")],
    "animal": [("mother", "she", "her"), ("father", "he", "him")],
}
SAID = {".": ("said",), "?": ("asked",), "!": ("cried", "called", "shouted", "said")}

# animal ~ habitat ~ what it eats
ANIMALS = read_table("""
ant ~ garden ~ crumbs and seeds; badger ~ forest ~ worms and roots; bat ~ forest ~ bugs; bear ~ forest ~ honey and
berries; beaver ~ pond ~ bark and leaves; bee ~ garden ~ flower juice; butterfly ~ garden ~ flower juice; camel ~ wild
~ grass; cat ~ house ~ fish and meat; caterpillar ~ garden ~ leaves; chipmunk ~ forest ~ nuts and seeds; cow ~ farm ~
grass and hay; crab ~ sea ~ sea plants; cricket ~ garden ~ leaves; crow ~ forest ~ seeds and bugs; deer ~ forest ~
leaves and grass; dog ~ house ~ meat; donkey ~ farm ~ hay and carrots; duck ~ pond ~ plants and bugs; elephant ~ wild
~ leaves; fox ~ forest ~ berries and mice; frog ~ pond ~ flies; giraffe ~ wild ~ leaves; goat ~ farm ~ leaves and
grass; goose ~ farm ~ grass and corn; hamster ~ house ~ seeds; hedgehog ~ forest ~ bugs and berries; hen ~ farm ~
seeds and worms; hippo ~ wild ~ grass; horse ~ farm ~ hay and oats; kangaroo ~ wild ~ grass and leaves; koala ~ wild ~
leaves; ladybug ~ garden ~ tiny bugs; lamb ~ farm ~ grass; lion ~ wild ~ meat; lizard ~ wild ~ bugs; mole ~ forest ~
worms; monkey ~ wild ~ bananas and nuts; moose ~ forest ~ leaves and bark; mouse ~ house ~ seeds and cheese; otter ~
pond ~ fish; owl ~ forest ~ mice and bugs; panda ~ forest ~ bamboo; parrot ~ wild ~ seeds and fruit; penguin ~ sea ~
fish; pig ~ farm ~ corn and apples; pigeon ~ house ~ seeds and crumbs; pony ~ farm ~ hay and apples; rabbit ~ forest ~
grass and carrots; raccoon ~ forest ~ fruit and nuts; rat ~ house ~ seeds and cheese; robin ~ garden ~ worms and
berries; rooster ~ farm ~ seeds and worms; seal ~ sea ~ fish; sheep ~ farm ~ grass; skunk ~ forest ~ bugs and berries;
snail ~ garden ~ green leaves; spider ~ garden ~ flies; squirrel ~ forest ~ nuts; swan ~ pond ~ water plants; tiger ~
wild ~ meat; toad ~ pond ~ worms and bugs; turkey ~ farm ~ seeds and bugs; turtle ~ pond ~ leaves and bugs; wolf ~
forest ~ meat; worm ~ garden ~ old leaves; zebra ~ wild ~ grass
""")
HABITATS = {  # where such animals live
    "house": "in warm houses",
    "farm": "on farms",
    "forest": "in the forest",
    "pond": "in and near ponds",
    "sea": "in and by the sea",
    "wild": "in hot lands far away",
    "garden": "in gardens and fields",
}

# thing ~ what it can do
THINGS = read_table("""
ball ~ bounce up and down; balloon ~ float up to the sky; basket ~ carry red apples; bell ~ ring ding dong; bench ~
give old people a rest; bike ~ roll down the street; blanket ~ keep a child warm; boat ~ sail across the pond; book ~
tell a good story; boot ~ keep a foot dry; bottle ~ keep water cool; box ~ keep toys safe; broom ~ sweep the floor;
brush ~ paint blue skies; bucket ~ carry cool water; button ~ keep a coat shut; candle ~ glow in the dark; car ~ zoom
across the floor; cart ~ carry hay to the barn; chair ~ give tired legs a rest; clock ~ say tick tock; crayon ~ draw
big suns; crown ~ shine like gold; cup ~ hold warm milk; cushion ~ make a chair soft; doll ~ sit at a tea party; drum
~ go boom boom; fan ~ make a cool wind; flag ~ wave in the wind; flute ~ play soft songs; guitar ~ play a happy song;
hat ~ keep the sun away; jar ~ keep cookies fresh; kettle ~ make hot tea; key ~ open a little door; kite ~ dance in
the wind; ladder ~ reach the roof; lamp ~ light up the room; lantern ~ show the way at night; magnet ~ pick up pins;
map ~ show the way home; mirror ~ show happy faces; mitten ~ keep a hand warm; pencil ~ draw a long line; pillow ~
hold a sleepy head; plane ~ fly over the hills; puppet ~ make children laugh; puzzle ~ show a picture of a ship; ring
~ shine in the sun; robot ~ walk and beep; rocket ~ fly to the moon; rope ~ hold a boat; scarf ~ keep a neck warm;
shell ~ sing like the sea; sled ~ slide down the snow; sock ~ keep a foot warm; spoon ~ stir the soup; swing ~ go up
and down; teapot ~ pour hot tea; telescope ~ show the stars; tent ~ keep the rain out; train ~ go choo choo; truck ~
carry sand and stones; trumpet ~ play a loud song; umbrella ~ keep the rain away; violin ~ play a sweet song; wagon ~
carry toys up the hill; wheel ~ roll and roll; whistle ~ make a loud sound
""")

PHRASES = read_entries("""
opening: Once upon a time, there was [a_hero].|Once upon a time, there was [a_hero].|Once there was [a_hero].|There
once was [a_hero].
likes: [He] loved [food].|[He] liked to [hobby].|[He] liked [food] and loved to [hobby].|[Hero] liked to [hobby] and
to eat [food].|[Hero] loved to [hobby].|[Hero] loved [food].
ending: |{That evening|That night|At home}, [hero] told [elder] {all about it|the whole story}.|{That evening|Later},
[hero] and [elder] {had|ate} [food] for supper.|{That night|At bedtime}, [hero] {dreamed of [place]|slept well|was
tired and happy}.|The next day, [hero] wanted to [hobby] again.
one_day: One [sunny] {day|morning|afternoon}|One day|One morning|On {Monday|Tuesday|Wednesday|Thursday|Friday|
Saturday|Sunday}|One day in {spring|summer|fall}|After {breakfast|lunch}|Early one morning|Late one afternoon
sunny: sunny|warm|fine|bright|quiet
soon: soon|then|after a while|a little later|not long after that|before long
at_last: at last|in the end|after a long time
since_then: from that day on|from then on|after that day|after that
learned: learned|knew now
sad: sad|very sad|so sad|unhappy
felt_sad: was [sad]|felt [sad]|was [sad] now
glad: happy|glad|very happy|so happy|full of joy
felt_glad: was [glad]|felt [glad]|was [glad] now
nice: nice|pretty|lovely|beautiful
color: red|blue|green|yellow|pink|purple|orange|brown|white|black|gray|golden|silver|dark red|dark blue|light green|
light blue
trait: kind|brave|clever|curious|friendly|happy|shy|quiet|funny|busy|gentle|cheerful|careful|lively|polite|sleepy|
strong|sweet|wise|young
toy: ball|boat|doll|train|truck|robot|car|puppet|balloon|crown|flute|hat|bell|ring|shell|book|flag
animal: lion|bear|fox|whale|mouse|horse|owl|cat
helper: the [pet]
seller: the old {man|woman}
town: town|the village|the forest|the valley
at_place~to_place~place: in the park ~ to the park ~ the park|on the beach ~ to the beach ~ the beach|by the lake ~ to
the lake ~ the lake|in the meadow ~ to the meadow ~ the meadow|in the garden ~ to the garden ~ the garden|by the river
~ to the river ~ the river|in the forest ~ to the forest ~ the forest|on the hill ~ to the hill ~ the hill|on the farm
~ to the farm ~ the farm|in the field ~ to the field ~ the field|by the pond ~ to the pond ~ the pond|at the market ~
to the market ~ the market|by the old mill ~ to the old mill ~ the old mill|by the big bridge ~ to the big bridge ~
the big bridge|in the woods ~ to the woods ~ the woods|on the playground ~ to the playground ~ the playground
food: apples|bananas|berries|bread|carrots|cheese|cherries|cookies|corn|grapes|honey|jam|melons|milk|noodles|nuts|
oranges|pancakes|peaches|pears| peas|plums|popcorn|potatoes|pudding|rice|salad|soup|toast|tomatoes|apple pie|cherry
pie|bean soup|corn soup|warm bread|nut cake|plum jam|rice pudding|egg rolls|sweet buns|fresh figs|red beets|green
beans|white bread|hot cocoa|lemon tea
hobby: sing|dance|paint|draw|run|jump|swim|read|count the stars|look at the clouds|pick flowers|climb trees|tell
stories|tell jokes|play in the sand|watch the birds|feed the ducks|play the drum|build towers|sleep in the sun|hop on
one leg|roll down hills|look for shells|look for bugs|sit by the fire|walk in the rain|listen to music|collect stones|
catch leaves|play with clay|sing in the morning|dance in the evening|run with the wind|wear funny hats|watch the moon|
make paper boats
pet_name: {B|D|F|G|H|J|K|L|M|N|P|R|S|T|V|W|Z|Bl|Br|Fl|Fr|Gr|Pl|Sn|Tr|Tw}{a|e|i|o|u}{b|bb|d|dd|f|ff|g|gg|k|l|ll|m|mm|n|
nn|p|pp|r|rr|s|ss|t|tt|v|z|zz|mb|mp|nd|nk|nt|rk|rt|lk|ld|sk|ck}{o|a|i|y|ie|er|el|in|us|is|ly|et|ot|en}
""")

# What is said in the dialogues: question ~ answer.
PHRASES |= read_entries("""
request: {Can|Could|Will|Would} you {please |}{tell me|write} a [story] about [a_hero]?|{Tell me|Write|Please tell me}
a [story] about [a_hero].|I {want|would like|would love} to hear a [story] about [a_hero].|Do you know a [story] about
[a_hero]?|{May I hear|Can I have} a [story] about [a_hero]?|A [story] about [a_hero], please{.|!}
story: {|||short |little |nice |new |bedtime }story
preface: |||{Sure|Of course|Yes|Okay}!
hello: {Hi|Hello|Hey|Good {morning|evening}}{!|.| there!} ~ {Hello|Hi|Hi there}! {It is nice to {see|meet} you|I am
{glad|happy} that you are here}. [offer]?|{Hi, how|Hello, how|How} are you{| today}? ~ I am {fine|well|very well|
happy}, thank you. [offer]?|{What is your name|Who are you}? ~ I am {a {little|friendly}|your} story {teller|friend}.
[offer]?|What can you do? ~ I {can|like to} tell {short|little} stories{| about animals and things| for children}.
[offer]?
offer: What can I do for you|What would you like to hear|Do you want a story|Which animal do you like
goodbye: {Thank you{| so much}|Thanks{| a lot}}{!|.}{| I {liked|loved} it.| That was {nice|good}.} ~ You are {very |
}welcome! {I am {glad|happy} to help|That makes me happy|Come back {soon|any time}}.|{Bye|Goodbye|Good night}{!|.}{| I
must go {to bed|home}.} ~ {Goodbye|Bye bye|See you soon}! {Sleep well|Have a {nice|good} day|Take care}.
animal_question: What {does a [kind]|can I give a [kind] to} eat? ~ A [kind] {eats|likes} [eats].|{Where does a [kind]
live|Where can I find a [kind]}? ~ A [kind] lives [live].|{What do you know|Can you tell me something} about the
[kind]? ~ {The|A} [kind] lives [live] and eats [eats].
thing_question: {What can a [kind] do|What is a [kind] for|Why do we need a [kind]}? ~ A [kind] can [use]. {That is
why we {like|need} it|It is a {good|nice} thing}.
feeling_question: What {should|can} I do when I am [feeling]? ~ [help]|I am [feeling]{| today| now}. {What {should|
can} I do|Can you help me}? ~ {I am sorry|Do not worry}. [Help]
feelings: sad ~ {Talk to|Sit with} someone you love. {A hug helps|It is all right to cry}.|angry ~ Take {three|five|
ten} deep breaths and {count to ten|walk around}.|scared ~ Hold {a hand|someone's hand} and {breathe slowly|say what
you are afraid of}.|tired ~ {Lie down|Go to bed} and close your eyes. {Sleep|Rest} is good for you.|bored ~ {Draw a
picture|Build a tower} or {go outside|call a friend}.|lonely ~ {Call|Visit|Find} a friend and {play a game|share some
cookies}.|sick ~ Stay in bed and drink {warm tea|water}.
""")

PLOTS = read_plots(Path(__file__).with_name("plots.txt"))
