"""Whole nights: organise raw frames, associate calibrations, plan jobs and run them."""
