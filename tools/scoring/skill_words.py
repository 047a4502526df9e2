"""The words and the templates of the test of skills: words that four-year-olds know, in the style of TinyStories.

In a template, `{wanted}` is the one place that matters.  What comes before it is the context; what comes after it
stays in both texts.  `{said}` is what the context says so that `{wanted}` fits, and `{other}` is what would make the
wrong word fit.  `skill_items.py` fills in all of them.

Who adds a template: keep the word before `{wanted}` free of `{said}` and `{other}`, so that the word before cannot tell
the right one.  If a template names both candidates, write a second one in which the other is named last.  Then "take
the last one" is right half of the time.
"""

GIRLS = ["Lily", "Mia", "Sue", "Anna", "Sara", "Emma", "Lucy", "Amy", "Jane", "Sarah", "Molly", "Mary"]
BOYS = ["Tim", "Tom", "Ben", "Max", "Jack", "Sam", "Timmy", "Tommy", "Billy", "Bob", "Joe", "John"]

# In the lists of animals and things the plural is the word with an s.  A small thing fits into a container.
ANIMALS = ["dog", "cat", "bird", "frog", "bear", "duck", "rabbit", "cow", "horse", "pig", "lion", "monkey"]
THINGS = ["ball", "doll", "book", "hat", "car", "spoon", "cup", "toy", "ring", "kite", "balloon", "stick"]

PLACES = ["park", "garden", "forest", "zoo", "store", "house", "yard", "school", "castle", "cave"]
CONTAINERS = ["box", "bag", "basket", "bucket", "cup", "bowl", "drawer", "car"]
SMALL_THINGS = ["ball", "doll", "key", "ring", "cookie", "coin", "apple", "shell", "button", "flower"]
COLOURS = ["red", "blue", "green", "yellow", "pink", "purple", "black", "white", "brown"]
NUMBERS = ["zero", "one", "two", "three", "four", "five"]
ADJECTIVES = ["big", "small", "little", "red", "blue", "pretty", "new", "nice", "funny", "yellow"]

# (verb after one, verb after many, the rest of the sentence)
VERBS = [
    ("was", "were", "happy"),
    ("was", "were", "very big"),
    ("is", "are", "nice"),
    ("is", "are", "not here"),
    ("has", "have", "a new home"),
    ("has", "have", "no name"),
    ("wants", "want", "to stay"),
    ("needs", "need", "help"),
    ("looks", "look", "so good"),
    ("makes", "make", "me smile"),
]

# (in the past, in the present)
PAST_OR_PRESENT = [
    ("{name} was in the {place}", "{name} is in the {place}"),
    ("{name} was very happy", "{name} is very happy"),
    ("{name} had a {thing}", "{name} has a {thing}"),
    ("{name} was my friend", "{name} is my friend"),
    ("{name} went to the {place}", "{name} goes to the {place}"),
    ("{name} liked the {animal}", "{name} likes the {animal}"),
]
# (in the past, in the present, the rest of the sentence)
ACTIONS = [
    ("liked", "likes", "the flowers"),
    ("wanted", "wants", "a new toy"),
    ("wanted", "wants", "to play"),
    ("had", "has", "a cookie"),
    ("loved", "loves", "to run"),
    ("was", "is", "very fast"),
    ("knew", "knows", "how to swim"),
    ("needed", "needs", "help"),
    ("looked", "looks", "so nice"),
    ("did", "does", "not cry"),
]

AFTER_AN = ["apple", "egg", "owl", "ant", "elephant", "orange", "umbrella", "island", "octopus", "angel", "oven"]
AFTER_A = ["ball", "bird", "book", "banana", "cake", "duck", "tree", "truck", "flower", "boat", "bear", "rock"]

# (what can be the one or the other, the one, the other)
OPPOSITES = [
    ("dog cat box ball tree house rock car", "big", "small"),
    ("bath drink pot cup stone plate", "hot", "cold"),
    ("dog cat bird bear boy girl man", "happy", "sad"),
    ("hat shirt coat floor cup car", "clean", "dirty"),
    ("car dog horse train boat bird", "fast", "slow"),
    ("hat shirt towel coat grass floor", "wet", "dry"),
    ("bed pillow ball bread chair", "soft", "hard"),
    ("box bag rock book", "heavy", "light"),
    ("cat dog boy girl", "good", "bad"),
    ("dog bear man lion horse", "strong", "weak"),
    ("road rope stick song story", "long", "short"),
    ("song bird drum train baby", "loud", "quiet"),
]

