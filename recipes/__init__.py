"""The recipes that ship with kspecpipe: one file, one recipe, found through entry points."""
