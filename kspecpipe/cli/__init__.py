"""The command ``kspec``; nothing heavy is imported before it is needed."""

from kspecpipe.cli.main import main

__all__ = ["main"]
