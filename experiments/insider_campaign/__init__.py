"""The parts of `experiments/insiders.py`: what is trained, what defends it, which runs are made, what is measured of each, and the figure."""
