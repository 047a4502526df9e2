"""The words, sentences and plots of the sample data, in a small template language that `make_sample_data.py` expands.

`{a|b}` is a or b, nested as deep as one likes; `[key]` is one of the alternatives of that key, each time a new one;
`[Key]` the same with a capital letter; `<hero: ...>` is said by the hero.  Reading order: subjects and names, PHRASES
for any text, PLOTS for the stories, TALES for the short stories of the dialogues.
"""

import re


def read_table(text):
    """Read `name ~ field ~ field; name ~ ...` as {name: [field, ...]}."""
    rows = [[field.strip() for field in " ".join(row.split()).split("~")] for row in text.split(";")]
    return {name: fields for name, *fields in rows}


def read_entries(text):
    """Read `key: value` entries, each on lines of its own, or after `; `, as {key: value}."""
    _, *parts = re.split(r"(?:^|;\s)([a-z_~]+):\s", text, flags=re.MULTILINE)
    return {key: " ".join(value.split()) for key, value in zip(parts[::2], parts[1::2], strict=True)}


def read_plots(text):
    """Read the entries of several plots; each begins with `plot: `."""
    return [read_entries(plot) for plot in re.split(r"^(?=plot: )", text, flags=re.MULTILINE)[1:]]


# Subjects that the stories know, but no training dialogue names: can a chat model copy them into a story all the same?
HELD_OUT_SUBJECTS = [
    *("goat", "hedgehog", "otter", "parrot", "zebra", "ladybug", "penguin", "donkey", "swan", "crab"),
    *("drum", "kite", "whistle", "sled", "umbrella", "lamp", "wagon", "scarf", "button", "puzzle"),
]

NAMES = {
    key: names.split()
    for key, names in read_entries("""
girl: Alice Amy Ann Anna Bella Beth Carol Clara Cora Daisy Dina Elena Ella Emma Eva Fay Flora Gina Grace Hana Helen Ida
Ivy Jane Jill June Kate Kim Lea Leah Lily Lola Lucy Mara Mary Maya Mia Mina Molly Nina Nora Olive Pia Penny Rosa Ruby
Sally Sara Sofia Tara Tess Uma Vera Wanda Yara Zoe
boy: Aaron Adam Al Alex Andy Ben Billy Bobby Carl Dan David Dean Eddie Eli Felix Finn Fred George Glen Gus Hank Harry
Hugo Ian Jack Jacob Jim Joe John Josh Kai Ken Leo Liam Luke Mark Matt Max Mike Milo Nate Nick Noah Ole Omar Oscar Paul
Peter Ray Rick Ron Sam Simon Theo Tim Toby Tom Troy Walt Zack
animal: Amber Berry Biscuit Blinky Bobo Bubbles Chip Cleo Clover Coco Dandy Dot Fizz Fluff Fuzzy Gigi Jojo Juno Kiki
Lolly Lulu Mango Mimi Misty Momo Moss Muffin Nibbles Nico Noodle Olly Peanut Pebble Pepper Pickle Pip Pogo Poppy Puff
Ringo Rollo Rusty Scout Snowy Sparky Sunny Tiki Toffee Twig Waffles Wags Wiggles Ziggy Zuzu
""").items()
}
PRONOUNS = {"girl": ("she", "her", "her"), "boy": ("he", "him", "his"), "thing": ("it", "it", "its")}
SAID = {".": ("said",), "?": ("asked",), "!": ("cried", "called", "shouted", "said")}

# animal ~ habitat ~ what it eats ~ how it moved
ANIMALS = read_table("""
cat ~ house ~ fish and meat ~ ran; dog ~ house ~ meat ~ ran; hamster ~ house ~ seeds ~ crept; mouse ~ house ~ seeds and
cheese ~ crept; cow ~ farm ~ grass and hay ~ walked; pig ~ farm ~ corn and apples ~ trotted; horse ~ farm ~ hay and oats
~ trotted; sheep ~ farm ~ grass ~ trotted; goat ~ farm ~ leaves and grass ~ trotted; donkey ~ farm ~ hay and carrots ~
trotted; hen ~ farm ~ seeds and worms ~ ran; goose ~ farm ~ grass and corn ~ waddled; fox ~ forest ~ berries and mice ~
ran; bear ~ forest ~ honey and berries ~ walked; deer ~ forest ~ leaves and grass ~ ran; squirrel ~ forest ~ nuts ~
climbed; rabbit ~ forest ~ grass and carrots ~ hopped; owl ~ forest ~ mice and bugs ~ flew; hedgehog ~ forest ~ bugs and
berries ~ walked; mole ~ forest ~ worms ~ crawled; wolf ~ forest ~ meat ~ ran; frog ~ pond ~ flies ~ hopped; duck ~ pond
~ plants and bugs ~ waddled; swan ~ pond ~ water plants ~ glided; beaver ~ pond ~ bark and leaves ~ waddled; otter ~
pond ~ fish ~ slid; turtle ~ pond ~ leaves and bugs ~ crawled; toad ~ pond ~ worms and bugs ~ hopped; fish ~ sea ~ tiny
plants ~ swam; whale ~ sea ~ tiny fish ~ swam; dolphin ~ sea ~ fish ~ swam; crab ~ sea ~ sea plants ~ crawled; octopus ~
sea ~ shrimp ~ swam; seal ~ sea ~ fish ~ swam; penguin ~ sea ~ fish ~ swam; lion ~ wild ~ meat ~ walked; tiger ~ wild ~
meat ~ walked; elephant ~ wild ~ leaves ~ walked; monkey ~ wild ~ bananas and nuts ~ climbed; giraffe ~ wild ~ leaves ~
walked; zebra ~ wild ~ grass ~ trotted; parrot ~ wild ~ seeds and fruit ~ flew; hippo ~ wild ~ grass ~ walked; kangaroo
~ wild ~ grass and leaves ~ hopped; ant ~ garden ~ crumbs and seeds ~ marched; bee ~ garden ~ flower juice ~ flew;
butterfly ~ garden ~ flower juice ~ flew; ladybug ~ garden ~ tiny bugs ~ crawled; spider ~ garden ~ flies ~ crawled;
worm ~ garden ~ old leaves ~ wiggled; snail ~ garden ~ green leaves ~ crawled; robin ~ garden ~ worms and berries ~ flew
""")

