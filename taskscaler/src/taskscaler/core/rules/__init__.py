"""The reactions to events: one file for each subject.

A rule is a function of the fleet, an event and the time. It first checks whether the
event is possible, then changes the model, and adds effects to the outbox. Rules
share the verbs of `placing` (tasks and slots) and `leaving` (how instances go), and
import nothing else of each other.
"""
