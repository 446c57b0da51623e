"""The pieces of a GPT: each is built in a notebook first, then imported from here."""
