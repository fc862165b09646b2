"""Runs held against each other: what differs between two, and tables of many. No torch here."""