# thing ~ what it can do
THINGS = read_table("""
ball ~ bounce up and down; balloon ~ float up to the sky; basket ~ carry red apples; bell ~ ring ding dong; bike ~ roll
down the street; blanket ~ keep a child warm; boat ~ sail across the pond; book ~ tell a good story; box ~ keep toys
safe; brush ~ paint blue skies; bucket ~ carry cool water; button ~ keep a coat shut; candle ~ glow in the dark; car ~
zoom across the floor; chair ~ give tired legs a rest; clock ~ say tick tock; crayon ~ draw big suns; crown ~ shine like
gold; cup ~ hold warm milk; doll ~ sit at a tea party; drum ~ go boom boom; flag ~ wave in the wind; flute ~ play soft
songs; hat ~ keep the sun away; key ~ open a little door; kite ~ dance in the wind; lamp ~ light up the room; mirror ~
show happy faces; puppet ~ make children laugh; puzzle ~ show a picture of a ship; ring ~ shine in the sun; robot ~ walk
and beep; scarf ~ keep a neck warm; shell ~ sing like the sea; sled ~ slide down the snow; spoon ~ stir the soup; swing
~ go up and down; tent ~ keep the rain out; top ~ spin round and round; train ~ go choo choo; truck ~ carry sand and
stones; umbrella ~ keep the rain away; wagon ~ carry toys up the hill; whistle ~ make a loud sound
""")

# habitat ~ where such animals live ~ one home ~ places
HABITATS = read_table("""
child ~ ~ in a [calm_place] {house|town|village} {near|by} [landmark]|in a [shade] house|near [landmark] ~ the {park|
beach|lake|meadow|playground|school yard|green hill|river|farm|town square|woods|duck pond|big field}; house ~ in warm
houses ~ in a {warm|tall|quiet|[shade]} house {in the town|on a hill|by the park} ~ the {kitchen|big window|stairs|
piano|sofa|back door|tall clock}; farm ~ on farms ~ on a {small|big|quiet|sunny} farm {near a river|by the woods|on a
hill} ~ the {barn|old gate|hay|well|pear tree|fence}; forest ~ in the forest ~ in a {green|dark|quiet|old} forest {near
the hills|by a lake} ~ the {old oak tree|berry bushes|big rock|hollow log|stream|pine trees}; pond ~ in and near ponds ~
{by|near} a {quiet|small|blue|muddy} pond {in the woods|behind a farm} ~ the {tall grass|muddy bank|flat stone|water
lilies|willow tree}; sea ~ in and by the sea ~ in the {blue|deep|wide|warm|cold} sea {near an island|by a sandy beach} ~
the {big rock|sandy cave|old ship|seaweed}; wild ~ in hot lands far away ~ in a {warm|hot|green} land {far away|near a
wide river} ~ the {tall tree|long grass|waterfall|water hole}; garden ~ in gardens and fields ~ in a {sunny|big|pretty|
wild} garden {behind a house|full of flowers} ~ the {rose bush|flower pot|apple tree|stone wall|tulips}
""")

