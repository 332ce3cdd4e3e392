"""From files to interactions."""
