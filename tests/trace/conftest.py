"""Frames for the tests: those of traces and of extraction are the same."""

from fibre_fixtures import bench, flat, frames, layout, measured

__all__ = ["bench", "flat", "frames", "layout", "measured"]
