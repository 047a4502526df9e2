"""Which speaker of a file is the assistant: by roles, by --assistant_name, or by a guess that is logged."""

from collections import Counter

from common.errors import UserError, one_line, one_line_json
from corpus.dialogues import Turn
from corpus.notes import NO_KEY, Notes, ReadingFlags, plain_name
from corpus.turns import ROLES, TEXT_KEYS, TOOLS, Spoken, spoken_turns

SURE_KEYS = ("role", "from")  # these contain a role: any other word is a mistake, not a name
MOST_VALUES = 3  # different values of a key that may name the speaker, at most


class Speakers:
    """Knows which speaker of a file is the assistant: by roles, by --assistant_name, or by a guess."""

    def __init__(self, how: ReadingFlags | None = None, notes: Notes | None = None):
        how = how or ReadingFlags()
        self.key = how.speaker_key
        self.given = how.assistant_name
        self.assistant = plain_name(how.assistant_name) if how.assistant_name else None
        self.notes = notes

    def find(self, dialogues: list[list[Spoken]], name: str) -> None:
        """Find the assistant in the first dialogues of a file, and note how.

        Raises UserError if an unknown key of the turns may name the speaker, and if the assistant never speaks.
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
        """Raise UserError if all turns have a key with the same two or three values: it may say who speaks."""
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
                    f'{name}: no known key says who speaks, but each turn has "{one_line(key, 40)}", {shown}; '
                    f"pass --speaker_key {one_line(key, 40)}, and the assistant as --assistant_name; "
                    f"or, if it does not say who speaks, --speaker_key {NO_KEY}"
                )

    def guess_assistant(self, dialogues: list[list[Spoken]]) -> None:
        """If speakers have names, the assistant is who speaks in every dialogue, or does not speak first."""
        by_name = []  # for each dialogue with only names: its speakers, in order
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
            user = max(everybody, key=lambda name: firsts[name])  # if equal, the first to speak
            (self.assistant,) = (name for name in everybody if name != user)
            why = f'"{self.assistant}" is the assistant, and "{user}", who speaks first, is the user'
        else:
            always = [name for name in everybody if all(name in names for names in by_name)]
            if len(always) == 1:
                self.assistant = always[0]
                why = f'"{self.assistant}", who speaks in all dialogues, is the assistant; the others are the user'
            else:
                why = "the first to speak in each dialogue is the user, the other one is the assistant"
        self.notes.guess(f"speakers are names: {why}; --assistant_name changes this")

    def turns(self, value: object, notes: Notes) -> list[Turn]:
        """Return the (role, text) of a list of turns in any accepted shape.  Raises as `spoken_turns` does."""
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
        """Return the role of a speaker, or "name ..." for a name, whose role depends on the other speakers."""
        role = ROLES.get(turn.speaker)
        if self.given:
            if turn.speaker == self.assistant:
                return "assistant"
            return "system" if role == "system" else "user"
        if role is None and turn.key in SURE_KEYS and not self.key:
            shown = one_line_json(turn.speaker)
            raise ValueError(
                f"turn {number} has the {turn.key} {shown}, not user, assistant or system; name the "
                "assistant with --assistant_name"
            )
        return role or f"name {turn.speaker}"

    def roles_of_names(self, spoken: list[str]) -> dict[str, str]:
        """Return {"name ...": role} for the names among the speakers of a dialogue.

        If the assistant's name is known, all others are the user.  Otherwise, or if there are also roles, the names get
        the unused roles in order.
        """
        names = [role for role in spoken if role.startswith("name ")]
        free = [role for role in ("user", "assistant") if role not in spoken]
        if self.assistant and len(free) == 2:
            return {name: "assistant" if name == f"name {self.assistant}" else "user" for name in names}
        if len(names) > len(free):
            raise ValueError(
                f"{len(names) + 2 - len(free)} speakers, but only user and assistant were expected; "
                "name the assistant with --assistant_name"
            )
        return dict(zip(names, free, strict=False))


def read_turns(value: object) -> list[Turn]:
    """Return the (role, text) of one list of turns in any accepted shape.  Raises ValueError as `spoken_turns` does."""
    return Speakers().turns(value, Notes())
