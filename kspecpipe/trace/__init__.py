"""Where the fibres are: tracing, profiles, shifts; pure functions on arrays."""
