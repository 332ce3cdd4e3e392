"""From ranks to figures: metrics, their intervals and their paired tests."""
