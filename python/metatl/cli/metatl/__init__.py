"""The command `metatl`, one file a subcommand."""
