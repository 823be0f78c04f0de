"""Why a plan dropped a candidate, and which candidates stand next to the one that it chose."""

from dataclasses import replace
from typing import NamedTuple

from cookbook_lib.calculators.families import FAMILIES, Choice
from cookbook_lib.calculators.planning import Candidate, Plan, dominates

STEPS = ("d_model", "layers", "attention", "per_kv", "d_state", "ff", "blocks", "experts")


class Neighbour(NamedTuple):
    """A candidate, how its choice differs from the best one's, and why it is not the best."""

    change: str
    candidate: Candidate
    why: str


def verdict(plan: Plan, c: Candidate) -> str:
    """Why a candidate is not the best, by the first reason that applies."""
    best, least = plan.best, min(x.loss for x in plan.front)
    if c == best:
        return "the best"
    if c.choice.share < plan.budgets.min_attention:
        few = f"1 in {c.choice.attention} mixers attends" if c.choice.attention else "none attends"
        return f"{few}, at least {plan.budgets.min_attention:.2g} must"
    if over := c.over(plan.budgets):
        return "over budget: " + ", ".join(f"{k} {x:.2f} times" for k, x in over.items())
    if winner := next((a for a in plan.front if dominates(a, c)), None):
        return f"in nothing better than {winner.choice.label}"
    if c.loss > least + plan.margin:
        return f"loss {c.loss - least:.3f} above the least"
    if c[4:] == best[4:]:
        return "costs the same"
    return f"as good by the law, {c.cache / best.cache:.2f} times the cache"


def neighbours(plan: Plan) -> list[Neighbour]:
    """One step up and down in each choice, then the best of each other family."""
    best = plan.best.choice
    found = []
    for step in STEPS:
        rest = replace(best, **{step: getattr(best, step)})
        others = {
            getattr(c.choice, step): c
            for c in plan.candidates
            if c.choice != best and replace(c.choice, **{step: getattr(rest, step)}) == rest
        }
        below = [v for v in others if v < getattr(best, step)]
        above = [v for v in others if v > getattr(best, step)]
        for value in ([max(below)] if below else []) + ([min(above)] if above else []):
            change = f"{step} {shown(best, step)} -> {shown(others[value].choice, step)}"
            found.append(Neighbour(change, others[value], verdict(plan, others[value])))
    for family in FAMILIES:
        if family != best.family and (rival := rival_of(plan, family)):
            found.append(Neighbour(family, rival, verdict(plan, rival)))
    return found


def shown(choice: Choice, step: str) -> str:
    return f"{getattr(choice, step):.3g}" if step == "ff" else str(getattr(choice, step))


def rival_of(plan: Plan, family: str) -> Candidate | None:
    """The candidate of a family that comes nearest to winning; if none fits, to fitting."""
    own = [c for c in plan.candidates if c.choice.family == family]
    enough = [c for c in own if c.choice.share >= plan.budgets.min_attention] or own
    fitting = [c for c in enough if not c.over(plan.budgets)]
    limit = min(c.loss for c in plan.front) + plan.margin
    if not fitting:
        return min(enough, key=lambda c: max(c.over(plan.budgets).values()), default=None)
    return min(fitting, key=lambda c: (0, c.cache) if c.loss <= limit else (1, c.loss))
