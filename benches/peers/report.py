"""The tables: one per scenario, and a summary of ratios against the goals."""

from statistics import median

from scenarios import BEST

COLUMNS = {
    "start": "{:.2f}", "before": "{:,.1f}", "after": "{:,.1f}", "p50": "{:.2f}", "p99": "{:.2f}", "p99.9": "{:.2f}", "most": "{:.1f}",
    "late": "{:.2f}", "us": "{:.1f}", "user": "{:,.2f}", "kernel": "{:,.2f}", "rate": "{:,.0f}", "busy": "{:.0%}",
    "waiting": "{:.0%}",
}
WORDS = {
    "start": "s until it listens",
    "before": "MiB before", "after": "MiB after", "late": "client late, p99.9", "us": "CPU us/request",
    "rate": "a second", "waiting": "waited",
}


def shown(column, value):
    """Formats a cell. Rates are requests, or a few GiB."""
    return f"{value:,.2f}" if column == "rate" and value < 100 else COLUMNS[column].format(value)


def spread(values, digits=2):
    """`median (min..max)`."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


class Results:
    """The results of a scenario: figures by round and line, and why lines are missing."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.rounds = []
        self.refused = {}

    def failed(self):
        """Whether a measured line did not do its work."""
        return any(why.startswith("refused") for why in self.refused.values())

    def lines(self):
        """The lines with a figure in every round."""
        return [
            line for line in self.scenario.lines
            if line.name not in self.refused and all(line.name in found for found in self.rounds)
        ]

    def figures(self, name):
        return [found[name]["figure"] for found in self.rounds]

    def ratios(self, name, other):
        """The ratios of two lines, each within the same round."""
        return [found[name]["figure"] / found[other]["figure"] for found in self.rounds]

    def best(self, server):
        """The name of the line with the lowest median: of a server, all peers (BEST), or a line itself; or None."""
        lines = self.lines()
        names = [line.name for line in lines if line.name == server] or [
            line.name for line in lines
            if line.server == server or (server == BEST and line.server != "portcullis")
        ]
        return min(names, key=lambda name: median(self.figures(name)), default=None)

    def goals(self):
        """(what is compared, the ratios or figures or None, the goal) for each goal."""
        for goal in self.scenario.goals:
            of = self.best(goal.of)
            other = self.best(goal.against) if goal.against else None
            if goal.against is None:
                yield self.scenario.unit, self.figures(of) if of else None, goal
            else:
                label = f"/ {goal.against}" + (f" ({other})" if other and other != goal.against else "")
                yield label, self.ratios(of, other) if of and other else None, goal


def heads(scenario, columns):
    """The table's head; if no line is plain Portcullis, each is compared with the first."""
    subject = "portcullis / this" if any(line.name == "portcullis" for line in scenario.lines) else "this / the first"
    return ["server", f"{scenario.unit} (min..max)", *(WORDS.get(column, column) for column in columns), subject]


def print_table(results):
    scenario = results.scenario
    lines = results.lines()
    found = [one for each in results.rounds for one in each.values()]
    columns = [column for column in COLUMNS if found and column in found[0]]
    head = heads(scenario, columns)
    print(f"\n## {scenario.name}: {scenario.title}\n")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    names = [line.name for line in lines]
    digits = 0 if scenario.unit == "ms/GiB" else 2
    for name in names:
        runs = [each[name] for each in results.rounds]
        inexact = "" if all(run.get("exact", True) for run in runs) else " (ticks)"
        cells = [shown(column, median(run[column] for run in runs)) for column in columns]
        if head[-1] == "portcullis / this":
            compared = results.ratios("portcullis", name) if "portcullis" in names and name != "portcullis" else None
        else:
            compared = results.ratios(name, names[0]) if name != names[0] else None
        figures = spread(results.figures(name), digits) + inexact
        print(f"| {name} | {figures} | {' | '.join(cells)} | {spread(compared) if compared else '-'} |")
    for name, why in {**results.refused, **scenario.absent}.items():
        print(f"| {name} | - ({' '.join(why.split())[:300]}) |{' - |' * (len(head) - 2)}")
    if any(run.get("waiting", 0) > 0.05 for run in found):
        print("\nThe measured CPU was not free: a server waited for it more than 5 % of the time in some run.")


def print_summary(all_results):
    print("\n## Goals: median of the ratios of the same round (min..max)\n")
    print("| scenario | compared | found | at most | reached |\n|---|---|---|---|---|")
    for results in all_results:
        for label, values, goal in results.goals():
            reached = "-" if values is None else "yes" if median(values) <= goal.at_most else "NO"
            print(
                f"| {results.scenario.name} | {label} | {spread(values) if values else '-'} | {goal.at_most:g} | "
                f"{reached} |"
            )
