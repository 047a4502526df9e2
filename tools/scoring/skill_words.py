"""The words and the templates of the test of skills: words that four-year-olds know, in the style of TinyStories.

In a template, `{wanted}` is the one place that matters.  What comes before it is the context; what comes after it
stays in both texts.  `{said}` is what the context says so that `{wanted}` fits, and `{other}` is what would make the
wrong word fit.  `skill_items.py` fills in all of them.

Who adds a template: keep the word before `{wanted}` free of `{said}` and `{other}`, so that the word before cannot tell
the right one.  If a template names both candidates, let templates alternate: in the first, third, ... the right one is
named last, in the second, fourth, ... the wrong one.  Then "take the last one" is right half of the time.
"""

GIRLS = ["Lily", "Mia", "Sue", "Anna", "Sara", "Emma", "Lucy", "Amy", "Jane", "Sarah", "Molly", "Mary"]
BOYS = ["Tim", "Tom", "Ben", "Max", "Jack", "Sam", "Timmy", "Tommy", "Billy", "Bob", "Joe", "John"]

# In the lists of animals and things the plural is the word with an s.  A small thing fits into a container.
ANIMALS = ["dog", "cat", "bird", "frog", "bear", "duck", "rabbit", "cow", "horse", "pig", "lion", "monkey"]
PETS = ["dog", "cat", "bird", "frog", "duck", "rabbit"]
THINGS = ["ball", "doll", "book", "hat", "car", "spoon", "cup", "toy", "ring", "kite", "balloon", "stick"]
NEAR = ["tree", "rock", "house", "flower", "car", "chair", "table", "bed"]

PLACES = ["park", "garden", "forest", "zoo", "store", "house", "yard", "school", "castle", "cave"]
CONTAINERS = ["box", "bag", "basket", "bucket", "cup", "bowl", "drawer", "car"]
SMALL_THINGS = ["ball", "doll", "key", "ring", "cookie", "coin", "apple", "shell", "button", "flower"]
FOODS = ["cake", "bread", "soup", "candy", "cheese", "fruit", "pizza", "ice cream", "chocolate", "rice", "pie", "meat"]
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

# (in the past, every day, the rest of the sentence)
ACTIONS = [
    ("played", "plays", "with a ball"),
    ("saw", "sees", "a big dog"),
    ("ran", "runs", "to a tree"),
    ("wanted", "wants", "a new toy"),
    ("liked", "likes", "the flowers"),
    ("went", "goes", "to a pond"),
    ("said", "says", "hello to a bird"),
    ("had", "has", "a cookie"),
    ("looked", "looks", "at the birds"),
    ("smiled", "smiles", "at a cat"),
]
# (in the past, every day)
PAST_OR_EVERY_DAY = [
    ("Yesterday {name} was in the {place}.", "Every day {name} is in the {place}."),
    ("One morning {name} went to the {place}.", "Every morning {name} goes to the {place}."),
    ("One day {name} walked to the {place}.", "Every day {name} walks to the {place}."),
    ("Once {name} came to the {place}.", "Every day {name} comes to the {place}."),
]
# (still to come, past)
TOMORROW_OR_YESTERDAY = [
    ("The party is tomorrow.", "The party was yesterday."),
    ("The trip is tomorrow.", "The trip was yesterday."),
    ("The race is tomorrow.", "The race was yesterday."),
    ("My birthday is tomorrow.", "My birthday was yesterday."),
]
PLANS = [
    "play with the ball", "see the big dog", "run to the tree", "eat the cake", "sing a song", "find the flower",
    "look at the birds", "draw a picture", "go to the zoo", "swim in the lake", "help Mom", "visit Grandma",
]  # fmt: skip

AFTER_AN = ["apple", "egg", "owl", "ant", "elephant", "orange", "umbrella", "island", "octopus", "angel", "oven"]
AFTER_A = ["ball", "bird", "book", "banana", "cake", "duck", "tree", "truck", "flower", "boat", "bear", "rock"]

