"""The paper's tables as rows (Zhang et al. 2022, Tables 2 to 8). Latency in ms, mIoU in percent, FLOPs in 10^9 MACs.

In the tables of other methods, unknown values are None: for example accelerators that Table 5 leaves empty or shares
between rows.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Table2Row(NamedTuple):
    """Table 2: a block, on Cityscapes val, GTX 1070 Ti; MACs are in `BLOCKS`."""

    miou: float
    latency_ms: float
    gmacs_per_ms: float


TABLE_2: dict[str, Table2Row] = {
    "shufflenet": Table2Row(50.8, 5.11, 0.15),
    "inverted_residual": Table2Row(59.2, 5.12, 0.39),
    "ghost": Table2Row(58.3, 5.25, 0.47),
    "residual": Table2Row(66.1, 5.24, 3.08),
    "bottleneck": Table2Row(55.7, 5.65, 0.39),
    "sepconv3x3": Table2Row(53.9, 5.10, 0.21),
    "conv3x3": Table2Row(66.2, 5.08, 3.63),
}


class Table3Row(NamedTuple):
    """Table 3: an interaction, on Cityscapes val, GTX 1070 Ti; `extra_ms` as printed there."""

    title: str
    miou: float
    latency_ms: float
    extra_ms: float


TABLE_3: dict[str, Table3Row] = {
    "none": Table3Row("Baseline", 66.9, 5.68, 0.0),
    "direct_a": Table3Row("Direct-A", 67.9, 6.42, 0.75),
    "direct_b": Table3Row("Direct-B", 68.1, 6.49, 0.82),
    "attention_a": Table3Row("Attention-A", 68.2, 6.42, 0.75),
    "attention_b": Table3Row("Attention-B", 68.6, 6.99, 1.31),
    "bilateral_a": Table3Row("Bilateral-A", 69.6, 6.48, 0.80),
    "bilateral_b": Table3Row("Bilateral-B", 69.9, 5.97, 0.29),
}


class Table4Row(NamedTuple):
    """Table 4: a step, on Cityscapes val, GTX 1070 Ti; the networks are `step_0` to `step_14`."""

    latency_ms: float
    miou: float
    dimension: str
    name: str = ""


TABLE_4: tuple[Table4Row, ...] = (
    Table4Row(0.38, 24.1, ""),
    Table4Row(0.49, 41.4, "depth"),
    Table4Row(0.63, 53.4, "width"),
    Table4Row(0.98, 57.8, "width"),
    Table4Row(1.25, 60.1, "resolution"),
    Table4Row(1.80, 62.3, "depth"),
    Table4Row(2.53, 64.6, "resolution"),
    Table4Row(3.37, 66.1, "resolution", "LPS-Net-S"),
    Table4Row(5.17, 69.5, "resolution", "LPS-Net-M"),
    Table4Row(7.07, 70.8, "width"),
    Table4Row(9.52, 71.4, "width", "LPS-Net-L"),
    Table4Row(12.38, 72.0, "resolution"),
    Table4Row(17.81, 73.0, "resolution"),
    Table4Row(25.14, 74.2, "width"),
    Table4Row(31.18, 74.8, "width"),
)


@dataclass(frozen=True, slots=True)
class Published:
    """A method in Tables 5 to 8.

    Attributes:
        table: its number.
        method: as printed.
        size: (height, width) of the image; None where the table does not say.
        miou_val, miou_test: percent; None where there is a dash or no such column. Table 7 is val, Table 6 is test.
        fps: images a second.
        device: as printed.
        accelerator: as printed; in Table 6 the two daggers' 'TensorRT or TVM'.
    """

    table: int
    method: str
    size: tuple[int, int] | None
    miou_val: float | None
    miou_test: float | None
    fps: float
    device: str
    accelerator: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is one of the paper's own networks."""
        return self.method.startswith("LPS-Net")


_FULL, _HALF, _THREE_QUARTERS = (1024, 2048), (512, 1024), (768, 1536)
_TRT = "TensorRT"

TABLE_5: tuple[Published, ...] = (
    Published(5, "BiSeNet", _THREE_QUARTERS, 69.0, 68.4, 105.8, "TitanXp", _TRT),
    Published(5, "BiSeNetV2", _HALF, 73.4, 72.6, 156.0, "1080Ti"),
    Published(5, "DABNet", _HALF, None, 70.1, 104.2, "1080Ti"),
    Published(5, "DDRNet23slim", _FULL, 77.8, 77.4, 101.6, "2080Ti", _TRT),
    Published(5, "DFANet A", (1024, 1024), None, 71.3, 100.0, "TitanX"),
    Published(5, "DFANet B", (1024, 1024), None, 67.1, 120.0, "TitanX"),
    Published(5, "DFANet A'", _HALF, None, 70.3, 160.0, "TitanX", _TRT),
    Published(5, "Fast-SCNN", (1024, 1024), 69.2, 68.0, 123.5, "TitanXp"),
    Published(5, "MSFNet", _HALF, None, 71.3, 117.0, "2080Ti"),
    Published(5, "SFNet(DF1)", _FULL, None, 74.5, 121.0, "1080Ti", _TRT),
    Published(5, "STDC1Seg-50", _HALF, 72.2, 71.9, 250.4, "1080Ti"),
    Published(5, "STDC2Seg-50", _HALF, 74.2, 73.4, 188.6, "1080Ti"),
    Published(5, "STDC1Seg-75", _THREE_QUARTERS, 74.5, 75.3, 126.7, "1080Ti", _TRT),
    Published(5, "CAS", _THREE_QUARTERS, 71.6, 70.5, 108.0, "TitanXp", _TRT),
    Published(5, "GAS", (769, 1537), 72.4, 71.8, 108.4, "TitanXp"),
    Published(5, "AutoRTNet-A", _THREE_QUARTERS, 72.9, 72.2, 110.0, "TitanXp"),
    Published(5, "DF1-Seg-d8", _FULL, 72.4, 71.4, 136.9, "1080Ti", _TRT),
    Published(5, "DF1-Seg", _FULL, 74.1, 73.0, 106.4, "1080Ti"),
    Published(5, "FasterSeg", _FULL, 73.1, 71.5, 163.9, "1080Ti"),
    Published(5, "TinyHMSeg", _THREE_QUARTERS, None, 71.4, 172.4, "1080Ti", "TVM"),
    Published(5, "LPS-Net-S", _FULL, 73.9, 73.4, 413.5, "1080Ti", _TRT),
    Published(5, "LPS-Net-M", _FULL, 76.5, 74.9, 269.7, "1080Ti", _TRT),
    Published(5, "LPS-Net-L", _FULL, 78.2, 77.3, 151.8, "1080Ti", _TRT),
)


