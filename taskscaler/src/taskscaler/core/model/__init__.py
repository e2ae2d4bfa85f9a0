"""The state of the core: plain values, and objects that own their fields."""
