"""Spectra as other programs take them: a table in memory, specutils, the Virtual Observatory."""
