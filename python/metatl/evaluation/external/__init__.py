"""What others made: scores, embeddings and ranked lists of any model, evaluated as ours are."""
