"""Pages of quality control: one self-contained HTML file per night, and an index over nights."""

from kspecpipe.report.render import Written, write_report

__all__ = ["Written", "write_report"]
