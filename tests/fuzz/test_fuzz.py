"""Fuzzing: nothing that is handed in gives a traceback, a hang, or a wrong result without a word.

pytest tests/fuzz                        a few cases a target, the same every time: seconds
pytest tests/fuzz -m slow                more than 10,000 cases, new ones every time: minutes
pytest tests/fuzz -m slow -k image     one target
"""

import command_targets
import image_targets
import model_targets
import pytest
import report_targets
import run_targets
import text_targets
from fuzzing import Target, fuzz

TARGETS = (
    *image_targets.TARGETS,
    *text_targets.TARGETS,
    *model_targets.TARGETS,
    *run_targets.TARGETS,
    *command_targets.TARGETS,
    *report_targets.TARGETS,
)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_few_cases(target: Target) -> None:
    fuzz(target, target.few, repeatable=True)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_many_cases(target: Target) -> None:
    fuzz(target, target.many, repeatable=False)