# What any text may use. `{a|b}` is a or b; `[key]` is one of the alternatives of that key, each time a new one.
PHRASES = read_entries("""
little: little|small|tiny|young|sweet little|dear little; nice: kind|funny|brave|shy|quiet|clever|silly|gentle|curious|
busy|playful|friendly|polite|lively|sleepy|careful|good|smart|calm|proud|bold|loving|noisy|tidy|dreamy|sweet|strong|
wise|quick|bright|neat|helpful|chatty; pretty: fine|pretty|shiny|lovely|good|new|little|special|beautiful|funny|old|
great|nice|splendid|fancy|wonderful; worn: big|old|wet|dry|mossy|round|low|flat|crooked|wide|small|cold|smooth|gray;
plain: big|old|small|new|clean|dusty|round|low|wide|fine|funny|tiny|nice; calm_place: big|old|small|new|quiet|pretty|
lovely|windy|sunny|busy|tiny|lonely|green; fur: brown|white|black|gray|spotted|fat|golden|old|dusty
shade: [hue]|[hue]|[hue]|[hue]|[hue]|{white|black|gray|golden|silver}; hue: {dark |light |pale |||}{red|blue|green|
yellow|pink|purple|orange|brown}; number: two|three|four|five|six|seven|eight|nine|ten|eleven|twelve; weather: sunny|
windy|warm|bright|cloudy|quiet|fine|lovely|fresh|golden|busy|lazy|clear|cool; sad: sad|very sad|so sad|upset|unhappy|sad
and small|close to tears; glad: happy|glad|so happy|very happy|so glad|full of joy|as happy as a {bee|bird|fish}
one_day: One {[weather] |}{day|morning|afternoon}|Early one [weather] morning|On {Monday|Tuesday|Wednesday|Thursday|
Friday|Saturday|Sunday}|After {breakfast|lunch}|One [weather] day in {spring|summer|fall}; sudden: suddenly|all at once|
just then|at that moment|all of a sudden|right then; soon: soon|then|after that|a little later|after a while|in a little
while|before long; quick: slowly|quickly|without a {word|sound}|with care|right away|softly|quietly|very fast|at once
hop: like a {[nice]|[little]|[fur]} {frog|rabbit|kangaroo|goat|monkey|bear|toad|penguin|squirrel}; song: like a {[nice]|
[little]|[fur]} {robin|parrot|duck|hen|monkey|owl|goose|swan|frog|dog}; still: as still as a {[nice]|[little]|[fur]}
{mouse|snail|owl|turtle|cat|crab|spider|worm|deer|mole|ladybug}
dish: {apple|cherry|pumpkin|plum} pie|{tomato|carrot|bean|potato} soup|noodles|pancakes|rice and beans|toast|cheese
bread|rice pudding; snack: cookies|pears|grapes|peaches|muffins|cherries|plums|cheese sticks|nuts|buns|berries|carrots
toy: ball|boat|drum|kite|doll|train|truck|top|robot|car|puppet|sled|wagon|balloon|crown|flute|whistle|hat|bike|rope;
giant: horse|cow|goat|bear|deer|wolf|donkey|elephant|lion|hippo|zebra|tiger|giraffe; landmark: the {sea|train station|
market|zoo|library|harbor|school|bakery}|a [calm_place] {hill|bridge|park|farm|tower|road|lake|river}|a [shade] {house|
fence|barn|tower}|[number] {old|tall|young|big} {apple|pear|oak|plum} trees|a {corn|wheat} field; tale: a {dancing|
singing|flying|laughing|sleepy|[nice]} [any_animal]|a [nice] [any_animal] {and|with} a [shade] [any_thing]|[number]
[shade] {birds|stars|fish|boats|frogs|cats}|a {[shade]|talking|flying} [any_thing]
pet: cat|dog; kin: {[fur]|[nice]} [pet]; woman: [his] {mom|mother|grandma|aunt}|{Aunt|Grandma|Miss} {Rose|May|Lou|Dora|
Joan|Kay|Meg|Pam|Sue|Tilly}; man: [his] {dad|father|grandpa|uncle}|{Uncle|Grandpa|Mister} {Bert|Bill|Bob|Hal|Ned|Ted}
child_hobby: draw {cats|ships|houses|stars}|paint [shade] {flowers|houses}|sing {funny|old|happy} songs|read {funny|old|
long} books|tell jokes|count {coins|stones|beans}|dance in [shade] socks|jump in puddles|feed the {birds|ducks}|pick
[shade] flowers|look for {bugs|snails}|climb on rocks|watch {the clouds|trains}; animal_hobby: sing|play tag|hide|tell
jokes|sleep late|hear old tales|eat [snack]|rest {by|near} [place]|look at the {sun|moon|clouds}|think of [tale]
scene: The sun {was {warm|bright|low}|shone on the {grass|roofs|hills}}.|A {[shade] {bird|butterfly}|[fur] {cat|snail|
hen|dog}} {sat|slept|rested} {on|by} a {fence|gate|bench|[shade] flower}.|The air smelled of {flowers|grass|hay|apples|
bread|rain}.|{Far away|Close by}, a {dog barked|bell rang|train went by|cow mooed}.|[Number] {children|boys|girls} {ate
[snack]|played with a [shade] [toy]|sang about [tale]}.|The clouds looked like [number] [worn] {fish|hens|hats}.
chat: They {told jokes|talked} about [tale].|They {shared|ate} [number] [snack].|They {hummed|sang|laughed} [song].
cry: [Hero] {felt|was} [sad].|[Hero] {wanted to|began to} cry.|[His] eyes {were wet|filled with tears}.|A {big|hot} tear
ran down [his] {cheek|nose|chin}.; joy: [Hero] was [glad].|How {happy|glad} [hero] was!|[Hero] {laughed|sang|cheered}
{for joy|[song]|with [friend]}.|[Hero] {jumped|danced} {for joy|[hop]|around [number] times}.|[Hero] felt [glad].
calm: {Do not {cry|worry|be sad}|It is all right|I am here|Let us think}{, my dear|, [name]|}. [advice]; comfort:
[Elder] {came|heard [him]} and {took [his] hand|gave [him] a hug|patted [his] head}. <ehe: [calm]>|<elder: [calm]>
meet: [Soon], [buddy] {came {by|along}|saw [him]}{ with {some|[number]} [snack]|}. <{fspeaker|fhe}: {What is wrong|Why
are you sad|What happened}, [name]?> [Hero] told [fhim] {everything|all about it|the whole story}.; thanks: <hero:
{Thank you|Thanks}{| so much| very much}! {You are {the best|so kind|so smart}|I will {never forget this|give you
{[number] [snack]|a [shade] [any_thing]}}}!>; oh_no: Oh no|Oh dear|No, no, no|Look at that|This is bad|Oh my
opening: {Once upon a time|Once|Long ago}, [home], there {lived|was} a [trait] {little |young |}[kind] {named|called}
[name]. [likes]|{{Once upon a time, there|Once there} was a [trait] {little |young |}[kind] {named|called} [name]|[Name]
was a [trait] {little |young |}[kind]} who {{loved|liked} to [hobby]|lived [home]}. [likes]; likes: [He] {loved|liked}
[snack] and [dish].|[He] had a [kin] {named|called} [pal].|[He] had a [pretty] [shade] {bed|bag|pillow|cup|bowl}.
thing_opening: {Once upon a time|Once|Long ago}, there was a [pretty] [color] [thing]{ that|. It} could [use].
ending: {[moral] [night]|[day] [night]|[night] [moral]|[day] [moral]}; moral: [Hero] {had learned|learned|knew now|would
never forget|would always remember} that [lesson].|{From that day on|After that|From then on}, [hero] {knew|remembered|
never forgot} that [lesson].; night: {That night|That evening|At bedtime|When the {moon|stars} came out}, [hero]
{{dreamed|had a dream} {of|about} [tale]|slept {well|deeply} and dreamed {of|about} [tale]|heard a story about [tale]}.;
day: {At home|Later|After that|For supper}, {they|[hero] and [mate]} {ate|had|shared} [dish] and [number] [snack].|
[Mate] {smiled|laughed|nodded} and {hugged [him]|gave [him] {[number] [snack]|a [shade] [toy]}}.
item: {|[color] |[color] |little |good |dear }[thing]; thing: [any_thing]; color: [shade]; trait: [nice]; a_nice: a
[nice] {|little |young }; hero: [name]|[name]|the {[little]|[trait]} [kind]; mate: [elder]; ehe~elder: she ~ [woman]|he
~ [man]; buddy: [friend]; fspeaker: [friend]; helper: the [fkind]
tale_opening: {Once upon a time, there|Once there|There} {was|lived} [intro] [home].|[Intro] {lived|had a home} [home].;
animal_wish: a [kind] ~ a {|little |[trait] }[kind]{| named [name]}|a [trait] [kind] ~ a [trait] [kind]|a [kind] {named|
called} [name] ~ a {|little |[trait] }[kind] named [name]; pair_wish: a [kind] and a [thing] ~ a {|little |[trait]
}[kind]{| named [name]}; thing_wish: a [kind] ~ a {|[color] |[pretty] }[kind]|a [color] [kind] ~ a [color] [kind]
request: {Can|Could|Will|Would} you {please |}{tell me|write|make up} a [story] {about|with} [wish]?|{Tell me|Write|
Please tell me|Please write} a [story] {about|with} [wish].|I {want|would like|would love} to hear a [story] {about
[wish]|with [wish] in it}.|Do you know a [story] about [wish]?|{May I hear|Can I have|How about} a [story] {about|with}
[wish]?|A [story] about [wish], please{.|!}; story: {|||short |little |nice |new |bedtime }story; preface: ||||{Sure|Of
course|Yes|Okay}!|{Sure|Of course|Okay}! Here is a story about [wish].
hello: {Hi|Hello|Hey|Good {morning|evening}}{!|.| there!} ~ {Hello|Hi|Hi there}! {It is nice to {see|meet} you|I am
{glad|happy} that you are here}. [offer]?|{Hi, how|Hello, how|How} are you{| today}? ~ I am {fine|well|very well|happy},
thank you. [offer]?|{What is your name|Who are you}? ~ I am {a {little|friendly}|your} story {helper|teller|friend}.
[offer]?|What can you do? ~ I {can|like to} tell {short|little} stories{ about animals and things| for children|}.
[offer]?; offer: What can I do for you|What would you like to hear|Do you want a story|Which animal do you like
goodbye: {Thank you{| so much}|Thanks{| a lot}}{!|.}{| I {liked|loved} it.| That was {nice|good}.} ~ You are {very |
}welcome! {I am {glad|happy} to help|That makes me happy|Come back {soon|any time}}.|{Bye|Goodbye|Good night}{!|.}{| I
must go {to bed|home}.} ~ {Goodbye|Bye bye|See you soon}! {Sleep well|Have a {nice|good} day|Take care}.
animal_question: What {does a [kind]|can I give a [kind] to} eat? ~ A [kind] {eats|likes} [food].|{Where does a [kind]
live|Where can I find a [kind]}? ~ A [kind] lives [live].|{What do you know|Can you tell me something} about the [kind]?
~ {The|A} [kind] lives [live] and eats [food].; thing_question: {What can a [kind] do|What is a [kind] for|Why do we
need a [kind]}? ~ A [kind] can [use]. {That is why we {like|need} it|It is a {good|nice} thing}.
feeling_question: What {should|can} I do when I am [feeling]? ~ [help]|I am [feeling]{| today| now}. {What {should|can}
I do|Can you help me}? ~ {I am sorry|Do not worry}. [Help]; feelings: sad ~ {Talk to|Sit with} someone you love. {A hug
helps|It is all right to cry}.|angry ~ Take [number] deep breaths and {count to ten|walk around}.|scared ~ Hold {a hand|
someone's hand} and {breathe slowly|say what you are afraid of}.|tired ~ {Lie down|Go to bed} and close your eyes.
{Sleep|Rest} is good for you.|bored ~ {Draw a picture|Build a tower} or {go outside|call a friend}.|lonely ~ {Call|
Visit|Find} a friend and {play a game|share some [snack]}.|sick ~ Stay in bed and drink {warm tea|water}.
""")

