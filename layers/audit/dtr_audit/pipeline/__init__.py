"""The steps of a run, and what runs them."""
