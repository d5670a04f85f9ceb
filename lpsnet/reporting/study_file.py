"""What `lpsnet study` wrote, NAME.json, read back."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from lpsnet.reporting.reading import CommandText, Figures, parsed, read_json


class StudyFile(Figures):
    """The values of a study; rows have the same keys, which carry units."""

    study: str
    title: str
    reference: str = ""
    differences: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    findings: list[str]
    rows: list[dict[str, str | int | float | bool | None]]
    runs: list[dict[str, Any]] = Field(default_factory=list)
    command: CommandText = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(list(row) != list(self.rows[0]) for row in self.rows):
            raise ValueError("all rows have the same keys")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """The study in a JSON file.

        Raises:
            RunError: there is none.
        """
        return parsed(cls, read_json(path), path)
