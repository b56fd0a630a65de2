"""How much a finished run leaks: the attacks of `fedjax_poisson.attacks` with the run's own data, model and mechanism."""
