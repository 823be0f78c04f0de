"""The planner: the calculators in the browser. Standard library only, as they are."""
