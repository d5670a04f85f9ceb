"""The networks that studies compare: a name, and all that is needed to build one."""

from dataclasses import dataclass

from lpsnet.architecture import Architecture
from lpsnet.studies.study import Json

TABLE_2_BLOCKS = (1, 2, 4, 7, 7)  # Section 4.3: B of the networks of Tables 2 and 3
TABLE_2_RATIOS = ("1", "1/4")  # and R
TABLE_3_C = 16  # Section 4.3: "We fix c = 16"


@dataclass(frozen=True, slots=True)
class StudyNetwork:
    """A network in a study.

    Attributes:
        name: in tables and figures; different for different networks of a study.
        architecture, block, interaction: see `create_model`.
    """

    name: str
    architecture: Architecture
    block: str = "conv3x3"
    interaction: str = "bilateral_b"

    def to_dict(self) -> dict[str, Json]:
        """What is built, as JSON values, without the name."""
        return {"architecture": str(self.architecture), "block": self.block, "interaction": self.interaction}


def table_2_architecture(c: int) -> Architecture:
    """The macro architecture of Tables 2 and 3 (Section 4.3): C={c,2c,4c,8c,8c}."""
    return Architecture(TABLE_2_BLOCKS, (c, 2 * c, 4 * c, 8 * c, 8 * c), TABLE_2_RATIOS)
