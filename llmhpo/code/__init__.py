"""Code that a model may edit: what may change, edits checked and applied, and every revision kept."""
