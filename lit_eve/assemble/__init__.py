"""From the experiment file's words to objects: one visible table per `type:`.

The only room that knows every other. A class gets plain arguments; it never sees the schema.
"""

from lit_eve.assemble.data import dataset, text, view
from lit_eve.assemble.training import adamw, number, rates, task
from lit_eve.assemble.vision_language import cutter, encoder_free, on_meta, teacher, teacher_width

__all__ = [
    "adamw",
    "cutter",
    "dataset",
    "encoder_free",
    "number",
    "on_meta",
    "rates",
    "task",
    "teacher",
    "teacher_width",
    "text",
    "view",
]
