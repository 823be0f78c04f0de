"""A fit finds the alpha and the beta that made its data, and the rate that `tc` gave a link; the
planner's communication term takes both from the file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.wires import STEPS, Collective
from cookbook_lib.cli import main
from cookbook_lib.commands.train_time import measured
from cookbook_lib.communication import links, torch_bench
from cookbook_lib.communication.collectives import COLLECTIVES
from cookbook_lib.communication.fit import ALGORITHMS, best, fit
from cookbook_lib.communication.fitting import links_report
from cookbook_lib.communication.launch import launch

SIZES = [2**k for k in range(3, 27, 3)]


def made(op: str, algorithm: str, alpha: float, beta: float, noise: float = 0.0, nodes: int = 1):
    """Rows whose seconds follow the formula, with some noise and some samples far too slow."""
    random = np.random.default_rng(0)
    rows = []
    for n in (2, 3, 4, 8):
        steps, volume = ALGORITHMS[op][algorithm](n)
        for nbytes in SIZES:
            seconds = (alpha * steps + volume * nbytes / beta) * np.exp(noise * random.normal())
            rows.append(
                {
                    "op": op,
                    "ran": f"gloo:{op}",
                    "backend": "torch gloo",
                    "ranks": n,
                    "nodes": nodes,
                    "dtype": "fp32",
                    "nbytes": nbytes,
                    "seconds": {"median": float(seconds)},
                }
            )
    return rows


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(op, name) for op, table in ALGORITHMS.items() for name in table]),
    st.floats(1e-6, 1e-3),
    st.floats(1e6, 1e12),
)
def test_exact_data_give_alpha_and_beta_back(which, alpha, beta):
    op, name = which
    rows = made(op, name, alpha, beta)
    if alpha * beta < 2**25:  # otherwise no message is large enough to show the rate
        found = fit(rows, {op: name})
        assert found.alpha == pytest.approx(alpha, rel=1e-6, abs=1e-12)
        assert found.beta == pytest.approx(beta, rel=1e-6)
        assert found.residual < 1e-6


def test_noise_and_a_fifth_of_points_three_times_too_slow_do_not_mislead_it():
    rows = made("all_reduce", "ring", 30e-6, 5e9, noise=0.03)
    for row in rows[::5]:
        row["seconds"]["median"] *= 3
    found = fit(rows)
    assert found.alpha == pytest.approx(30e-6, rel=0.1)
    assert found.beta == pytest.approx(5e9, rel=0.1)


@pytest.mark.parametrize("name", ["ring", "tree", "halving and doubling"])
def test_the_algorithm_that_made_the_data_fits_best(name):
    """Recursive doubling is a tree of half the alpha and twice the beta: times cannot tell."""
    assert best(made("all_reduce", name, 30e-6, 5e9, noise=0.01)).algorithm == name


def test_every_collective_has_a_formula_that_moves_what_its_busiest_link_must_carry():
    """The first of each table reaches the bound of busbw; no algorithm goes below it."""
    assert set(ALGORITHMS) == set(COLLECTIVES)
    for op, table in ALGORITHMS.items():
        for n in (2, 3, 4, 7, 8):
            volumes = [formula(n)[1] for formula in table.values()]
            assert volumes[0] == COLLECTIVES[op].bus(n) <= min(volumes) + 1e-12


def test_steps_of_the_planner_are_those_of_the_first_formula():
    for kind, steps in STEPS.items():
        formula = next(iter(ALGORITHMS[kind.replace("-", "_")].values()))
        assert all(steps(n) == formula(n)[0] for n in range(2, 20))


def test_rows_that_cannot_tell_alpha_from_beta_are_refused_in_one_line():
    with pytest.raises(ValueError, match="rows are 2 of too few sizes, expected at least three"):
        fit(made("permute", "pairs", 1e-5, 1e9)[:2])
    with pytest.raises(ValueError, match="of too few sizes"):
        fit([made("permute", "pairs", 1e-5, 1e9)[0]] * 5)


def test_what_ran_is_fitted_and_in_the_dtype_in_which_it_ran():
    rows = [
        row | {"op": "reduce_scatter"} for row in made("all_reduce", "ring", 30e-6, 5e9)
    ]  # as gloo's
    assert fit(rows).beta == pytest.approx(5e9)
    rows = [
        row | {"ran": "all_reduce f32", "dtype": "bf16"}
        for row in made("all_reduce", "ring", 30e-6, 5e9)
    ]
    assert fit(rows).beta == pytest.approx(10e9)


@pytest.mark.skipif(bool(links.missing()), reason=f"no links of a known rate: {links.missing()}")
def test_the_fit_finds_the_rate_that_tc_gives_a_link_near_and_far():
    """TCP's payload is 1448 of the 1514 bytes of a frame; pauses of the sender cost some more."""
    rate, uplink, payload, rows = 10e6, 2.5e6, 1448 / 1514, []
    for nodes in (1, 2):
        with links.network(2, rate, nodes=nodes, uplink=uplink) as net:
            # the largest outlast what the shaper lets through at once after a pause of the sender
            todo = [("all_reduce", 2**k) for k in (8, 12, 18, 20)]
            arguments = {"todo": todo, "dtype": "fp32", "device": "cpu", "seconds": 0.05}
            rows += launch(torch_bench.sweep, 2, arguments, seats=net.seats)[0]
    assert [row["nodes"] for row in rows] == [1] * 4 + [2] * 4
    # as rings, which is how gloo runs it: two ranks alone cannot tell a ring from a tree
    found = {
        tier: fit([row for row in rows if row["nodes"] == nodes])
        for tier, nodes in (("near", 1), ("far", 2))
    }
    assert 0.5 * payload < found["near"].beta / rate < 1.2
    assert 0.5 * payload < found["far"].beta / uplink < 1.2
    assert found["near"].beta > 2 * found["far"].beta


