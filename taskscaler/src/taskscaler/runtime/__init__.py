"""The anyio shell: it runs the effects of the core and reports back what happened."""
