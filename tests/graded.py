"""Grade a folder of submissions."""

import grade_runs


def grade(folder, *flags):
    """Return {name: (facts, [problems], [questions])} for a folder of submissions."""
    args = grade_runs.parse_args([str(folder), "--processes", "1", *map(str, flags)])
    found = grade_runs.grade_all(grade_runs.find(folder), args)
    texts = lambda entry, kind: [flag.text for flag in entry.flags if flag.kind == kind]
    return {entry.name: (entry.facts, texts(entry, "problem"), texts(entry, "question")) for entry in found}
