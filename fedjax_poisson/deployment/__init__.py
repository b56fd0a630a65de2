"""The parties of a run on machines of their own: who they are, what they allow, what carries their messages."""
