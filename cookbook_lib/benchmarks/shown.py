"""Rows of `cookbook bench block` as tables for people."""

from cookbook_lib.benchmarks.sweep import Row
from cookbook_lib.commands.output import count, nbytes, print_table, seconds


def show_blocks(rows: list[Row]) -> None:
    """One line for each side of each row."""
    first, lines = rows[0], []
    for r in rows:
        if r["outcome"] != "measured":
            lines.append([r["pass"], length(r), r["outcome"], *[""] * 6])
            continue
        lines.append([*start(r, "cookbook_lib", r["seconds"], r["peak_bytes"]), *rates(r), ""])
        if other := r.get("other"):
            line = start(r, r["against"], other["seconds"], other["peak_bytes"])
            lines.append([*line, "", "", told(other["ratio"])])
    head = ("pass", "tokens", "by", "median", "p10 to p90", "peak memory")
    title = f"{first['block']}: {', '.join(f'{k} {v}' for k, v in sized(first).items())}"
    print_table(title, (*head, "FLOP/s", "of roofline", ""), lines)
    footer(rows)
    for r in rows:
        if other := r.get("other"):
            found = other["largest_relative_difference"]
            print(f"Outputs differ by {found:.1e} of the largest.")
            break


def show_model(rows: list[Row]) -> None:
    """Each distinct block with how often it is used, and the whole beside their sum."""
    lines = []
    for r in rows:
        if r["outcome"] != "measured":
            lines.append([r["pass"], length(r), r["part"], r["uses"], r["outcome"], "", "", ""])
            continue
        took = r["seconds"]
        total = seconds(took["median"] * r["uses"])
        line = [r["pass"], length(r), r["part"], r["uses"], seconds(took["median"]), spread(took)]
        lines.append([*line, total, f"{r['roofline']:.0%}" if "roofline" in r else ""])
    head = ("pass", "tokens", "part", "uses", "median", "p10 to p90", "all uses", "of roofline")
    print_table(f"{rows[0]['model']}: each distinct block, one at a time", head, lines)
    for r in rows:
        if r["part"] != "whole":
            continue
        if r.get("predicted") is None:
            print(f"{r['pass']}: {r['outcome']}.")
        elif r["outcome"] != "measured":
            print(f"{r['pass']}: the blocks add up to {seconds(r['predicted'])}; {r['outcome']}.")
        else:
            ratio = r["predicted"] / r["seconds"]["median"]
            print(
                f"{r['pass']}: the blocks add up to {seconds(r['predicted'])}, the whole takes "
                f"{seconds(r['seconds']['median'])}: predicted / measured is {ratio:.2f}."
            )
    footer(rows)


def footer(rows: list[Row]) -> None:
    done = next((r for r in reversed(rows) if "ceilings" in r), None)
    if done is None:
        return
    flops, bandwidth = done["ceilings"]["flops"], done["ceilings"]["bandwidth"]
    noisy = ", but they are too noisy to rely on" if done["ceilings"]["noisy"] else ""
    print(
        f"{done['dtype']} on {done['device']}, {done['threads']} threads. Measured ceilings: "
        f"{count(flops)}FLOP/s and {count(bandwidth)}B/s{noisy}."
    )


def sized(r: Row) -> dict:
    return {k: v for k, v in r["sizes"].items() if v is not None and not isinstance(v, bool)}


def length(r: Row) -> str:
    if r["pass"] == "decode":
        return f"{r['batch']} x 1 after {r['context']:,}"
    return f"{r['batch']} x {r['tokens']:,}"


def start(r: Row, by: str, took: dict, peak: int) -> list[str]:
    return [r["pass"], length(r), by, seconds(took["median"]), spread(took), nbytes(peak)]


def spread(took: dict) -> str:
    said = f"{seconds(took['p10'])} to {seconds(took['p90'])}"
    return said + ", noisy" * took["noisy"]


def rates(r: Row) -> list[str]:
    return [f"{count(r['flops_per_second'])}FLOP/s", f"{r['roofline']:.0%}"]


def told(ratio: dict) -> str:
    """The other side's seconds for each of ours."""
    if ratio["verdict"] in ("equal", "too noisy to compare"):
        return ratio["verdict"]
    return f"{ratio['median']:.2f} times our time ({ratio['low']:.2f} to {ratio['high']:.2f})"
