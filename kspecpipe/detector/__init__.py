"""The detector: stacking, bias, dark, cosmic rays; pure functions on arrays."""
