"""All rows of a step at once, one launch after another."""

from typing import Any


class Scheduler:
    def __init__(self, model: Any) -> None:
        self.step = model.launch
