"""`python -m fedjax_poisson` is the command `fedjax-poisson`, for where scripts are not on the path."""

from fedjax_poisson.start import main

if __name__ == "__main__":
    main()
