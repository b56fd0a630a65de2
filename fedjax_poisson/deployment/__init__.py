"""A consortium over a network: who takes part, what a run may do, what each site allows, and what it writes down; nothing here believes the server."""
