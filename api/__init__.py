"""The REST service: students ask here, and workers far from MongoDB fetch and answer here."""
