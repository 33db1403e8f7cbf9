"""Experiments, each behind one table or figure of docs/: run in a clone as `python -m studies.NAME`, not installed."""
