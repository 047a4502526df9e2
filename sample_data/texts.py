"""The words and phrases of the sample data, in a small template language that `make_sample_data.py` expands.

`{a|b}` is a or b, and can be nested; `[key]` is one of the alternatives of that key, chosen again each time; `[Key]` is
the same with a capital letter; `x ~ y` are two things that belong together.  The plots are in plots.txt; there,
`<hero: ...>` is what the hero says.
"""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Plot:
    """The plot of a story.

    cast: who the hero is: `child`, `thing` or `any`, which means a child or an animal.
    settled: {keys: template} for values that are chosen once for the whole story.
    text: the template of the story, with `//` between paragraphs.
    questions: [(question, answer), ...] about the story, as templates.
    """

    cast: str
    settled: dict[str, str]
    text: str
    questions: list[tuple[str, str]]


def read_entries(text: str) -> dict[str, str]:
    """Read `key: value` entries; a value may have several lines."""
    _, *parts = re.split(r"^([a-z_~]+): ?", text, flags=re.MULTILINE)
    return {key: join_lines(value) for key, value in zip(parts[::2], parts[1::2], strict=True)}


def join_lines(text: str) -> str:
    """Replace each line end by a space, but by nothing after a `|`."""
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


# Subjects that are in the stories but in no training dialogue: can a chat model still use them in a story?
HELD_OUT_SUBJECTS = [
    *("goat", "hedgehog", "otter", "parrot", "zebra", "ladybug", "penguin", "donkey", "swan", "crab"),
    *("sled", "puzzle", "button", "lantern", "trumpet", "kettle", "mirror", "candle", "tent", "ladder"),
]

