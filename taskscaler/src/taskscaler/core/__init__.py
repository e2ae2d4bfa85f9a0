"""The decisions: a synchronous state machine, events in and effects out."""