# (what did not happen, what happened)
NOT_OR_YES = [
    ("{name} looked for the {thing} and did not find it.", "{name} looked for the {thing} and found it."),
    ("{name} could not go to the zoo.", "{name} could go to the zoo."),
    ("Mom did not give {name} a cookie.", "Mom gave {name} a cookie."),
    ("{name} did not win the race.", "{name} won the race."),
    ("The friend did not come to play with {name}.", "The friend came to play with {name}."),
    ("Dad did not have time to play with {name}.", "Dad had time to play with {name}."),
    ("{name} could not open the box of toys.", "{name} could open the box of toys."),
    ("The {animal} did not like {name}.", "The {animal} liked {name}."),
    ("{name} could not climb the tree.", "{name} could climb the tree."),
    ("{name} did not get a present.", "{name} got a present."),
]

# (what happened to the hero, what the hero is because of it)
CAUSES = [
    ("did not eat all day", "hungry"),
    ("ran all day without a rest", "tired"),
    ("played in the mud", "dirty"),
    ("fell into the lake", "wet"),
    ("lost the best toy", "sad"),
    ("saw a big monster in the dark", "scared"),
    ("had no coat in the snow", "cold"),
    ("ate too much candy", "sick"),
    ("did not drink all day", "thirsty"),
    ("sat too long in the sun", "hot"),
    ("had nothing to do", "bored"),
    ("won the race", "proud"),
]

# (a story, the ending that belongs to it and to none of the others)
STORIES = [
    ("{name} lost the dog. {name} heard it bark behind a tree.", "had the dog back"),
    ("{name} was scared of the water. Dad held {name} in the pool.", "learned how to swim"),
    ("{name} broke a cup. Mom asked who did it.", "said sorry to Mom"),
    ("{name} could not ride because a wheel was broken. Dad got his tools.", "had a bike again"),
    ("{name} put a seed in the ground and gave it water.", "saw a flower grow"),
    ("{name} had toys all over the floor. Mom was not happy.", "cleaned up the room"),
    ("{name} had nobody to play with. Then a new girl said hi.", "made a new friend"),
    ("It was late. Dad read a story to {name} in bed.", "fell asleep in bed"),
    ("{name} was lost in the woods. A bird showed the way.", "got home at last"),
    ("{name} and Mom mixed eggs, milk and sugar.", "ate a sweet cake"),
    ("{name} was sick. The doctor came to help.", "felt so much better"),
    ("{name} ran with all the other children, and ran very fast.", "won the big race"),
    ("It rained. Then the sun came out and {name} looked at the sky.", "saw a nice rainbow"),
    ("{name} took a toy from Ann. Ann cried and cried.", "gave the toy back"),
    ("It was cold and white outside. {name} rolled a big ball.", "made a big snowman"),
    ("{name} could not read. Every day a teacher helped.", "read a whole book"),
]