# The stories. What stands before `text` is chosen once for the whole story; `x~y: a ~ b|c ~ d` chooses two things that
# belong together. `<hero: ...>` is said by the hero; `//` begins a paragraph.
PLOTS = read_plots("""
plot: A toy is lost and found; cast: child; thing: [toy]|[toy]|spoon|key|ring|shell|mitten|sock|cup|crayon; where~spot:
in the garden ~ behind the [plain] pot|on the porch ~ under the [plain] chair|in the kitchen ~ inside the [plain] pan|in
the hall ~ inside a [plain] {boot|shoe}; advice: Once I lost a [shade] [any_thing].|Where did you play?; lesson: it
helps to {stop and think|think first and cry later}|crying does not find things
text: [Hero] had a [pretty] [color] [thing]. [One_day], [hero] wanted to show it to [a_nice][fkind] named [friend], but
it was {gone|not there}. <hero: [Oh_no]! {Where is my [item]?|I lost my [item]!}> [Cry] // [Comfort] They looked under
the [plain] {table|bed|rug|sofa}, behind the [shade] {door|curtain|chair} and in the {bath|sink}. They found a {penny|
comb}, [number] {nuts|beans|stones} and a picture of [tale], but no [thing]. // [Sudden], [hero] jumped up [hop]. <he:
{I know|Wait}! I was {playing|hiding} [where] with {[friend]|[pal]}!> [Hero] ran to look. It was [spot]! [Joy] [Thanks]
plot: The wind takes a thing up into a tree; cast: child; mate: [friend]; thing: kite|hat|balloon|scarf|flag|ribbon|
umbrella; tool~act: a {stick|pole} ~ gave it a {soft|little} push|a [shade] {broom|rake} ~ {swept at|pulled} the leaves|
a [plain] ladder ~ climbed up [quick]; lesson: asking for help is {smart|brave}|two friends can {do|reach} more than one
text: [One_day], [hero] took a [color] [thing] to [place]. [Scene] [Sudden], the wind {took|pulled} the [item] and blew
it into {an old|a big|a tall|a high} {oak|pine|apple|maple} tree. <hero: {Come back|Stop|[oh_no]}! {My [item] is stuck!|
What can I do?}> // [Hero] jumped [number] times [hop] and threw a [plain] {shoe|stone|branch}, but the [item] {stayed
there|did not come down}. [Cry] [Meet] <fspeaker: Wait here! {We have|My {mom|dad|aunt} has} [tool].> // [Soon],
[friend] came back with [tool], counted to [number] and [act]. Down came the [color] [thing]! [Joy] [Thanks] [Chat]
plot: A thing breaks and is mended; cast: child; thing~part: {car|truck|wagon|train|bike} ~ wheel|{robot|doll|puppet} ~
arm|sled ~ rope|kite ~ tail|boat ~ sail|{umbrella|basket|bucket|pot} ~ handle|lamp ~ shade|clock ~ hand|box ~ lid|drum ~
strap|chair ~ leg; fix~act: glue ~ pressed {hard|it tight}|[shade] tape ~ rolled it around [number] times|[shade] string
~ made [number] {good|tight} knots; advice: I have [fix] in a [shade] {box|bag|tin}.|I once broke a [shade]
[any_thing].; lesson: {a broken thing|what is broken} can be fixed|it is good to be {careful|gentle} with things
text: [Hero] had a [pretty] [color] [thing]. [One_day], [hero] {bumped|knocked} it against a [worn] {stone|wall|step}.
{Crack!|Snap!|Crunch!} The [part] came off. <hero: [Oh_no]! {I broke my [item]!|My [item] is broken!}> [Cry] //
[Comfort] [Hero] held the {[part]|[item]} {[quick]|[still]}, and [elder] {took|got} [fix] and [act]. [Chat] // <hero:
{It works|Look}! My [item] is {good again|as good as new}!> [Joy] [Thanks] [Hero] put the [thing] by a [shade] [toy].
plot: A child learns to share; cast: child; thing: [toy]|puzzle|book|tent|brush; lesson: {a toy is|playing is} more fun
{for two|when you share}|a friend is better than a [thing]
text: [One_day], [hero] got a [pretty] [color] [thing] from [elder] and took it to [place]. [Scene] There [hero] met
[a_nice][fkind] {named|called} [friend]. <fspeaker: {I like your|Look at that} [item]! {Can|May} I {try it|have a
turn}?> // <hero: No! {It is my [item]|Go away}!> [Friend] went away [quick]. [Hero] played alone behind a {[worn] wall|
tall tree|green bush|[shade] fence}, but it was {no fun|too quiet}. [Friend] sat {on|by} a [worn] {bench|stone|log} and
{ate [snack]|watched [a_nice][garden]|drew [tale] in the dirt}. [Hero] felt bad. // <hero: {I am sorry|I was not nice|I
was wrong}, [friend]. We can share {it|my [item]}.> <fspeaker: {Thank you|Yes, please}! I have {[number] [snack]|a
[shade] [toy]} {for us|in my bag}!> They {took turns|played} until {lunch|supper}. [Chat] [Joy]
plot: A baby animal needs its mother; cast: child; baby: rabbit|duck|robin|squirrel|turtle|hedgehog|fox|goat|goose|deer|
otter|owl|swan|pig|beaver|mole; lesson: {every|each} baby needs {its mother|a home}|babies need {kind|gentle} hands
text: [One_day], [hero] and [elder] {went|walked} to [place]. [Scene] [Hero] heard a {sad|soft} {sound|cry}. {Under|
Behind} a [worn] {bench|log|rock|wall} was a baby [baby]. It was {all alone|cold and wet}. <hero: {Look|Oh}, [call]! {It
is a baby [baby]|The [little] [baby] is {lost|afraid}}!> // <elder: {Move slowly|Be very gentle}, [name]. {Its mother
misses it|We must find its mother}.> [Hero] {wrapped it in|made a soft bed with} a [shade] {scarf|coat|hat|sweater} and
gave it [number] drops of water. [Soon], {they|[hero]} {met|saw} [number] [fur] {geese|crows|hens|cats} and
[a_nice]{toad|dog|snail|horse}, but no mother. // [Soon], [hero] saw [a_nice][baby] {by|near} [landmark]. It was the
mother! [Hero] set the baby down {softly|slowly|with care}. <hero: {Goodbye|Be safe}, [little] [baby]!> [Joy] [Chat]
plot: A noise in the night; cast: child; fear~truth: a {bear|wolf|monster} is {in the closet|under the bed} ~ a [shade]
{coat|bag} on a [plain] chair|a {ghost|giant} is at the window ~ a [plain] branch in the wind|a {dragon|lion} is on the
stairs ~ a [fur] {cat|dog} with a [plain] {spoon|can|shoe}; noise: Tap, tap, tap|Bump, bump|Scratch, scratch|Creak,
creak|Knock, knock; lesson: {most|many} scary things are small {in the light|when you look}|two are braver than one
text: One {dark|cold|windy|rainy|stormy} night, [hero] {lay|was} in bed with a [pretty] [color] [toy] and thought about
[tale]. [Sudden], there was a noise. [Noise]! [Hero] {sat|lay} [still]. [Noise]! <hero: {Come|Help}, [call]! I think
[fear]!> // [Elder] {came|ran} in with a [shade] {lamp|candle}. <ehe: {A noise|What was that}? We will {look|go and
look} together, [name].> [Soon], they went {[quick]|past [number] [shade] {chairs|doors|boxes}} and sang a song about
[tale]. // [Elder] {held up|lifted} the light. It was only [truth]! [Hero] began to laugh [song]. <hero: {Silly me|How
funny}! {That is no monster|I am not afraid now}!> They {drank|had} warm milk with [number] [snack]. [Joy]
plot: Something goes wrong with a cake; cast: child; food: cake|cherry pie|pizza|plum cake|apple pie|honey cake;
trouble: it was as {black|hard} as a [worn] stone. They had talked about [tale] and forgotten it|it tasted {awful|
terrible}. [Hero] had used salt, not sugar|half of it was gone. [Pal] the [pet] had jam on its nose; advice: We still
have {flour|eggs|time}.|I once burned [number] [snack].; lesson: you can always {try|start} again
text: [One_day], [hero] and [elder] wanted to {bake|make} a [food] for {[friend]|[a_nice]{teacher|neighbor}}. They
{mixed|stirred} {eggs|milk} and {flour|sugar} in a [shade] {bowl|pot} and {sang|talked} about [tale]. // [Soon], they
looked at the [food]. <hero: [Oh_no]! {What happened?|Our {poor|good|} [food]!}> The [food] was no good. [Trouble]!
[Cry] // [Comfort] So [elder] {washed|cleaned} the [shade] {bowl|table|spoons}. This time, [hero] {counted to [number]|
did each step with care|stayed near the oven [still]}. [Chat] The new [food] was {golden|warm|soft} and sweet. [Soon],
the bell rang. <hero: {Come in|Hello}! Do you want some [food]?> They all ate [number] pieces with [snack]. [Joy]
plot: A child breaks something and tells the truth; cast: child; thing: cup|bowl|mirror|lamp|clock|pot|shell|bell;
lesson: the truth is {hard, but good|better than a lie}|saying sorry makes you {feel|sleep} better
text: [Elder] had a [pretty] [color] [thing]. It showed [tale]. [One_day], [hero] {threw a [shade] {ball|shoe} in the
house|{danced|jumped} {around the table|on the sofa} [hop]}. {Crash!|Bang!|Smash!} The [thing] fell down and broke.
<hero: [Oh_no]! {What have I done?|It is broken!}> [Soon], [hero] {hid|put} the pieces {under the [shade] {rug|sofa}|in
a [plain] {box|drawer|boot}}. // {At {lunch|supper}|Later}, they {ate|had} [dish], and [elder] looked for the [item].
<hero: {Maybe|I think} it was {[pal] the [pet]|[friend]}.> The lie {sat in [his] tummy like a [worn] stone|felt as heavy
as a {[nice]|[fur]} [giant]}. // [Soon], [hero] went to [elder] [quick]. <hero: I broke your [item]. {I told a lie, and
I am {so|very} sorry|I am sorry that I lied}.> [Elder] was quiet and {took|held} [his] hand. <ehe: I am {sad|not happy},
{[name], |}but {I am glad that you told me|it was {brave|good} to tell me}.> [Hero] {gave|brought} [elder] {a [pretty]
[shade] [toy]|[number] [snack]|a picture of [tale]}. [Joy]
plot: A child learns something hard; cast: child; skill~slip: ride a bike ~ {fell|rolled} into {a bush|the grass}|tie
[his] shoes ~ made a {big|bad} knot|whistle a tune ~ {blew only air|made no sound}|swim ~ {swallowed water|went under}|
jump rope ~ {tripped over|stepped on} the rope|fly a kite ~ {tore the string|crashed it}; advice: I fell [number] times
when I was {small|little}.|Think of [tale].; lesson: practice helps|trying helps|{hard|big} things need time
text: [Hero] {wanted|wished} to [skill]. [A_nice][fkind] named [friend] could do it [quick]. [One_day], [hero] went to
[place] with [elder] to try. [Scene] {One, two, three|Ready, set, go}! But [hero] [slip]. [Number] {boys|children|girls}
with a [shade] [toy] {laughed|looked}. <hero: {I cannot do it|It is too hard}! {I quit|I want to go home}!> [Cry] //
[Comfort] [Soon], [hero] {stood|got} up [quick] and tried again. On {Monday|Tuesday|Wednesday}, [hero] got [number]
{bumps|scratches}. On {Thursday|Friday|Saturday}, it was {[number] times|a little} better. [Chat] // Then, {on a|one}
[weather] {day|morning}, {it worked|[hero] did it}! <hero: {Look|Hooray|Yes}! {I can [skill]|I did it}!> [Joy] {[Friend]
cheered [song].|[Friend] gave [him] {[number] [snack]|a [shade] [toy]}.}
plot: An animal loses its way; cast: [any_animal]; lure: heard a {sweet|strange|soft} {song|sound}|saw a {strange|
[shade]} light|smelled {[snack]|something {sweet|good}}; lesson: you should look where you go|asking can show the way
text: [One_day], [hero] [lure] far away. [Hero] [moved] on and on to {find it|see what it was}, past [number] [worn]
{stones|holes|hills} and [a_nice][third]. But then it was gone. [Hero] saw only [worn] {stones|rocks}. <hero: [Oh_no]!
{Where is my home?|I am lost!|How do I get home?}> [Cry] // [Meet] <fspeaker: {Do not be afraid|I can help}, [name].
{What is near your home|Where do you live}?> <hero: I live {near|by} [place]. My {mother|father|grandma} is there with
[snack].> <fspeaker: I know [place]! {Come with me|Follow me}!> // [Friend] [fmoved] {in front|ahead} [quick], and
[hero] [moved] {behind|after [fhim]}. [Chat] {[A_nice][fourth] came along, too.|They passed a [worn] {rock|stone|log}.}
At last, [hero] saw [place]. <hero: {There|Look, there} it is! {I am home again|Hello, home}!> [Joy] [Thanks]
plot: An animal is stuck; cast: [any_animal]; hole: between two {rocks|big stones}|in a {narrow|deep|dark} hole|in an
old net; lesson: {many|more} friends are {strong|stronger than one}|you should look {first|well} before you {go in|jump}
text: [One_day], [hero] saw something {shiny|bright|[shade]} [hole] {near|by} [place]. <hero: {What is that|Is it {gold|
a star}}? I {must have it|want it}!> In [he] went [quick]. It was only {a lost|a [plain]|a [shade]} [any_thing]. And now
[hero] {was stuck|could not get out}! <hero: Help! {Is {anybody|someone} there?|I am stuck!}> [Cry] // [Meet] [Friend]
pulled {[number] times|[quick]}, but [hero] did not move. [Soon], [friend] called [a_nice][third] {with a [shade]
[any_thing]|with [number] cousins} and [a_nice][fourth]. <fspeaker: {One, two, three, pull|Now, all together}!>
{Nothing!|Not yet!} // [Sudden], the [third] had an idea. They {put|rubbed} {wet mud|soap|butter|oil} on [hero] and
pulled [number] times more. {Pop!|Plop!|Whoosh!} {Out came [hero]|[Hero] was free}, and the [fourth] {fell|rolled} over
[number] times. [Joy] [Thanks] [Chat]
plot: An animal does not want to share its food; cast: [house]|[farm]|[forest]|[pond]|[wild]|[garden]; food: cookies|
pears|grapes|peaches|muffins|cherries|plums|nuts|buns|berries; lesson: {food|a meal} tastes {better|best} with a friend|
sharing is better than a sore tummy
text: [One_day], [hero] found a [plain] {basket|bag|box} of [food] {near|by|behind} [place]. <hero: {Mine|Lucky me|How
nice}! {I will eat them all|Nobody will get one}!> [Soon], [buddy] came {by|along} with {[a_nice][third]|a [shade]
[any_thing]}. <fspeaker: {Hello, [name]|What a nice smell}! {I am so hungry|I had no {lunch|breakfast}}. {May|Can|Could}
I have {[number]|some|a few} [food]?> // <hero: No! {I found them|Find your own [food]|Go away}.> [Friend] [fmoved] off
[quick]. [Hero] ate [number], then {twenty|thirty}, and {thought of|sang about} [tale]. [Soon], [his] tummy {hurt|was as
{round|tight} as a [shade] {ball|drum}}. <hero: {Ow|Oh|Ouch}! {I feel sick|I cannot {move|get up}|My poor tummy}!> [Cry]
// But [soon], the [nice] [fkind] came back with a [shade] {cup|pot} of tea and a story about [tale]. <hero: I {was
mean|ate too much}, and you are so {good|kind}, [friend]. I am sorry.> {The next {day|week}|[One_day]}, [hero] found
[number] [plain] {baskets|bags} of [food] and gave [friend] half. [Joy] [Chat]
plot: The smallest one can help; cast: mouse|ant|snail|ladybug|spider|worm|bee|robin|toad|butterfly|mole|frog; fkind:
[giant]; thing: key|ring|button|whistle|bell|spoon|shell|brush|top; lesson: {small ones|the small} can do big things|you
should not laugh at {small|little} ones
text: [One_day], [hero] {saw|found} [number] big animals {near|by} [place]. They {played {catch|tag|soccer}|told jokes
about [tale]}. <hero: {Can|May} I play{, too| with you}?> [Buddy] laughed at [him] [song]. <fspeaker: {You are too
small|We might step on you}, [little] [kind].> [Cry] [Hero] {sat|hid} {under|behind} a {[worn] {leaf|stone}|[shade]
flower} and {watched|sighed}. // [Sudden], the game stopped. <fspeaker: [Oh_no]! {I dropped my [item]|My [item] {fell|
went} into that {hole|crack}}!> It was a [pretty] [color] [thing] from [a_nice][forest]. A [nice] [giant] was too {big|
fat} to get it, and a [nice] [giant] was too {tall|wide}. // <hero: {I can|Let me} {do it|try}! {I am small|The hole is
just right for me}!> [Hero] went in [quick], past [number] [worn] {stones|roots|bugs}. [Hero] pushed [number] times, and
{out|up} came the [item]! <fspeaker: {Hooray for|Thank you,|Three cheers for} [name]! {You are so {strong|brave}|I am
sorry I laughed|Come and play with us}!> [Joy] [Chat]
plot: A birthday that everyone seems to forget; cast: [any_animal]; lesson: {good friends|friends} do not forget {you|a
birthday}|{quiet|busy} friends may {plan|have} a surprise
text: One [weather] morning, [hero] woke up {early|with a smile|before the sun}. <hero: {It is my birthday|Today is my
day}! {I am [number] years old|There will be [snack]}!> But {nobody came|it was very quiet {near|by} [place]}. [Hero]
[moved] to find [buddy]. <hero: Hello, [friend]! {Do you know what day it is|Is today a nice day}?> <fspeaker: {It is
{Monday|Tuesday|Friday|Sunday}|I do not know}, [name]. {I am busy|I have no time|Come back {later|tonight}}.> // [Hero]
saw [a_nice][third] with {[number] [snack]|a [shade] [any_thing]} and [a_nice][fourth], but they {had no time, too|only
smiled}. [He] [moved] home [quick]. [Cry] [Hero] shut [his] eyes and thought of [tale]. // [Sudden], there was a {voice|
call}. <fspeaker: {Come {quickly|here}|Quick|Help}, [name]! I need you {near|by} [place]!> [Hero] went there [quick].
"Surprise!" {shouted|cried|called} [number] [nice] friends. There was a [shade] {honey|plum|cherry|nut} cake and a
[pretty] [color] [thing]. <hero: {Is that for me?|You did not forget!} I love {it|you all|my [item]}!> [Joy] [Chat]
plot: A thing nobody wants to buy; cast: [any_thing]; seller: the {old |[nice] |}{man|woman}; lesson: {someone|somebody}
is waiting for each of us|{old|little} things need love, too|{nobody|nothing} has to be perfect
text: It {stood|lay} in a [plain] shop {near|by} [landmark], next to a [shade] [any_thing] and a [pretty] [any_thing].
But it {had a {small|thin|long} scratch|was a little dusty}. [Number] {people|children|men} took [pretty] things home.
[Hero] was [sad]. <hero: {Will|Why does} nobody ever {want|take} me?> // [One_day], [a_nice][fkind] {named|called}
[friend] came in with [fhis] {mom|dad|grandma|aunt}. [Scene] [Friend] {looked at|walked past} a [shade] [any_thing] and
a [pretty] [any_thing]. Then [friend] saw the [item]. <friend: {Oh|Look}! {I like this [item]|What a [pretty] [thing]}!>
<seller: That one is {old|not so good}. We have a [pretty] [shade] one.> <friend: {I do not {care|mind}|But it can
[use]}. I want this one.> // [Friend] {took|carried} the [item] home {[quick]|and sang about [tale]}. [Friend] cleaned
it with water and put it {next to|by} a [shade] {bed|window|[toy]}. {Now|From then on}, it could [use] every day. [Joy]
plot: A thing is forgotten in the rain; cast: [any_thing]; visitor: [garden]|[forest]|[farm]; guest: the [visitor];
lesson: we must look after {our things|the things we love}|no night is {too long|for ever}
text: It belonged to [friend], [a_nice][fkind] {who lived {near|by} [landmark]|of {four|five|six}}. [One_day], [friend]
took the [item] to [place]. [Scene] [Sudden], the sky {went|turned|grew} {dark|black}, and it {started|began} to rain.
[Friend] ran home [quick], but [fhe] forgot the [item]! There it lay, {under|behind} a [worn] {bench|stone|log}. //
[Hero] was [sad]. <hero: {I am so cold|It is so dark}! {Does|Will} {nobody|no one} {think of me|come}?> [Soon], a
{[little]|[nice]|wet} [visitor] came {along|by} with {[number] [snack]|a [worn] leaf}. <guest: {Are you lost|Who are
you}, [thing]? {I will stay with you|We can wait together}.> [Chat] They {looked at|counted} [number] {[shade]|bright}
stars. // In the morning, [hero] heard {quick|light} steps. <friend: {Where are you|Are you here}, my [item]? I looked
for you {everywhere|all night}!> [Friend] {picked it up|held it close} and {dried|cleaned} it with a [pretty] [shade]
{shirt|scarf}. <friend: I will {never|not} forget you again.> [Joy]
""")

