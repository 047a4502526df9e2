"""Find copies: submissions that share what two separate runs never share.

In reading order: `traces_of`, the values of a run that are compared; `pairs`, which compares all runs.
"""

import itertools
from collections import Counter, defaultdict

from grading.facts import by_step
from grading.findings import Flag, problem, question
from grading.submissions import Submission

MOMENTS = 100  # timestamps of each kind that are compared: the first ones of a run
SHARED = {"timestamps": 3, "speeds": 5}  # how many of these two runs must share; fewer may be a coincidence
LEAST_SPEED = 1000  # tokens per second; rounded speeds below this may be equal by chance
MOST_NAMED = 5  # other runs that one finding names
TELLING = ("run id", "timestamps", "speeds")  # separate runs never share these
ALIKE = ("validation curve", "weights")  # two runs with the same seed share these

Traces = dict[str, set]  # {"person" or one of the names above: values}


def traces_of(run: Submission) -> Traces:
    """Return the values of a run that are compared with those of all others."""
    run_id = run.first_row.get("run_id") or (run.summary or {}).get("run_id") or run.log.run_id
    moments = set()
    for tag in ("Loss/train", "Loss/val"):
        moments |= {("TensorBoard's", time) for _, time, _ in run.board.get(tag, [])[:MOMENTS]}
    for row in [row for row in run.log.rows if "train_loss" in row or "val_loss" in row][:MOMENTS]:
        loss = row.get("val_loss", row.get("train_loss"))  # two runs may write a line in the same second
        moments.add(("the log's", row["step"], row["time"], loss))
    curve = [(step, round(loss, 4)) for step, loss in sorted(by_step(run.history, "eval", "val_loss").items())]
    speeds = by_step(run.history, "train", "tokens_per_second")
    return {
        "person": {run.person},
        "run id": {run_id} if isinstance(run_id, str) else set(),
        "timestamps": moments,
        "speeds": {(step, round(speed)) for step, speed in list(speeds.items())[:MOMENTS] if speed >= LEAST_SPEED},
        "validation curve": {tuple(curve)} if len(curve) > 1 else set(),
        "weights": {model.weights for model in run.models.values()},
    }


def pairs(named: dict[str, Traces]) -> dict[str, list[Flag]]:
    """Return {name: Flags} for the runs that share too much with another run.  named: {name: Traces}."""
    common = defaultdict(lambda: defaultdict(list))  # {name: {other: kinds of values that they share}}
    for what in (*TELLING, *ALIKE):
        for (one, other), count in shared(named, what).items():
            fewer = min(len(named[one][what]), len(named[other][what]))
            if what not in SHARED or count >= max(SHARED[what], fewer / 2):
                common[one][other].append(what)
    flags = defaultdict(list)
    for name, others in common.items():
        groups = defaultdict(list)  # {kinds of shared values: others}
        for other, reasons in others.items():
            telling = [reason for reason in reasons if reason in TELLING]
            if len(telling) > 1 and "speeds" in telling:
                telling.remove("speeds")  # it follows from the others
            groups[tuple(telling or reasons)].append(other)
        for reasons, names in groups.items():
            more = f", and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
            same = f"the same {' and the same '.join(reasons)} as"
            named_others = f"{', '.join(names[:MOST_NAMED])}{more}"
            others = "other submissions" if len(names) > 1 else "another submission"
            if reasons[0] in TELLING:
                finding = problem
                why = "these are copies of one run"
            else:
                finding = question
                why = "the same seed on the same kind of machine does this; is that the reason?"
            flags[name].append(finding(f"{same} {named_others}: {why}", f"{same} {others}: {why}"))
    return flags


def shared(named: dict[str, Traces], what: str) -> Counter[tuple[str, str]]:
    """Return {(one, other): number of values that the two share}; each pair is in it in both orders."""
    holders = defaultdict(list)
    for name, traces in named.items():
        for value in traces[what]:
            holders[value].append(name)
    counts = Counter()
    for names in holders.values():
        both = itertools.permutations(names, 2)
        # a person who resumed a run in another folder may hand in both: these do not count
        counts.update((one, other) for one, other in both if named[one]["person"] != named[other]["person"])
    return counts
