from __future__ import annotations

import pytest

from lit_eve_callbacks.micro_batches import MicroBatches, recounted


# Two steps of three, saved inside the last batch's hook: it is begun and not completed.
@pytest.mark.parametrize(
    ("before", "after", "ready", "completed"),
    [(3, 1, 2, 1), (3, 2, 4, 3), (3, 3, 6, 5), (3, 6, 12, 11)],
)
def test_counts_of_whole_steps_are_put_into_the_new_micro_batches(
    before: int, after: int, ready: int, completed: int
) -> None:
    found = recounted({"ready": 6, "completed": 5}, before, after)
    assert found == {"ready": ready, "completed": completed}


def test_a_step_that_is_half_done_cannot_be_counted_anew() -> None:
    with pytest.raises(ValueError, match=r"after micro-batch 1 of 2 .* devices it was saved with"):
        recounted({"ready": 3, "completed": 3}, 2, 3)


def test_a_step_has_a_micro_batch() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        MicroBatches(0)
