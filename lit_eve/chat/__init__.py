"""Conversations with a trained model: in the terminal, or on a page."""
