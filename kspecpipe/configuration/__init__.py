"""YAML files: their form, their checks, and which of several says what counts."""
