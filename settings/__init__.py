"""Instrument and mode settings: one YAML file each, read as package data."""
