"""MetaTL: meta transitional learning for cold-start sequential recommendation."""
