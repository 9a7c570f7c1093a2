"""A copy of users, questions and settings in one file that every store can be filled from."""