TEMPLATES = {
    "agreement": [
        "The {said} {wanted} {rest}.",
        "{name} said that the {said} {wanted} {rest}.",
        "The little {said} {wanted} {rest}.",
        '"Look, the {said} {wanted} {rest}," said {name}.',
        "{name} thought that the {colour} {said} {wanted} {rest}.",
        '{name} told Mom, "My {said} {wanted} {rest}."',
    ],
    "he_she": [
        "{said} was sad because {wanted} lost a {thing}.",
        "{said} went to the {place}, and there {wanted} saw a {animal}.",
        "{said} had a {thing}. Every day {wanted} played with it.",
        "A child named {said} lived near the {place}. One day {wanted} found a {thing}.",
        "{said} looked at the {animal}, but {wanted} was not scared.",
        "{said} saw a {animal} in the {place}. Then {wanted} ran home.",
    ],
    "his_her": [
        "{said} played with {wanted} {thing}.",
        "{said} went to the {place} with {wanted} mom.",
        "One day, {said} could not find {wanted} {thing}.",
        "{said} liked the {animal} and gave it {wanted} {thing}.",
        "A child named {said} had a {animal}. It slept in {wanted} bed.",
        "{said} was in the {place}. Mom came and took {wanted} hand.",
    ],
    "tense": [
        "{said}. {Pronoun} {wanted} {rest}.",
        "{said}. Then {pronoun} {wanted} {rest}.",
        'Mom said, "{said}. {Pronoun} {wanted} {rest}."',
        '"{said}, and {pronoun} {wanted} {rest}," said Mom.',
        '"{said}, but {pronoun} {wanted} {rest}," said Dad.',
        '"Look at the picture!" said Dad. "{said}. Here {pronoun} {wanted} {rest}."',
    ],
    "a_an": [
        "{name} saw {said} {wanted}.",
        '"Look, it is {said} {wanted}!" said {name}.',
        "One day, {name} found {said} {wanted} in the {place}.",
        "{name} drew a picture of {said} {wanted}.",
        "In the {place} there was {said} {wanted}.",
        "{name} had a dream about {said} {wanted}.",
    ],
    "plural": [
        "{name} saw {said} {adjective} {wanted}.",
        "In the {place}, {name} found {said} {adjective} {wanted}.",
        "{name} asked for {said} {adjective} {wanted}.",
        "Mom gave {name} {said} {adjective} {wanted}.",
        '"I want {said} {adjective} {wanted}," said {name}.',
        "{name} drew {said} very {adjective} {wanted}.",
    ],
    "hero_name": [
        '{other} was crying. A {kind} named {said} came. So {wanted} asked, "Why are you sad?"',
        'A {kind} named {said} saw {other}. {other} was crying. So {wanted} asked, "Why are you sad?"',
        'There was a {kind} named {said}. {said} was lost. {other} showed {said} home. "Thank you," said {wanted}.',
        "There was a {kind} named {said}. {said} liked to play. One day, {said} met {other}. So {wanted} had fun.",
        "One day, {other} saw a {kind} named {said}. {said} had no friends. So {wanted} was sad.",
        "There was a {kind} named {said}. {said} had no friends. Then {other} came. So {wanted} was happy.",
    ],
    "where": [
        "{name} put the {thing} in the {said}. Later, {name} wanted the {thing}. It was still in the {wanted}.",
        '{name} moved the {thing} to the {said}. "Where is it?" asked Mom. "It is in the {wanted}," said {name}.',
        "{name} hid the {thing} in the {said}. Dad looked for it and found it in the {wanted}.",
        '"Put the {thing} in the {said}," said Mom. So {name} put it in the {wanted}.',
        "The {thing} was in the {other}. {name} put it in the {said}. Now the {thing} was in the {wanted}.",
        "{name} put the {thing} in the {said}. Before, it was in the {other}. Now the {thing} was in the {wanted}.",
    ],
    "who_has": [
        '{other} gave a {thing} to {said}. "Thank you!" said {wanted}.',
        '{other} gave a {thing} to {said}. "Thank you, {other}!" said {wanted}.',
        '{other} gave {said} a {thing}. "I like it!" said {wanted}.',
        '{said} got a {thing} from {other}. "Thank you, {other}!" said {wanted}.',
        "{other} gave a {thing} to {said}. Now the {thing} belonged to {wanted}.",
        "{said} got a {thing} from {other}. Now the {thing} belonged to {wanted}.",
    ],
    "ending": [
        "{said} In the end, {name} {wanted}.",
        "{said} Soon, {name} {wanted}.",
        "{said} That is how {name} {wanted}.",
        "{said} At last, {name} {wanted}.",
        "{said} So {name} {wanted}.",
    ],
    "cause": [
        "{name} {said}. Now {name} was very {wanted}.",
        "{name} {said}, so {pronoun} was {wanted}.",
        'One day, {name} {said}. "I am so {wanted}," said {name}.',
        "Because {name} {said}, {pronoun} was {wanted}.",
        'Mom saw that {name} {said}. "Are you {wanted}?" she asked.',
        "{name} {said}. That made {name} feel {wanted}.",
    ],
    "opposites": [
        'The {thing} was very {said}. {name} looked at it and said, "The {thing} is so {wanted}!"',
        '{name} had a {said} {thing}. {friend} saw it. "Your {thing} is very {wanted}," said {friend}.',
        "One day, {name} saw a {said} {thing}. {name} told Mom about the {wanted} {thing}.",
        '"Is the {thing} {said}?" asked {name}. "Yes," said {friend}, "it is {wanted}."',
        "There once was a {said} {thing}. {name} liked the {wanted} {thing}.",
        '{name} said, "My {thing} is {said}." {friend} saw that it was {wanted}.',
    ],
    "colours": [
        '{name} had a {said} {first}. {friend} saw it. "I like your {wanted} {first}," said {friend}.',
        "{name} found a {said} {first} in the {place}. Then {name} went home with the {wanted} {first}.",
        "There once was a {said} {first}. One day, {name} saw the {wanted} {first}.",
        'The {first} was {said}. {name} looked at it and said, "This {first} is {wanted}."',
        "There was a {said} {first}. It was nice. There was a {other} {second}, too. {name} took the {wanted} {first}.",
        "There was a {other} {second}. There was a {said} {first}, too. It was nice. {name} took the {wanted} {first}.",
    ],
    "counting": [
        '{name} counted, "{before}, {wanted}!"',
        '"{before}, {wanted}," said {name}.',
        "{name} counted the {thing}s: {before}, {wanted}.",
        '"Count to five!" said Mom. "{before}, {wanted}," said {name}.',
        "{name} had {fewer}. Mom gave {name} one more. Now {name} had {wanted} {thing}s.",
        '"{count}," counted {name}. There were {wanted} {thing}s.',
    ],
    "not": [
        "{said} {name} was very {wanted}.",
        "{said} {name} looked very {wanted}.",
        "{said} That made {name} very {wanted}.",
        "{said} {name} was {wanted} all day.",
        '{said} "I am so {wanted}," said {name}.',
        '{said} "I am very {wanted}," said {name}.',
    ],
}
