"""Arc lines, identification, dispersion model, line-spread function; pure functions on arrays."""
