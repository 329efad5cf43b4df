"""Exposures of the same fibres brought together: aligned, scaled, averaged, spliced."""
