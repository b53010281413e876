"""Records judged against a policy: verdicts, their causes, and the report of a run. No torch here."""
