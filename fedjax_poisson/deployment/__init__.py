"""A consortium over a network: who takes part, what a run may do, what each site allows and writes down, and what carries the messages. Nothing here believes
the server."""
