"""What two runs have in common that two runs do not have: copies of one run.

In reading order: `traces_of`, what is kept of a run; `pairs`, what is found when all are compared.
"""

import itertools
from collections import Counter, defaultdict

from grading.edited_records import Flag, problem, question
from grading.facts import by_step
from grading.submissions import Submission

MOMENTS = 100  # of a run's that are compared, of each kind the first
SHARED = 3  # moments that two runs must have in common before they are no chance
MOST_NAMED = 5  # others that a sentence names
TELLING = ("run id", "timestamps")  # what no two runs have in common
ALIKE = ("validation curve", "weights")  # what two runs of one seed have in common

Traces = dict[str, set]  # {"person", or one of the above: its values}


def traces_of(run: Submission) -> Traces:
    """What is kept of a run to compare it with all others."""
    run_id = run.first_row.get("run_id") or (run.summary or {}).get("run_id") or run.log.run_id
    moments = set()
    for tag in ("Loss/train", "Loss/val"):
        moments |= {("TensorBoard's", time) for _, time, _ in run.board.get(tag, [])[:MOMENTS]}
    for row in [row for row in run.log.rows if "train_loss" in row or "val_loss" in row][:MOMENTS]:
        loss = row.get("val_loss", row.get("train_loss"))  # two runs may write a line in the same second
        moments.add(("the log's", row["step"], row["time"], loss))
    curve = [(step, round(loss, 4)) for step, loss in sorted(by_step(run.history, "eval", "val_loss").items())]
    return {
        "person": {run.person},
        "run id": {run_id} if isinstance(run_id, str) else set(),
        "timestamps": moments,
        "validation curve": {tuple(curve)} if len(curve) > 1 else set(),
        "weights": {model.weights for model in run.models.values()},
    }


def pairs(named: dict[str, Traces]) -> dict[str, list[Flag]]:
    """{name: Flags} for runs that have more in common than two runs do.  named: {name: Traces}."""
    common = defaultdict(lambda: defaultdict(list))  # {name: {other: what they have in common}}
    for what in (*TELLING, *ALIKE):
        for (one, other), count in shared(named, what).items():
            fewer = min(len(named[one]["timestamps"]), len(named[other]["timestamps"]))
            if what != "timestamps" or count >= max(SHARED, fewer / 2):
                common[one][other].append(what)
    flags = defaultdict(list)
    for name, others in common.items():
        groups = defaultdict(list)  # {what they have in common: others}
        for other, reasons in others.items():
            telling = [reason for reason in reasons if reason in TELLING]
            groups[tuple(telling or reasons)].append(other)
        for reasons, names in groups.items():
            more = f", and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
            text = f"the same {' and the same '.join(reasons)} as {', '.join(names[:MOST_NAMED])}{more}"
            if reasons[0] in TELLING:
                flag = problem(f"{text}: copies of one run")
            else:
                flag = question(f"{text}: the same seed on the same kind of machine does that; is it so here?")
            flags[name].append(flag)
    return flags


def shared(named: dict[str, Traces], what: str) -> Counter[tuple[str, str]]:
    """{(one, other): count} of the values that two have in common; each pair also comes the other way round."""
    holders = defaultdict(list)
    for name, traces in named.items():
        for value in traces[what]:
            holders[value].append(name)
    counts = Counter()
    for names in holders.values():
        both = itertools.permutations(names, 2)  # who resumes in another folder may hand in both: these do not count
        counts.update((one, other) for one, other in both if named[one]["person"] != named[other]["person"])
    return counts