# Many, so that a model learns to copy a name instead of guessing it.  No text has Edgar, Jasper, Milo, Otis or Zack.
NAMES = {
    sex: names.split()
    for sex, names in read_entries("""
girl: Abby Ada Adele Agnes Aiko Aisha Alba Alexa Alice Alina Alison Alma Amanda Amelia Amina Amira Amy Ananya Andrea
Angela Anita Ann Anna Anouk Antonia Anya April Aria Asha Astrid Audrey Aurora Ava Aya Ayla Barbara Beatrix Bella Belle
Berta Beth Betty Bianca Birgit Blanca Bonnie Bree Brenda Bridget Britta Brooke Camilla Cara Carina Carla Carmela
Carmen Carol Caroline Cassie Catalina Cecily Celia Chiara Chloe Christa Cindy Claire Clara Claudia Colette Connie
Constance Cora Corinna Cynthia Dagmar Daisy Dalia Dana Daniela Daphne Darla Deborah Delia Delilah Della Diana Dina
Diya Dolly Donna Dora Doris Dorothy Edda Edith Elaine Eleanor Elena Elin Elise Eliza Ella Ellie Elodie Eloise Elsa
Elvira Emilia Emily Emma Enid Erica Erin Esme Estelle Esther Etta Eunice Eva Evelyn Faith Farah Fatima Fay Felicia
Fiona Flo Flora Frances Freya Frida Gabriela Gail Gemma Georgia Gerda Gilda Gina Giulia Gladys Gloria Grace Greta Gwen
Hana Hannah Hazel Hedda Heidi Helen Helga Henrietta Hilda Holly Hope Ida Ilse Imani Imogen Ines Ingrid Iona Irene Iris
Isabel Isadora Isla Ivana Ivy Jade Jana Jane Janelle Janet Jasmine Jemima Jennifer Jenny Jessie Jill Joan Joanna
Jocelyn Jodie Johanna Josephine Josie Joy Joyce Juanita Judith Judy Julia Juliet June Justine Kaia Kamala Karen Karin
Katarina Kate Kathleen Katie Kelly Kezia Kiara Kim Kira Kirsten Kristin Lana Larissa Laura Lauren Layla Lea Leah Leila
Lena Leona Leonie Leticia Lia Lidia Lilian Lily Lina Linda Lisa Livia Liz Lola Lorena Lorna Lotte Lottie Louisa Lucia
Lucinda Lucy Luna Lydia Lynn Mabel Madison Magda Maggie Malia Mandy Manuela Mara Marcella Margaret Margo Maria Mariam
Marie Marika Marina Marlene Marta Martina Mary Matilda Maud Maxine May Maya Megan Mei Melanie Melinda Melissa Meredith
Mia Michelle Mila Milena Millie Mina Minnie Mira Miriam Moira Molly Monica Morgan Muriel Nadia Nancy Naomi Natalia
Natasha Nell Nelly Nia Nicole Nika Nina Noelle Noemi Nola Nora Norma Odette Olga Olive Olivia Olympia Ophelia Paloma
Pam Pamela Patricia Patty Paula Paulina Pearl Penny Petra Philippa Phoebe Phyllis Pia Polly Priya Rachel Ramona Raquel
Rebecca Regina Renata Rhoda Rita Roberta Robin Romy Rosa Rosalie Rosalind Rose Rowena Roxy Ruby Ruth Sabine Sabrina
Sadie Sally Salma Samira Sandra Sara Sasha Saskia Selma Serena Shanti Sharon Sheila Shirley Sienna Sigrid Silvia
Simone Sofia Solveig Sonia Sophie Stella Sue Suki Sunita Susie Svenja Sylvia Tabitha Talia Tamara Tanya Tara Tatiana
Teresa Tess Thea Tilda Tina Tove Trudy Ulla Uma Una Ursula Valerie Vanessa Vera Verena Vicky Victoria Viola Vivian
Wanda Wendy Willa Wilma Winnie Yara Yasmin Yoko Yolanda Yuki Yvonne Zainab Zara Zelda Zita Zoe Zora Zuri
boy: Aaron Abdul Abe Adam Ahmed Akira Al Alan Albert Alberto Aldo Alec Alejandro Alex Alfie Alfonso Alfred Ali Alonso
Alvin Amir Amos Anders Andre Andy Angus Ansel Anthony Anton Antonio Archie Ari Arjun Arno Arnold Arthur Arvid Asher
Axel Barnaby Barry Basil Bastian Ben Benedict Benito Bernard Bert Bill Billy Bjorn Blake Bobby Bodo Boris Brad Brady
Brendan Brian Brock Bruce Bruno Bryce Byron Cal Caleb Calvin Cameron Carl Carlos Casper Cecil Cedric Chad Charlie
Chester Chris Christopher Clarence Clark Claude Clay Clement Clifford Clyde Cody Colin Conrad Corbin Cornelius Cory
Cosmo Craig Curtis Cyrus Dale Damian Damon Dan Daniel Dante Darius Darren Daryl David Dean Dennis Denzel Derek Desmond
Dexter Diego Dieter Dimitri Dirk Dominic Don Donald Dorian Doug Drew Duncan Dwayne Dwight Dylan Earl Eddie Edmund
Eduardo Edward Edwin Egon Eli Elias Elijah Elliot Ellis Elmer Elton Emil Emmett Enrico Enzo Ephraim Eric Erik Ernest
Ernie Errol Erwin Ethan Eugene Evan Ezra Fabian Farid Federico Felix Ferdinand Fernando Filip Finn Floyd Ford Francis
Frank Franz Fred Freddie Fritz Gabe Gareth Garth Gary Gavin Gene Geoffrey George Gerald Gerry Gideon Gil Gilbert
Giorgio Giovanni Glen Godfrey Gonzalo Gordon Graham Grant Greg Gregory Griffin Guido Gunnar Gus Gustav Guy Hakim Hamid
Hank Hans Harald Harold Harris Harry Harvey Hassan Hayden Hector Heinrich Henrik Henry Herb Herbert Herman Hiro Homer
Horace Howard Hubert Hugh Hugo Humphrey Ian Ibrahim Ignacio Ilya Ingmar Irving Isaac Ismail Ivan Jabari Jack Jacob
Jake Jamal James Jan Jared Jarvis Javier Jay Jeff Jens Jeremy Jerome Jerry Jim Joachim Joe Joel Johan John Jonas
Jonathan Jordan Jorge Jose Joseph Josh Joshua Juan Jude Julian Julius Justin Kai Kaleb Kamal Karim Karl Keith Ken
Kenji Kenneth Kevin Khalid Kieran Kirk Kit Klaus Knut Kofi Kurt Kwame Kyle Lamar Lance Landon Larry Lars Laurence Lee
Len Lennart Leo Leon Leonard Leopold Leroy Lester Levi Lewis Liam Lionel Lloyd Logan Lorenzo Lou Louis Luca Lucas
Ludwig Luis Luke Lyle Mack Magnus Malik Manuel Marcel Marco Marcus Mario Marius Mark Marlon Martin Marvin Mason
Mathias Matt Matteo Maurice Max Maximilian Melvin Merlin Michael Miguel Mike Mikhail Miles Milton Mitch Mohan Moritz
Morris Mustafa Nate Nathan Ned Neil Neville Nick Niklas Nikolai Niles Nils Noah Norman Olaf Ole Oleg Oliver Omar
Orlando Orson Oscar Oswald Otto Owen Pablo Pascal Pat Patrick Paul Pedro Percy Perry Peter Phil Philip Pierre Piet
Quentin Quinn Rafael Rahul Rajiv Ralph Ramon Randall Rashid Raul Ravi Ray Raymond Reed Reggie Reuben Rex Ricardo
Richard Rick Rob Robert Roderick Rodney Roger Roland Roman Ron Rowan Roy Ruben Rudy Rufus Rupert Russ Ryan Salim Sam
Samir Samuel Sandro Sanjay Santiago Saul Scott Sean Sebastian Sergei Seth Sheldon Sid Silas Simon Solomon Stan Stefan
Steve Stuart Sven Sylvester Tad Takeshi Tariq Ted Terry Thaddeus Theo Thomas Thorsten Tim Timothy Tobias Tobin Toby
Todd Tom Tomas Tony Travis Trent Tristan Troy Tyler Ulrich Umar Valentin Vasco Vernon Victor Vikram Viktor Vince
Vincent Vito Vladimir Wade Waldo Wallace Wally Walt Walter Warren Wayne Wendell Wilbur Wilfred Will Willem William
Winston Wolfgang Woody Xavier Yannick Yuri Yusuf Zane Zeb Zed
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
HABITATS = {  # where these animals live
    "house": "in a house",
    "farm": "on a farm",
    "forest": "in the forest",
    "pond": "near a pond",
    "sea": "by the sea",
    "wild": "in a hot land",
    "garden": "in a garden",
}

# thing ~ what it can do
THINGS = read_table("""
ball ~ bounce up and down; balloon ~ float up to the sky; basket ~ carry red apples; bell ~ ring ding dong; bench ~
give old people a rest; bike ~ roll down the street; blanket ~ keep a child warm; boat ~ float across the pond; book ~
tell a good story; boot ~ keep a foot dry; bottle ~ keep water cool; box ~ keep toys safe; broom ~ clean the floor;
brush ~ paint a blue sky; bucket ~ carry cool water; button ~ keep a coat closed; candle ~ give a warm light; car ~
race across the floor; cart ~ carry hay to the barn; chair ~ give tired legs a rest; clock ~ say tick tock; crayon ~
draw a big sun; crown ~ shine like gold; cup ~ hold warm milk; cushion ~ make a chair soft; doll ~ sit at a tea party;
drum ~ go boom boom; fan ~ make a cool wind; flag ~ wave in the wind; flute ~ play soft songs; guitar ~ play a happy
song; hat ~ keep the sun away; jar ~ keep cookies fresh; kettle ~ make hot tea; key ~ open a little door; kite ~ dance
in the wind; ladder ~ reach the roof; lamp ~ light up the room; lantern ~ show the way at night; magnet ~ pick up
pins; map ~ show the way home; mirror ~ show a happy face; mitten ~ keep a hand warm; pencil ~ draw a long line;
pillow ~ hold a sleepy head; plane ~ fly over the hills; puppet ~ make children laugh; puzzle ~ show a picture of a
ship; ring ~ shine in the sun; robot ~ walk and dance; rocket ~ fly to the moon; rope ~ hold a boat; scarf ~ keep a
neck warm; shell ~ sing like the sea; sled ~ slide down the snow; sock ~ keep a foot warm; spoon ~ hold hot soup;
swing ~ go up and down; teapot ~ pour hot tea; telescope ~ show the stars; tent ~ keep the rain out; train ~ go choo
choo; truck ~ carry sand and stones; trumpet ~ play a loud song; umbrella ~ keep the rain away; violin ~ play a sweet
song; wagon ~ carry toys up the hill; wheel ~ roll and roll; whistle ~ make a loud sound
""")

PHRASES = read_entries("""
opening: {||[about] [a_hero] [who]. }[beginning]
beginning: {Once upon a time, there was|Once upon a time, there was|Once there was|There once was} [a_hero].
about: This is a story about|Here is a story about|This story is about|I will tell you about
likes: [He] loved [food].|[He] liked to [hobby].|[He] liked [food] and loved to [hobby].|[Hero] liked to [hobby] and
to eat [food].|[Hero] loved to [hobby].|[Hero] loved [food].
who: |who lives [live]|who eats [food]|who lives [live] and eats [food]
animal_likes: [He] lived [live] and liked to eat [food].|[Hero] lived [live] and liked to [hobby].|[He] ate [food] and
loved to [hobby].
ending: |{That evening|That night|At home}, [hero] told [elder] {all about it|the whole story}.|{That evening|Later},
[hero] and [elder] had [food] for supper.|{That night|At bedtime}, [hero] {dreamed of [place]|slept well|was
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
food: apples|bananas|berries|bread|carrots|cheese|cherries|cookies|corn|grapes|honey|jam|melons|noodles|nuts|
oranges|pancakes|peaches|pears| peas|plums|popcorn|potatoes|pudding|rice|salad|soup|toast|tomatoes|apple pie|cherry
pie|bean soup|corn soup|warm bread|nut cake|plum jam|rice pudding|egg rolls|sweet buns|fresh figs|red beets|green
beans|white bread|sweet corn|hot stew
hobby: sing|dance|paint|draw|run|jump|swim|read|count the stars|look at the clouds|pick flowers|climb trees|tell
stories|tell jokes|play in the sand|watch the birds|feed the ducks|play the drum|build towers|sleep in the sun|hop on
one leg|roll down hills|look for shells|look for bugs|sit by the fire|walk in the rain|listen to music|collect stones|
catch leaves|play with clay|sing in the morning|dance in the evening|run with the wind|wear funny hats|watch the moon|
make paper boats
pet_name: {B|D|F|G|H|J|K|L|M|N|P|R|S|T|V|W|Z|Bl|Br|Fl|Fr|Gr|Pl|Sn|Tr|Tw}{a|e|i|o|u}{b|bb|d|dd|f|ff|g|gg|k|l|ll|m|mm|n|
nn|p|pp|r|rr|s|ss|t|tt|v|z|zz|mb|mp|nd|nk|nt|rk|rt|lk|ld|sk|ck}{o|a|i|y|ie|er|el|in|us|is|ly|et|ot|en}
""")

# The texts of the dialogues: question ~ answer.  The answers use only words from the stories.
PHRASES |= read_entries("""
request: {Can|Could|Will|Would} you {please |}{tell me|write} a [story] about [a_hero]?|{Tell me|Write|Please tell me}
a [story] about [a_hero].|I {want|would like|would love} to hear a [story] about [a_hero].|Do you know a [story] about
[a_hero]?|{May I hear|Can I have} a [story] about [a_hero]?|A [story] about [a_hero], please{.|!}
story: {|||short |little |nice |new |bedtime }story
preface: ||{Yes|Of course|Oh yes|Yes, of course}!|{Yes|Of course}! {Here|This} is a story about [a_hero].
hello: {Hi|Hello|Hey|Good {morning|evening}}{!|.| there!} ~ {Hello|Hi}! {It is {nice|good} to see you|I am {glad|
happy} that you are here}. [offer]?|{Hi, how|Hello, how|How} are you{| today}? ~ I am {fine|well|very well|happy},
thank you. [offer]?|{What is your name|Who are you}? ~ I am {a {little|friendly}|your} friend, and I can tell
{stories|you a story}. [offer]?|What can you do? ~ I {can|like to} tell {|little |good }stories. [offer]?
offer: What can I do for you|Do you want a story|Can I tell you a story
goodbye: {Thank you{| so much}|Thanks{| a lot}}{!|.}{| I {liked|loved} it.| That was {nice|good}.} ~ You are {very |
}welcome! {I am {glad|happy} to help|Come {back soon|again tomorrow}}.|{Bye|Goodbye|Good night}{!|.}{| I must go {to
bed|home}.} ~ {Goodbye|Good night}! {Sleep well|Come {back soon|again tomorrow}}.
animal_question: What {does a [kind]|can I give a [kind] to} eat? ~ A [kind] eats [food].|{Where does a [kind] live|
Where can I find a [kind]}? ~ A [kind] lives [live].|{What do you know|Can you tell me something} about the [kind]? ~
{The|A} [kind] lives [live] and eats [food].
thing_question: {What can a [kind] do|What is a [kind] for|Why do we need a [kind]}? ~ A [kind] can [use]. {That is
why we {like|need} it|It is a {good|nice} thing}.
feeling_question: What {should|can} I do when I am [feeling]? ~ [help]|I am [feeling]{| today| now}. {What {should|
can} I do|Can you help me}? ~ {I am sorry|Do not cry}. [help]
feelings: sad ~ {A hug helps|It is all right}. Go to {a friend|your mom}.|angry ~ Take a deep breath {and|, and then}
count to ten.|scared ~ You are safe here. Let us {count to ten|sing a song}.|tired ~ Go to bed and close your eyes.
{Sleep well|Good night}.|bored ~ You can {paint a picture|build a tower|play with a friend}.|lonely ~
Go to a friend and {play together|say hello|share some cookies}.|sick ~ You have to stay in bed and drink some tea.
""")

PLOTS = read_plots(Path(__file__).with_name("plots.txt"))
