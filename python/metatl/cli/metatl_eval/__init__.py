"""The command `metatl-eval`, one file a subcommand."""
