"""Prepared data for people."""
