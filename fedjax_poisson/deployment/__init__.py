"""A consortium over a network: who takes part, what each allows and writes down, what carries the messages; nothing here believes the server."""
