"""Sky model, rebinning, velocities; pure functions on arrays."""
