"""How one run of a recipe goes: settings and inputs in, judged products out."""