@pytest.fixture
def rows_file(tmp_path):
    rows = [
        *made("all_reduce", "ring", 5e-6, 400e9),
        *made("all_reduce", "ring", 20e-6, 40e9, nodes=2),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_planner_takes_the_file_of_the_fit(rows_file, tmp_path, capsys):
    out = tmp_path / "links.json"
    main(["links", str(rows_file), "--out", str(out), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["tiers"]["far"]["alpha"] == pytest.approx(20e-6)
    fields = measured(out)
    assert fields == {
        "link": pytest.approx(400e9),
        "network": pytest.approx(40e9),
        "link_delay": pytest.approx(5e-6),
        "network_delay": pytest.approx(20e-6),
    }
    one = Collective("dp", "gradients", "all-reduce", 2**20, 3, 8, 1)
    h100 = replace(chip("h100"), **fields)
    assert one.seconds(h100) == pytest.approx(3 * (14 * 5e-6 + 2**20 * 14 / 8 / 400e9))
    far = one._replace(ranks=16)
    assert far.seconds(h100) > far.seconds(replace(h100, network_delay=0.0)) == far.moving(h100, 8)
    train = ["train-time", "zamba2-1.2b", "--gpus", "16", "--json"]
    main(train)
    plain = json.loads(capsys.readouterr().out)["communication_seconds"]
    main([*train, "--links", str(out)])
    assert json.loads(capsys.readouterr().out)["communication_seconds"] > plain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected a file that `cookbook links` wrote"),
        ('{"tiers": {"middle": {}}}', "expected a file that `cookbook links` wrote"),
        ('{"tiers": {"near": {"alpha": -1, "beta": 1e9}}}', "expected rates above 0 and delays"),
        (None, "which cannot be read"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, text, said, capsys):
    path = tmp_path / "links.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as end:
        main(["train-time", "zamba2-1.2b", "--links", str(path)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1


def test_rows_of_two_backends_are_not_mixed(rows_file, capsys):
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    with pytest.raises(ValueError, match="rows are of 2 backends, expected one: jax cpu, torch"):
        links_report([rows[0] | {"backend": "jax cpu"}, *rows])
    with pytest.raises(SystemExit):
        main(["links", str(rows_file), "--backend", "torch nccl"])
    assert "rows are of 0 backends, expected one: none" in capsys.readouterr().err
