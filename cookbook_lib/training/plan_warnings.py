"""What is unusual about a plan: a reason to look again before it runs."""

from cookbook_lib.training.phases import Plan

ANNEALED = 0.1  # a last rate above this part of the peak has annealed little; a tenth is customary
MOST_EPOCHS = 2  # of annealing data; more "gives little": Zyphra/zcookbook at ec06304, README


def warnings(plan: Plan) -> list[str]:
    """What is unusual about the plan, in a line each."""
    found, before, seen = [], 0.0, set()
    for phase in plan.phases:
        first = phase.rate(0)
        if first > 1.01 * before > 0 and not phase.warmup:  # less is rounding
            found.append(f"{phase.name} jumps from {before:.3g} to {first:.3g}, without a warm-up")
        before = phase.last
        if phase.anneal and seen and not any(phase.share(s) for s in seen):
            found.append(f"{phase.name} replays nothing of what came before: it may be forgotten")
        if phase.anneal:
            for source in phase.mix:
                read = plan.epochs().get(source, 0.0)
                if source not in seen and read > MOST_EPOCHS:
                    found.append(
                        f"{source} is read {read:.3g} times: more than {MOST_EPOCHS} epochs of "
                        "annealing data are reported to give little"
                    )
        seen |= set(phase.mix)
    if before > ANNEALED * plan.peak:
        found.append(
            f"it ends at {before / plan.peak:.0%} of its peak rate: nothing is annealed yet"
        )
    return found
