"""Synthetic chest radiographs from a physical phantom: who is imaged, their anatomy, lesions, and the X-ray machine."""
