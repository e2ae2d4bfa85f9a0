"""The tests that every group of instances must pass, one module for each subject."""
