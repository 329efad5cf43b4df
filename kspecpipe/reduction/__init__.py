"""Steps of the recipes on whole exposures, made of the numerics and free of files."""
