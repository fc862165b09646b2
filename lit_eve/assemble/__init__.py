"""From the experiment file's words to objects: one visible table per `type:`.

The only room that knows every other. A class gets plain arguments; it never sees the schema.
"""

from lit_eve.assemble.data import dataset, num_tokens, text, view
from lit_eve.assemble.training import adamw, number, rates, stored_teacher, streams_features, task
from lit_eve.assemble.vision_language import (
    cutter,
    on_meta,
    teacher,
    teacher_width,
    vision_language,
)

__all__ = [
    "adamw",
    "cutter",
    "dataset",
    "num_tokens",
    "number",
    "on_meta",
    "rates",
    "stored_teacher",
    "streams_features",
    "task",
    "teacher",
    "teacher_width",
    "text",
    "view",
    "vision_language",
]
