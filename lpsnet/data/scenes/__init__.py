"""Generated street scenes with exact labels: a data set for demonstrations and tests that needs no download.

A street in metres is drawn from a seed (`street`, `buildings`, `things`), painted through a pinhole camera onto a
picture and its label map at once (`canvas`), and photographed with rough surfaces, light, blur and noise (`scene`).
"""

from lpsnet.data.scenes.canvas import SCENES
from lpsnet.data.scenes.scene import draw_scene
from lpsnet.data.scenes.split import SceneSplit

__all__ = ["SCENES", "SceneSplit", "draw_scene"]
