"""Runs that cannot be are refused before anything is measured, trained or written."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest
from expansion_tiny import OPERATIONS, RUN

from lpsnet.errors import LpsnetError
from lpsnet.models.checkpoint import save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.search.measurements import Limits, TrainingSpec
from lpsnet.search.operations import Operation, SearchNetwork
from lpsnet.search.run import ExpansionRun, check_plan, run_expansion


class _NoDevice:
    def __getattr__(self, name: str):
        pytest.fail("something is measured")


def refused(run: ExpansionRun, out: Path) -> str:
    """What is said of a run that is not begun."""
    with pytest.raises(LpsnetError) as caught:
        run_expansion(run, out / "run", device=_NoDevice())
    assert not list(out.iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def operations(*texts: str) -> Sequence[Operation]:
    return tuple(map(Operation.parse, texts))


@pytest.mark.parametrize(
    ("budgets_ms", "named"),
    [((5.0, nan), "nan"), ((nan, 5.0), "nan"), ((5.0, inf), "inf"), ((0.0, 5.0), "0"), ((5.0, -2.0), "-2")],
)
def test_the_budget_that_is_none_is_named(tmp_path: Path, budgets_ms: tuple[float, ...], named: str) -> None:
    says = refused(replace(RUN, budgets_ms=budgets_ms), tmp_path)
    assert says == f"a latency budget is a finite number of milliseconds above 0; got {named}"


def test_recipes_by_which_candidates_cannot_be_compared(tmp_path: Path) -> None:
    minutes = RUN.recipe.with_overrides({"minutes": 3})
    assert "epochs or iterations, e.g. --set epochs=5" in refused(replace(RUN, recipe=minutes), tmp_path)
    patient = RUN.recipe.with_overrides({"patience": 2, "evaluate_every": 1})
    race = replace(RUN.options, race=True, control=True)
    assert "give --set patience=0" in refused(replace(RUN, recipe=patient, options=race), tmp_path)
    assert check_plan(replace(RUN, recipe=patient)) > 0


def test_a_part_of_val_that_cannot_stay_unseen(tmp_path: Path) -> None:
    assert "keep their weights by all of val" in refused(
        replace(RUN, holdout_share=0.34, recipe=RUN.recipe.with_overrides({"keep_best": True})), tmp_path
    )
    assert "with 3 images leaves one part empty" in refused(replace(RUN, holdout_share=0.1), tmp_path)


def test_names_that_nothing_has(tmp_path: Path) -> None:
    run = replace(RUN, operations=(*OPERATIONS, Operation.parse("block=gost")))
    assert "unknown block 'gost'; did you mean 'ghost'?" in refused(run, tmp_path)
    run = replace(RUN, start=replace_block(RUN.start, "conv"))
    assert "unknown block 'conv'" in refused(run, tmp_path)
    assert "unknown interaction 'bilateral'" in refused(replace(RUN, interaction="bilateral"), tmp_path)


def replace_block(network: SearchNetwork, block: str) -> SearchNetwork:
    return SearchNetwork(network.blocks, network.widths, network.ratio_slots, block)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("depth=0,0,0,1,1", "resolution=0,1/4"), "resolution=0,1/4 has 2 slots, the network 3"),
        (("depth=0,0,0,1,1", "depth=-1,0,0,0,0"), "blocks are whole numbers from 1 to 1000; got 0"),
        (("width=0,0,0,4,4", "width=-4,0,0,0,0"), "widths are whole numbers from 1 to 65536; got 0"),
        (("width=0,0,0,4,4", "resolution=0,-1/4,0"), "resolution=0,-1/4,0"),
        (("block=conv3x3",), "block=conv3x3: leads to the same network"),
    ],
)
def test_operations_that_can_never_apply(tmp_path: Path, asked: tuple[str, ...], says: str) -> None:
    said = refused(replace(RUN, operations=operations(*asked)), tmp_path)
    assert says in said
    assert asked[-1] in said


@pytest.mark.parametrize(
    "asked",
    [
        ("depth=1,0,0,0,0", "depth=-1,0,0,0,1"),
        ("resolution=0,1/4,0", "resolution=1/4,-1/4,0"),
        ("width=0,0,0,4,4", "width=-3,0,0,0,8"),
        ("depth=0,0,0,1,1", "block=conv3x3"),
    ],
)
def test_operations_that_apply_now_or_after_others(asked: tuple[str, ...]) -> None:
    assert check_plan(replace(RUN, operations=operations(*asked))) > 0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("context=gat", "unknown context 'gat'; did you mean 'gate'?"),
        ("unit@5=gost", "unknown block 'gost'; did you mean 'ghost'?"),
        ("block=ghost,ghost,gost,ghost,ghost", "unknown block 'gost'"),
    ],
)
def test_values_that_nothing_has(tmp_path: Path, asked: str, says: str) -> None:
    assert says in refused(replace(RUN, operations=(*OPERATIONS, Operation.parse(asked))), tmp_path)


LITE = SearchNetwork.start("lite0", block="efficientnet_lite")
ENCODER = "efficientnet_lite0"


def test_an_encoder_that_the_start_cannot_use(tmp_path: Path) -> None:
    says = refused(replace(RUN, encoder=ENCODER), tmp_path)
    assert "give --start 'lite0' --block efficientnet_lite" in says
    says = refused(replace(RUN, start=LITE.replace(widths=(16, 24, 40, 80, 96)), encoder=ENCODER), tmp_path)
    assert "{16, 24, 40, 80, 112}" in says
    assert "unknown encoder" in refused(replace(RUN, start=LITE, encoder="efficientnet"), tmp_path)
    weights = tmp_path / "weights.safetensors"
    save_checkpoint(create_model("lite0", num_classes=2), weights)
    with pytest.raises(LpsnetError, match="give one of them"):
        check_plan(replace(RUN, start=LITE, encoder=ENCODER, init=weights))


def test_an_encoder_gives_weights_where_the_blocks_are_its_own(tmp_path: Path) -> None:
    """Also where the recipe asks for some; a network of other blocks starts with random ones, and is let."""
    run = replace(RUN, start=LITE, encoder=ENCODER, recipe=RUN.recipe.with_overrides({"init_required": True}))
    assert check_plan(run) > 0
    assert "encoder" not in RUN.settings({})
    assert run.settings({})["encoder"] == ENCODER
    spec = TrainingSpec(None)
    found = {}
    for change in ("depth=0,0,0,1,1", "unit@4=lite_e6k5", "block=ghost"):
        design = Operation.parse(change).apply(LITE).design
        training = run.task(design, spec, out=tmp_path, parent_weights=None).run
        found[change] = training.encoder, training.recipe.init_required
    assert found == {
        "depth=0,0,0,1,1": (ENCODER, True),
        "unit@4=lite_e6k5": ("", False),
        "block=ghost": ("", False),
    }


def test_limits_that_leave_nothing_are_refused_at_once(tmp_path: Path) -> None:
    run = replace(RUN, options=replace(RUN.options, limits=Limits(parameters=10)))
    says = refused(run, tmp_path)
    assert "depth=0,0,0,1,1: " in says
    assert "parameters, limit 10" in says
    assert "or raise the limits" in says
    assert check_plan(replace(run, options=replace(run.options, num_steps=0))) > 0, "nothing is to be grown"


def test_without_limits_nobody_speaks_of_them(tmp_path: Path) -> None:
    assert "limit" not in refused(replace(RUN, operations=operations("block=conv3x3")), tmp_path)
