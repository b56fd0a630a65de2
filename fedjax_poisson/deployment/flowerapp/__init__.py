"""The bundle that a Flower run carries: it takes bytes from one Unix socket to another, and reads none of them."""
