"""From rows of a file to the users of a cold-start split, and the candidates that they are ranked on."""
