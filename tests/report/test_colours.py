"""Colours differ from what they stand on, light and dark: contrast as WCAG 2 defines it."""

import re

import numpy as np
import pytest

from lpsnet.report.charts import COLOURS, NUM_COLOURS, STYLE, text_style

_TEXT, _GRAPHICS = 4.5, 3.0  # least contrast, WCAG 2.2: 1.4.3 and 1.4.11


def themes() -> list[dict[str, str]]:
    """The variables of the light theme, and of the dark one."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]


def luminance(colour: str) -> float:
    channels = [channel / 255 for channel in _channels(colour)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_known_colours() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_everything_can_be_seen(theme: dict[str, str]) -> None:
    for ground in ("paper", "soft"):
        for text in ("ink", "muted", "c2", "c3"):
            assert contrast(theme[text], theme[ground]) >= _TEXT, (text, ground)
    for number in range(1, NUM_COLOURS + 1):
        assert contrast(theme[f"c{number}"], theme["paper"]) >= _GRAPHICS, number
    assert contrast(theme["on-accent"], theme["c1"]) >= _TEXT


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_numbers_in_cells_can_be_read_however_deep_the_cell(theme: dict[str, str]) -> None:
    texts = {"on-pale": theme["ink"], "on-middle": "#0c1116", "on-accent": theme["on-accent"]}
    for share in np.linspace(0, 1, 101):
        pairs = zip(_channels(theme["c1"]), _channels(theme["paper"]), strict=True)
        cell = "#" + "".join(f"{round(share * full + (1 - share) * empty):02x}" for full, empty in pairs)
        assert contrast(texts[text_style(share)], cell) >= 3.9, share


def _channels(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def test_figures_of_studies_have_the_light_theme_s_colours() -> None:
    light, _ = themes()
    assert [light[f"c{number}"] for number in range(1, NUM_COLOURS + 1)] == list(COLOURS)


def test_both_themes_have_the_same_colours() -> None:
    light, dark = themes()
    assert set(light) == set(dark)
