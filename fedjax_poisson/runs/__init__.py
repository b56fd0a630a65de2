"""One private, encrypted training run: configuration, data, budget, training, evaluation, and a folder that documents it all."""
