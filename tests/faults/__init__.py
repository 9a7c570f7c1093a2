"""What happens to a machine in a cupboard, done to the real processes and counted."""
