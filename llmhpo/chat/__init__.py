"""The chat session: everything by slash command, without a model; plain words reach the model, which may call the same."""
