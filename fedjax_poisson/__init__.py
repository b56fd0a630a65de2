"""Private, encrypted federated learning as pure JAX functions."""
