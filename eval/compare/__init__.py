"""Comparing models: paired tests, intervals, aggregates, and their wording."""