# (what can be the one or the other, the one, the other)
OPPOSITES = [
    ("dog cat box ball tree house rock car", "big", "small"),
    ("soup water milk tea food bath", "hot", "cold"),
    ("dog cat bird bear boy girl man", "happy", "sad"),
    ("hat shirt coat floor cup car", "clean", "dirty"),
    ("car dog horse train boat bird", "fast", "slow"),
    ("hat shirt towel coat grass floor", "wet", "dry"),
    ("bed pillow ball bread chair", "soft", "hard"),
    ("box bag cup basket bowl bucket", "full", "empty"),
    ("door box window gate bag", "open", "closed"),
    ("dog bear man lion horse", "strong", "weak"),
    ("road rope stick song story", "long", "short"),
    ("song bird drum train baby", "loud", "quiet"),
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
    "agreement_far": [
        "The {said} near the {near} {wanted} {rest}.",
        "{name} said that the {said} next to the {near} {wanted} {rest}.",
        "The {said} behind the {near} {wanted} {rest}.",
        "The {said} that {name} saw {wanted} {rest}.",
        '"Look, the {said} under the {near} {wanted} {rest}," said {name}.',
        "The {said} that {name} found near the {near} {wanted} {rest}.",
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
        "{said} There {name} {wanted} {rest}.",
        "{said} Then {pronoun} {wanted} {rest}.",
        "{said} After that, {pronoun} {wanted} {rest}.",
        "{said} With a big smile, {name} {wanted} {rest}.",
        "{said} After lunch, {name} {wanted} {rest}.",
        "{said} With a friend, {pronoun} {wanted} {rest}.",
    ],
    "tomorrow": [
        '{name} said, "{said} I {wanted} not {plan}."',
        '{name} said, "{said} We {wanted} {plan}."',
        '"{said} Who {wanted} {plan}?" asked {name}.',
        '"{said} When {wanted} we {plan}?" asked {name}.',
        '"{said} My friends {wanted} not {plan}," said {name}.',
        '"{said} Why {wanted} they {plan}?" asked {name}.',
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
        "A {kind} named {other} had a {pet} named {said}. The name of the {pet} was {wanted}.",
        "A {kind} named {said} had a {pet} named {other}. The name of the {kind} was {wanted}.",
        'A {kind} named {other} had a {pet} named {said}. The {pet} was lost. The {kind} called, "{wanted}!"',
        'A {kind} named {said} had a {pet} named {other}. The {kind} was lost. Mom called, "{wanted}!"',
        'A {kind} named {other} met a {pet} named {said}. The {kind} asked the {pet}, "Are you {wanted}?"',
        'A {kind} named {said} met a {pet} named {other}. The {pet} asked the {kind}, "Are you {wanted}?"',
    ],
    "where": [
        "The {thing} was in the {other}. {name} put it in the {said}. Now the {thing} was in the {wanted}.",
        "{name} took the {thing} and put it in the {said}, not in the {other}. Now the {thing} was in the {wanted}.",
        "{name} took the {thing} out of the {other} and put it in the {said}. Mom found it in the {wanted}.",
        "{name} put the {thing} in the {said}. Before, it was in the {other}. Now it was in the {wanted}.",
        "{name} moved the {thing} from the {other} to the {said}. Later the {thing} was still in the {wanted}.",
        "The {thing} was moved to the {said} from the {other}. Then {name} saw the {thing} in the {wanted}.",
    ],
    "who_has": [
        "{other} gave the {thing} to {said}. Now the {thing} belonged to {wanted}.",
        "{said} got the {thing} from {other}. Now the {thing} belonged to {wanted}.",
        '{other} gave a {thing} to {said}. "Thank you for the {thing}," said {wanted}.',
        '{said} got a {thing} from {other}. "Thank you for the {thing}," said {wanted}.',
        "{other} had a {thing}, but {other} gave it to {said}. Now the {thing} was with {wanted}.",
        "{said} took the {thing} from {other}. Now the {thing} was with {wanted}.",
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
        "One {thing} was {other}, but {name}'s {thing} was {said}. {name} had the one that was {wanted}.",
        "The {thing} was not {other} at all. It was very {wanted}.",
        "{name}'s {thing} was {other}. {friend}'s {thing} was {said}. So {friend} had one that was {wanted}.",
        '"Is the {thing} {other}?" asked {name}. "No," said {friend}, "it is {wanted}."',
        "The first {thing} was {other}. The second {thing} was {said}. The second one was very {wanted}.",
        "The first {thing} was {said}. The second {thing} was {other}. The first one was very {wanted}.",
    ],
    "colours": [
        "The {second} was {other} and the {first} was {said}. {name} liked the {first} because it was {wanted}.",
        "The {first} was {said} and the {second} was {other}. {name} liked the {first} because it was {wanted}.",
        "{name} had a {other} {second} and a {said} {first}. The color of the {first} was {wanted}.",
        "{name} had a {said} {first} and a {other} {second}. The color of the {first} was {wanted}.",
        "{name} saw a {other} {second} next to a {said} {first}. The {first} was {wanted}.",
        "{name} saw a {said} {first} next to a {other} {second}. The {first} was {wanted}.",
    ],
    "counting": [
        "{name} had {fewer}. Mom gave {name} one more. Now {name} had {wanted} {thing}s.",
        '"{count}," counted {name}. There were {wanted} {thing}s.',
        "{animals} sat in the {place}. {name} saw {wanted} animals.",
        "{name} saw {fewer}. Then {name} saw one more. That made {wanted} {thing}s.",
        "{name} counted {animal}s: {said}. So the number of {animal}s was {wanted}.",
        '{name} said, "{before}." Mom said that the next number was {wanted}.',
    ],
    "not": [
        "There was no {other}, but there was {said}. {name} ate the {wanted}.",
        "There was {said}, but there was no {other}. {name} ate the {wanted}.",
        "{name} did not like {other}. {name} liked {said}. So Mom gave {name} some {wanted}.",
        "{name} liked {said}. {name} did not like {other}. So Mom gave {name} some {wanted}.",
        "Dad did not make {other}. He made {said}. Everyone ate the {wanted}.",
        "Dad made {said}. He did not make {other}. Everyone ate the {wanted}.",
    ],
}
