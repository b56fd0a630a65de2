"""ckks."""
