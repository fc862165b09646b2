"""What has to fit between the parts of an experiment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lit_eve.schema.base import Finding
from lit_eve.schema.drafts import Draft


def check(draft: Draft) -> Iterator[Finding]:
    """Everything that does not fit, among what is right by itself."""
    for path, block in draft.blocks():
        for finding in block.findings():
            involved = tuple((*path, *other) for other in finding.involved)
            yield replace(finding, path=(*path, *finding.path), involved=involved)
