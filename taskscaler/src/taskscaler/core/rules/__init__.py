"""The reactions to events: one file for each subject.

    reserving acquiring releasing suspension   tasks
    listings preparing health interruption     reports about groups and instances
    growth removal                             how many instances
    restoring operating                        the scaler as a whole
    deciding waking                            one pass over all subjects, and when it is due
    placing leaving                            verbs that the others share

A rule is a function of the fleet, an event and the time. It first checks whether the
event is possible, then changes the model, and adds effects to the outbox. A rule for a
subject imports the model and the shared verbs, and no other subject; only `deciding`
and `waking` know them all.
"""
