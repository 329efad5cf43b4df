"""Pictures: one style, the verdict beside each, drawn beside the run."""