def _camvid(method: str, miou: float, fps: float, device: str, accelerator: str | None = None) -> Published:
    return Published(6, method, None, None, miou, fps, device, accelerator)


_DAGGER, _DOUBLE_DAGGER = "TensorRT", "TVM"  # 'deep learning accelerators of TensorRT or TVM', in this order

TABLE_6: tuple[Published, ...] = (
    _camvid("BiSeNet", 65.6, 175.0, "TitanXp"),
    _camvid("BiSeNet(Res18)", 68.7, 116.3, "TitanXp"),
    _camvid("BiSeNetV2", 72.4, 124.5, "1080Ti", _DAGGER),
    _camvid("BiSeNetV2-L", 73.2, 32.7, "1080Ti", _DAGGER),
    _camvid("DDRNet23slim", 74.7, 230.0, "2080Ti"),
    _camvid("DDRNet23", 76.3, 94.0, "2080Ti"),
    _camvid("DFANet A", 64.7, 120.0, "TitanX"),
    _camvid("DFANet B", 59.3, 160.0, "TitanX"),
    _camvid("ICNet", 67.1, 27.8, "TitanX"),
    _camvid("MSFNet", 72.7, 160.0, "2080Ti"),
    _camvid("MSFNet", 75.4, 91.0, "2080Ti"),
    _camvid("SFNet(DF2)", 70.4, 134.1, "1080Ti", _DAGGER),
    _camvid("SFNet(Res18)", 73.8, 35.5, "1080Ti", _DAGGER),
    _camvid("STDC1Seg-50", 73.0, 197.6, "1080Ti", _DAGGER),
    _camvid("STDC2Seg-50", 73.9, 152.2, "1080Ti", _DAGGER),
    _camvid("CAS", 71.2, 169.0, "TitanXp"),
    _camvid("GAS", 72.8, 153.1, "TitanXp"),
    _camvid("AutoRTNet-A", 73.5, 140.0, "TitanXp"),
    _camvid("FasterSeg", 71.1, 398.1, "1080Ti", _DAGGER),
    _camvid("HMSeg", 75.1, 130.8, "1080Ti", _DOUBLE_DAGGER),
    _camvid("TinyHMSeg", 71.8, 278.5, "1080Ti", _DOUBLE_DAGGER),
    _camvid("LPS-Net-S", 73.6, 432.4, "1080Ti", _DAGGER),
    _camvid("LPS-Net-M", 75.1, 317.3, "1080Ti", _DAGGER),
    _camvid("LPS-Net-L", 76.5, 169.3, "1080Ti", _DAGGER),
)


def _bdd100k(method: str, miou: float, fps: float) -> Published:
    return Published(7, method, None, miou, None, fps, "1080Ti", _TRT)


TABLE_7: tuple[Published, ...] = (
    _bdd100k("DRN-D-38", 55.2, 12.9),
    _bdd100k("DRN-D-22", 53.2, 21.0),
    _bdd100k("FasterSeg", 55.1, 318.0),
    _bdd100k("LPS-Net-S", 55.9, 634.7),
    _bdd100k("LPS-Net-M", 58.1, 495.0),
    _bdd100k("LPS-Net-L", 59.3, 283.3),
)


def _embedded(
    method: str, size: tuple[int, int], val: float, test: float, nano: float, tx2: float
) -> tuple[Published, Published]:
    engine = _TRT if method.startswith("LPS-Net") else None  # Section 4.2, for the authors' own measurements
    return (
        Published(8, method, size, val, test, nano, "Jetson Nano", engine),
        Published(8, method, size, val, test, tx2, "Jetson TX2", engine),
    )


TABLE_8: tuple[Published, ...] = (
    *_embedded("DF1-Seg-d8", _FULL, 72.4, 71.4, 3.2, 7.7),
    *_embedded("FasterSeg", _FULL, 73.1, 71.5, 4.0, 10.1),
    *_embedded("BiSeNetV2", _HALF, 73.4, 72.6, 4.3, 10.3),
    *_embedded("STDC1Seg-50", _HALF, 72.2, 71.9, 7.1, 17.1),
    *_embedded("LPS-Net-S", _FULL, 73.9, 73.4, 10.0, 25.6),
)

ALL_METHODS: tuple[Published, ...] = (*TABLE_5, *TABLE_6, *TABLE_7, *TABLE_8)

# The paper's networks in its tables -> their architecture's name here
OURS: dict[str, str] = {"LPS-Net-S": "lpsnet_s", "LPS-Net-M": "lpsnet_m", "LPS-Net-L": "lpsnet_l"}
