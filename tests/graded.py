"""What grading says of a folder of submissions."""

import grade_runs


def grade(folder, *flags):
    """{name: (facts, [problems], [questions])} of a folder of submissions."""
    args = grade_runs.parse_args([str(folder), "--processes", "1", *map(str, flags)])
    found = grade_runs.grade_all(grade_runs.find(folder), args)
    texts = lambda one, kind: [flag.text for flag in one.entry.flags if flag.kind == kind]
    return {one.entry.name: (one.entry.facts, texts(one, "problem"), texts(one, "question")) for one in found}
