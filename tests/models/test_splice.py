"""Visual tokens among text. Worked by hand on two rows of three slots, width 1."""

from __future__ import annotations

import torch

from lit_eve.models.splice import splice


def test_visual_tokens_take_their_slots_and_text_keeps_the_others() -> None:
    text = torch.arange(6.0).view(2, 3, 1)
    visual = torch.tensor([[10.0], [20.0]])
    spliced = splice(text, visual, torch.tensor([4, 0]))
    assert spliced.flatten().tolist() == [20, 1, 2, 3, 10, 5]
    assert text.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_gradients_go_to_what_is_shown() -> None:
    text = torch.zeros(2, 3, 1, requires_grad=True)
    visual = torch.zeros(2, 1, requires_grad=True)
    weights = torch.arange(6.0).view(2, 3, 1)
    spliced = splice(text, visual, torch.tensor([4, 0]))
    to_text, to_visual = torch.autograd.grad((spliced * weights).sum(), (text, visual))
    assert to_text.flatten().tolist() == [0, 1, 2, 3, 0, 5]
    assert to_visual.flatten().tolist() == [4, 0]


def test_without_visual_tokens_text_passes_and_their_graph_stays() -> None:
    visual = torch.zeros(0, 1, requires_grad=True)
    text = torch.ones(1, 2, 1)
    spliced = splice(text, visual, torch.zeros(0, dtype=torch.int64))
    assert torch.equal(spliced, text)
    assert spliced.requires_grad
