"""The parts of `experiments/faults.py`: where faults strike, what runs under them, and what must hold afterwards."""
