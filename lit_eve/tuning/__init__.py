"""Searches: settings are proposed here and tried by ordinary runs in processes of their own."""
