"""What is told of an evaluation: JSON, tables, pages, plots."""
