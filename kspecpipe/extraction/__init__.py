"""From images to fibre spectra, and the response of the fibres; pure functions on arrays."""
