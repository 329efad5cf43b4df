"""Products: what each holds, and how it lies in a FITS file."""
