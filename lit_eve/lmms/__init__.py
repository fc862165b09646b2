"""lit-eve for lmms-eval, which finds it through the entry-point group `lmms_eval.models`.

Nothing here is needed for anything else, and lmms-eval need not be installed: it imports this room,
never the other way round.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval registers under `--model lit_eve`: a class for either kind of its tasks."""
    from lmms_eval.models.registry_v2 import (  # type: ignore[import-not-found]
        ModelManifest,
    )

    return ModelManifest(
        model_id="lit_eve",
        simple_class_path="lit_eve.lmms.models.LitEveSimple",
        chat_class_path="lit_eve.lmms.models.LitEveChat",
    )
