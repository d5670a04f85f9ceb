"""The counts against a table counted by hand (design-notes, 'Parameters and MACs', has four of its rows) and against
torch's own counter.
"""

import json
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lpsnet.architecture import get_architecture
from lpsnet.errors import LpsnetError
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import create_model
from lpsnet.models.profile import complexity
from lpsnet.models.reparameterise import fuse

# design-notes, 'Parameters and MACs': parameters, 10^9 MACs at 1024x2048 and at 360x480
COUNTED = [
    (16_091, "0.063", "0.005"),
    (145_563, "0.327", "0.029"),
    (578_995, "1.243", "0.109"),
    (1_301_403, "2.807", "0.246"),
    (1_301_403, "4.385", "0.389"),
    (1_685_547, "6.509", "0.574"),
    (3_371_075, "7.555", "0.670"),
    (3_371_075, "10.421", "0.888"),
    (3_371_075, "17.718", "1.494"),
    (5_961_059, "29.920", "2.526"),
    (9_152_291, "43.808", "3.704"),
    (9_152_291, "54.760", "4.678"),
    (9_152_291, "80.531", "6.782"),
    (13_218_035, "117.562", "9.899"),
    (17_994_515, "158.426", "13.343"),
]


@pytest.mark.parametrize("step", range(15))
def test_the_table_in_the_notes(step: int) -> None:
    large, small = (complexity(f"step_{step}", size=size) for size in ((1024, 2048), (360, 480)))
    assert (large.parameters, f"{large.macs / 1e9:.3f}", f"{small.macs / 1e9:.3f}") == COUNTED[step]
    assert small.parameters == large.parameters


CASES = [*((block, "bilateral_b") for block in BLOCKS), *(("conv3x3", interaction) for interaction in INTERACTIONS)]


@pytest.mark.parametrize(("block", "interaction"), CASES)
def test_torchs_counter_and_the_real_weights_agree(block: str, interaction: str) -> None:
    net = create_model("B=1,2,1,1,1;C=3,4,5,6,7;R=1,1/2,1/4", num_classes=4, block=block, interaction=interaction)
    fused = fuse(net)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fused(torch.zeros(1, 3, 65, 97))
    counted = complexity(net, size=(65, 97))
    assert 2 * counted.macs == counter.get_total_flops()
    assert counted.parameters == sum(parameter.numel() for parameter in fused.parameters())


def test_the_rows_add_up_and_name_every_part() -> None:
    counted = complexity("lpsnet_s", interaction="bilateral_a")
    assert sum(row.macs for row in counted.rows) == counted.macs
    assert sum(row.parameters for row in counted.rows) == counted.parameters
    stages = [(f"stage_{stage}", path) for stage in range(1, 6) for path in (1, 2)]
    others = [("interaction_3", None), ("interaction_4", None), ("head", None)]
    assert sorted((row.part, row.path or 0) for row in counted.rows) == sorted(
        (part, path or 0) for part, path in stages + others
    )


def test_one_row_by_hand() -> None:
    """Stage 1 of step 0 at 64x96, ratio 1/2: one 3x3 convolution, 3 to 4 channels, at 16x24."""
    (row,) = [row for row in complexity("step_0", size=(64, 96)).rows if row.part == "stage_1"]
    assert (row.path, row.parameters, row.macs) == (1, 3 * 4 * 9 + 4, 3 * 4 * 9 * 16 * 24)


def test_a_network_counts_as_its_architecture_in_any_form_and_is_left_alone() -> None:
    net = create_model("tiny", num_classes=5, block="ghost")
    assert complexity(net) == complexity(get_architecture("tiny"), num_classes=5, block="ghost")
    assert net.training
    assert net.form == "reparameterised"


def test_json() -> None:
    counted = complexity("step_6", size=(360, 480)).to_dict()
    assert json.loads(json.dumps(counted)) == counted
    assert counted["size"] == [360, 480]
    assert counted["rows"][0] == {"part": "stage_1", "path": 1, "parameters": 224, "macs": 216 * 113 * 150}


def test_it_takes_well_under_a_second() -> None:
    start = time.perf_counter()
    complexity("lpsnet_l")
    assert time.perf_counter() - start < 1


def test_a_size_below_32_is_refused() -> None:
    with pytest.raises(LpsnetError, match=r"32x32.*16x64"):
        complexity("tiny", size=(16, 64))
