"""Line lists and other static calibrations, each with its source, read as package data."""
