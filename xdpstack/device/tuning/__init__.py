"""What a stack changes of a device for its time: asked for, planned, written to a journal, done, and undone."""
