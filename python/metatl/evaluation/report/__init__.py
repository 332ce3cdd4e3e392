"""Reports of evaluations: JSON, tables, pages, plots."""
