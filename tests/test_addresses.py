from __future__ import annotations

from pathlib import Path

import pytest

from lit_eve.assemble.addresses import name_or_path


def test_an_address_is_a_name_on_the_hub_or_a_folder_that_is_there(tmp_path: Path) -> None:
    assert name_or_path("hf:owner/name") == "owner/name"
    assert name_or_path(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ValueError, match="write hf:runs/teacher for a model of the hub"):
        name_or_path("runs/teacher")
