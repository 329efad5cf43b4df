"""The memory of quality control: what was measured, what people decided, how it moves.

``store`` writes ``qc.sqlite`` and ``history`` asks it. ``run_record`` is what one run leaves there,
``rebuild`` makes a store again from products. ``limit_rules`` are limits that come from history;
``rescore`` applies new limits to old values. ``trend_series``, ``trend`` and ``trend_figure`` are
one metric over many nights. ``common_metrics`` are the metrics that every recipe has. A value with
its limits and its flag is in `kspecpipe.qc`.
"""