# The short stories of the dialogues, each with questions about it and their answers.
TALES = read_plots("""
plot: An animal loses a thing; cast: pair; spot: {under|behind|next to} a [worn] {stone|rock}|{by|near} [place];
ask~answer: Why was [hero] sad? ~ [Hero] was sad because the [color] [thing] was gone.|Where was the [thing]? ~ The
[thing] was [spot].|Who helped [hero]? ~ A [fkind] helped [him] to look for the [thing].
text: [Hero] had a [color] [thing] and {loved|liked} it very much. One [weather] {day|morning}, the [thing] was gone.
[Hero] was [sad]. {Then|Soon}, a [nice] [fkind] came {by|along}. <helper: Do not {cry|worry}! {I will help you|Let us
look for it}.> {They looked [number] times.|} At last, they {found|saw} the [thing] [spot]! <hero: {Thank you|Hooray}!
{Now I am happy again!|You are so kind!}> {They were friends from that day on.|}
plot: An animal learns to share a thing; cast: pair; lesson: sharing is {fun|good}|playing together is better than
{being alone|a [thing]}; ask~answer: What did [hero] learn? ~ [Hero] learned that [lesson].|Why did the [fkind] go away?
~ [Hero] did not want to share the [thing].|What did [hero] {have|find}? ~ [Hero] {had|found} a [color] [thing].
text: One [weather] day, [hero] found a [color] [thing] {by|near} [place]. A [nice] [fkind] {wanted to try it, too|asked
for a turn}. <hero: No! {The [thing] is mine|It is my [thing]}!> The [fkind] went away [quick]. But {it was no fun
alone|soon [hero] was sad}. [Hero] [moved] after the [fkind]. <hero: I am sorry. {We can|Let us} share the [thing].>
{They took turns all day.|} [Hero] learned that [lesson].
plot: An animal finds a new thing; cast: pair; ask~answer: What did [hero] find? ~ [Hero] found a [color] [thing] {by|
near} [place].|What could the [thing] do? ~ {It|The [thing]} could [use].|Who knew it? ~ The [fkind] knew it.
text: One [weather] {day|morning}, [hero] found something [color] {by|near} [place]. <hero: {What is this|What can it
be}?> {Nobody knew.|} Then a [nice] [fkind] came {by|along}. <helper: {Oh, that|That} is a [thing]! {It|A [thing]} can
[use].> [Hero] {wanted to see that|tried it} {at once|right away}. {And yes, the [thing] could [use]!|} [Hero] was
[glad] and {took|showed} it to [number] friends.
plot: An animal is afraid; cast: animal; fear~fix: the dark ~ {looked at|counted} the stars|the thunder ~ sang a {loud|
funny} song|the wind ~ danced {in it|around and around}|the night ~ told {jokes|stories}; ask~answer: What was [hero]
afraid of? ~ [Hero] was afraid of [fear].|Who helped [hero]? ~ A [fkind] helped [him].|What did they do? ~ They [fix].
text: [Hero] was {always|so} afraid of [fear]. One {night|evening}, [hero] hid {by|near} [place] and shook. A [nice]
[fkind] {saw|heard} [him]. <helper: {I was afraid of [fear], too|Everyone is afraid of something}. {Stay with me|Come
closer}.> So they [fix] {together|side by side}. <hero: {Now I am not afraid|Look, I am brave}!> That night, [hero]
slept well.
plot: An animal finds a friend; cast: animal; game: tag|hide and seek|catch|follow the leader; food: [number] [snack];
ask~answer: Why was [hero] sad? ~ [Hero] was sad because [he] had no friend.|What did they play? ~ They played [game].|
Who was the new friend? ~ The new friend was a [fkind].|What did they eat? ~ They ate [food].
text: Every day, [hero] played alone {by|near} [place] and was [sad]. One [weather] {day|morning}, [hero] saw a [nice]
[fkind]. The [fkind] was alone, too. <hero: Hello! {Do you want to|Can we} play [game]?> <helper: {Yes, please|I would
love to}!> They played [game] and ate [food]. {[Hero] was [glad].|They were friends from that day on.}
plot: Nobody wants a thing; cast: thing; ask~answer: Why was the [kind] sad? ~ The [kind] was sad because nobody wanted
it.|Who took the [kind] home? ~ [Friend] took {it|the [kind]} home.|What could it do? ~ It could [use].
text: It could [use], but {it was old, and |}nobody wanted it. The [kind] was [sad]. <hero: {Will|Does} {nobody|no one}
take me home?> One [weather] {day|morning}, a [nice] [fkind] named [friend] came in. <friend: {Oh, what|What} a [pretty]
[kind]! {I want this one!|May I have it?}> [Friend] took the [kind] home and put it next to a [shade] {chair|bed|
window}. Now it could [use] every day. {How happy it was!|It was [glad].}
plot: A thing makes a child happy; cast: thing; why: it rained all day|[fhis] best friend was {sick|away}|nobody {came
to play|had time}|[fhe] had lost a tooth|[fhis] tummy hurt; ask~answer: Why was [friend] sad? ~ [Friend] was sad because
[why].|Who helped [friend]? ~ The [kind] helped [fhim].|What can the [kind] do? ~ {It|The [kind]} can [use].
text: It belonged to a [nice] [fkind] named [friend]. One [weather] {day|morning}, [friend] was sad because [why]. The
[kind] wanted to help. <hero: {Look at me|Watch me}, [friend]! {I can|See how I can} [use]!> {First, [friend] only
looked.|} Then [friend] {laughed out loud|clapped and laughed}. <friend: {Thank you|Oh}, you are the best [kind] in the
world!> {The [kind] was never alone again.|}
plot: A thing is lost; cast: thing; spot: under a {bush|bench}|behind a [worn] {log|stone}|into the tall grass; finder:
cat|dog|robin|mouse|squirrel|rabbit|duck|fox|hen; ask~answer: Where did the [kind] fall? ~ {It|The [kind]} fell [spot].|
Who found the [kind]? ~ A [finder] found the [kind].|Who looked for it? ~ [Friend] looked for the [kind].
text: It could [use], and a [fkind] named [friend] loved it. One windy day, the [kind] fell [spot]. It lay there for
[number] hours. <hero: {Where is [friend]|Does nobody see me}?> Then a [nice] [finder] found the [kind] and called
[friend], who came {running|at once|right away}. <friend: {There you are|My [kind]}! I looked for you!> The [kind] was
[glad].
""")
