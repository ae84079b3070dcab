"""The operator's settings: one schema, four sources, every mistake named at once."""
