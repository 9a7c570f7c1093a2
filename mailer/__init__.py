"""Answers and account mails to e-mails, and e-mails to the institution's mail server."""
