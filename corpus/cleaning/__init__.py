"""Cleaning: recipe steps that keep, change or drop documents, each counted by reason."""
