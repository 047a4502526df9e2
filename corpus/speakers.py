"""Who of the speakers of a file is the assistant: by their roles, by --assistant_name, or by a guess that is logged."""

from collections import Counter

from common.errors import UserError, one_line, one_line_json
from corpus.dialogues import Turn
from corpus.notes import NO_KEY, Notes, ReadingFlags, plain_name
from corpus.turns import ROLES, TEXT_KEYS, TOOLS, Spoken, spoken_turns

SURE_KEYS = ("role", "from")  # hold a role: another word is a mistake, not a name
MOST_VALUES = 3  # of a key that may be the speaker's


class Speakers:
    """Who of the speakers of a file is the assistant: by their roles, by --assistant_name, or by a guess."""

    def __init__(self, how: ReadingFlags | None = None, notes: Notes | None = None):
        how = how or ReadingFlags()
        self.key = how.speaker_key
        self.given = how.assistant_name
        self.assistant = plain_name(how.assistant_name) if how.assistant_name else None
        self.notes = notes

    def find(self, dialogues: list[list[Spoken]], name: str) -> None:
        """Find the assistant from the first dialogues of a file, and note how.

        Raises UserError where a key of the turns may be the speaker's, and for an assistant who never speaks.
        """
        spoken = [turn for turns in dialogues for turn in turns]
        everybody = list(dict.fromkeys(turn.speaker for turn in spoken if turn.speaker is not None))
        if self.given and self.assistant not in everybody:
            if not {*everybody} <= {*ROLES, *TOOLS}:
                raise UserError(
                    f"{name}: --assistant_name {self.given} does not speak in the first dialogues; "
                    f"these do: {one_line(', '.join(everybody))}"
                )
            self.notes.guess(f"no speaker here is named {self.given}: --assistant_name is not used")
            self.given = self.assistant = None
        if self.key and self.key != NO_KEY and spoken and not everybody:
            raise UserError(f"{name}: no turn has the --speaker_key {self.key}; leave it out, or pass {NO_KEY}")
        unnamed = [turn for turn in spoken if turn.speaker is None]
        if unnamed:
            if self.key is None:
                self.refuse_unknown_key(unnamed, name)
            which = "turns that do not say who speaks" if everybody else "no turn says who speaks"
            self.notes.guess(f"{which}: user and assistant take turns")
        if not self.given:
            self.guess_assistant(dialogues)

    def refuse_unknown_key(self, spoken: list[Spoken], name: str) -> None:
        """Raise UserError where all turns have a key with the same two or three values: it may say who speaks."""
        objects = [turn.fields for turn in spoken if turn.fields is not None]
        if len(objects) < len(spoken):
            return
        for key in objects[0]:
            values = [fields.get(key) for fields in objects]
            if key in TEXT_KEYS or not all(isinstance(value, (str, int)) and value != "" for value in values):
                continue
            found = list(dict.fromkeys(map(plain_name, values)))
            if 1 < len(found) <= MOST_VALUES and len(found) < len(values):
                shown = one_line(" or ".join(found))
                raise UserError(
                    f'{name}: no key that is known says who speaks, but each turn has "{one_line(key, 40)}", {shown}; '
                    f"pass --speaker_key {one_line(key, 40)} and, as --assistant_name, which of them is the assistant; "
                    f"or, if it does not say who speaks, --speaker_key {NO_KEY}"
                )

    def guess_assistant(self, dialogues: list[list[Spoken]]) -> None:
        """Where speakers are names, the one who speaks in every dialogue, or does not speak first, is the assistant."""
        by_name = []  # for each dialogue of names alone: those who speak, in order
        for turns in dialogues:
            names = list(dict.fromkeys(turn.speaker for turn in turns if turn.speaker is not None))
            if not self.key and any(turn.key in SURE_KEYS for turn in turns):
                continue
            if len(names) > 1 and not any(name in ROLES or name in TOOLS for name in names):
                by_name.append(names)
        if not by_name:
            return
        everybody = list(dict.fromkeys(name for names in by_name for name in names))
        if len(everybody) == 2:
            firsts = Counter(names[0] for names in by_name)
            user = max(everybody, key=lambda name: firsts[name])  # of equals the first who speaks
            (self.assistant,) = (name for name in everybody if name != user)
            why = f'"{self.assistant}" is the assistant, "{user}", who begins, the user'
        else:
            always = [name for name in everybody if all(name in names for names in by_name)]
            if len(always) == 1:
                self.assistant = always[0]
                why = f'"{self.assistant}", who speaks in all dialogues, is the assistant, the others the user'
            else:
                why = "in each dialogue the first to speak is the user, the other one the assistant"
        self.notes.guess(f"speakers are names: {why}; --assistant_name decides otherwise")

    def turns(self, value: object, notes: Notes) -> list[Turn]:
        """The (role, text) of a list of turns in any accepted shape.  Raises ValueError as `spoken_turns`."""
        turns = []
        for number, turn in enumerate(spoken_turns(value, self.key, notes, self.assistant), start=1):
            if turn.speaker in TOOLS:
                notes.leave_out(f"turns of {turn.speaker}")
            elif turn.speaker is None:
                turns.append(("assistant" if turns and turns[-1][0] == "user" else "user", turn.text))
            else:
                turns.append((self.role_of(turn, number), turn.text))
        roles = self.roles_of_names(list(dict.fromkeys(role for role, _ in turns)))
        return [(roles.get(role, role), text) for role, text in turns]

    def role_of(self, turn: Spoken, number: int) -> str:
        """A speaker's role; "name ..." for a name, whose role depends on who else speaks."""
        role = ROLES.get(turn.speaker)
        if self.given:
            if turn.speaker == self.assistant:
                return "assistant"
            return "system" if role == "system" else "user"
        if role is None and turn.key in SURE_KEYS and not self.key:
            shown = one_line_json(turn.speaker)
            raise ValueError(
                f"turn {number} has the {turn.key} {shown}, not user, assistant or system; --assistant_name says "
                "who the assistant is"
            )
        return role or f"name {turn.speaker}"

    def roles_of_names(self, spoken: list[str]) -> dict[str, str]:
        """{"name ...": role} for the names among those who speak in a dialogue.

        Where the assistant's name is known, all others are the user; else, and beside roles, the names take the roles
        that nobody has, in order.
        """
        names = [role for role in spoken if role.startswith("name ")]
        free = [role for role in ("user", "assistant") if role not in spoken]
        if self.assistant and len(free) == 2:
            return {name: "assistant" if name == f"name {self.assistant}" else "user" for name in names}
        if len(names) > len(free):
            raise ValueError(
                f"{len(names) + 2 - len(free)} speakers, where user and assistant were expected; "
                "--assistant_name says who the assistant is"
            )
        return dict(zip(names, free, strict=False))


def read_turns(value: object) -> list[Turn]:
    """The (role, text) of one list of turns in any accepted shape.  Raises ValueError as `spoken_turns`."""
    return Speakers().turns(value, Notes())
